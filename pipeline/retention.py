"""Retention: removes what runs left in a workspace, once it is old and nothing depends on it.

The following are kept: the newest runs, with all artifacts that they made or took from the cache; the newest
successful run; and everything from which a version in the serving directory was made, which holds the versions that
are served, kept or pinned. A run's copy of a served version is not kept once that version is gone: it may have been
deleted on purpose, and the results of the comparison stay on record. Each pipeline keeps the newest of its finished
trainings. An artifact is marked as deleted in ML Metadata before its files are removed, so that no later run takes it
from the cache.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.artifacts import COPIED_VERSION, PRESENT
from components.publishing.directory import all_published
from components.training.trainer import CHECKPOINTS, FINISHED, TENSORBOARD
from data.errors import WorkspaceError
from pipeline.metadata.lineage import Lineage, PushRecord, find_push, lineage, pushes
from pipeline.records.status import run_status
from pipeline.sections.workspace import RetentionConfig
from pipeline.workspace import Workspace, run_folders

_DAY = 86400.0
_USABLE = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)


@dataclass(frozen=True)
class Superseded:
    """What may be removed."""

    runs: list[Path]
    """Folders that hold the records and logs of runs."""
    artifacts: list[metadata_store_pb2.Artifact]
    """Artifacts that ML Metadata records as existing."""
    folders: list[Path]
    """Folders of these artifacts, of outputs left behind by killed runs, and of trainings."""

    def remove(self, store: MetadataStore) -> None:
        """Removes all of it. If this is interrupted, the next call removes the rest."""
        for artifact in self.artifacts:
            artifact.state = metadata_store_pb2.Artifact.DELETED
        if self.artifacts:
            store.put_artifacts(self.artifacts)
        for folder in (*self.folders, *self.runs):
            shutil.rmtree(folder)


def superseded(workspace: Workspace, store: MetadataStore, config: RetentionConfig) -> Superseded:
    """Finds what may be removed now; removes nothing.

    Args:
        workspace: The workspace, whose lock the caller holds, so that no run is in progress.
        store: The ML Metadata of its runs.
        config: Which runs are kept.

    Raises:
        WorkspaceError: The record of a version is damaged.
    """
    behind = list(_behind_versions(workspace, store))
    runs = _runs(workspace, store)
    kept_runs = _kept_runs(runs, config)
    kept = _made_by(store, [run.name for run in kept_runs])
    kept |= {number for found in behind for stage in found.stages for number in _touched(stage.inputs, stage.outputs)}
    there = [artifact for artifact in store.get_artifacts() if _is_ours(artifact, workspace)]
    kept -= _copies_of_removed_versions(there, workspace)
    named = {found.run_id for found in behind}
    return Superseded(
        runs=[run for run in runs if run not in kept_runs and run.name not in named],
        artifacts=[artifact for artifact in there if artifact.id not in kept],
        folders=[
            *_left_over(workspace, store, [artifact.uri for artifact in there if artifact.id in kept]),
            *_superseded_trainings(workspace.checkpoints, config),
        ],
    )


def _behind_versions(workspace: Workspace, store: MetadataStore) -> Iterator[Lineage]:
    """The lineage of every version in the serving directory that is recorded in ML Metadata."""
    known: list[PushRecord] = pushes(store)
    for folder in workspace.serving.glob("*"):
        for version in {version.record.first_version for version in all_published(str(folder))}:
            try:
                push = find_push(known, version, folder.name, workspace.serving)
            except WorkspaceError:  # Metadata that were lost since do not know it.
                continue
            yield lineage(store, push)


def _copies_of_removed_versions(artifacts: Iterable[metadata_store_pb2.Artifact], workspace: Workspace) -> set[int]:
    """Ids of the copies that ServedModel and WarmStart made of versions that are no longer in the serving directory."""
    versions = {version.version for folder in workspace.serving.glob("*") for version in all_published(str(folder))}
    return {artifact.id for artifact in artifacts if _copied_version(artifact) not in (None, *versions)}


def _copied_version(artifact: metadata_store_pb2.Artifact) -> int | None:
    properties = artifact.custom_properties  # Reading a missing key would add it.
    if PRESENT not in properties or not properties[PRESENT].int_value:
        return None
    return int(properties[COPIED_VERSION].int_value)


def _touched(*sides: dict[str, list[int]]) -> Iterator[int]:
    for side in sides:
        for numbers in side.values():
            yield from numbers


def _runs(workspace: Workspace, store: MetadataStore) -> list[Path]:
    """The folders of all runs, newest first, in the order of ML Metadata, because names depend on the clock."""
    order = {context.name: context.id for context in store.get_contexts_by_type("pipeline_run")}
    return sorted(
        run_folders(workspace.runs), key=lambda folder: (order.get(folder.name, 0), folder.name), reverse=True
    )


def _kept_runs(runs: list[Path], config: RetentionConfig) -> list[Path]:
    """The runs that are kept, newest first: those that are new enough, and the newest successful one."""
    newest = [run for run in runs[: config.keep_runs] if run == runs[0] or not _is_old(run, config)]
    succeeded = next((run for run in runs if run_status(run).status == "succeeded"), None)
    return newest if succeeded is None or succeeded in newest else [*newest, succeeded]


def _is_old(folder: Path, config: RetentionConfig) -> bool:
    return config.keep_days is not None and time.time() - folder.stat().st_mtime > config.keep_days * _DAY


def _made_by(store: MetadataStore, run_ids: Iterable[str]) -> set[int]:
    """Ids of the artifacts that the runs made or took from the cache."""
    contexts = [store.get_context_by_type_and_name("pipeline_run", run_id) for run_id in run_ids]
    executions = [
        execution.id
        for context in contexts
        if context is not None
        for execution in store.get_executions_by_context(context.id)
        if execution.last_known_state in _USABLE
    ]
    events = store.get_events_by_execution_ids(executions) if executions else []
    return {event.artifact_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT}


def _is_ours(artifact: metadata_store_pb2.Artifact, workspace: Workspace) -> bool:
    """Whether an artifact exists in this workspace; a MySQL server may hold the metadata of several workspaces."""
    is_gone = artifact.state == metadata_store_pb2.Artifact.DELETED
    return not is_gone and Path(artifact.uri).is_relative_to(workspace.artifacts)


def _left_over(workspace: Workspace, store: MetadataStore, kept: list[str]) -> Iterator[Path]:
    """Folders that contain no kept artifact: `<stage>/<output>/<execution>`, and TFX's working folders.

    An execution that the metadata do not know may be recorded in a damaged database that was moved away, so its
    outputs are left alone.
    """
    root = workspace.artifacts
    needed = {root.joinpath(*Path(uri).relative_to(root).parts[:3]) for uri in kept}
    yield from _folders(root, "*/.system/*/*")
    folders = {path: int(path.name) for path in _folders(root, "*/*/*") if path.name.isdecimal() and path not in needed}
    known = {execution.id for execution in store.get_executions_by_id(set(folders.values()))} if folders else set()
    yield from (folder for folder, execution in folders.items() if execution in known)


def _folders(root: Path, pattern: str) -> Iterator[Path]:
    """Folders directly below `root`; any files there are not the pipeline's."""
    return (path for path in root.glob(pattern) if path.is_dir() and not path.is_symlink())


def _superseded_trainings(checkpoints: Path, config: RetentionConfig) -> Iterator[Path]:
    """Folders of trainings, and of hyperparameter searches, that will not be resumed.

    Each pipeline keeps the newest of its finished trainings, from which the model is exported again after a change of
    section `inference`. That one and the unfinished ones are kept by number and age; the newest of all is always kept.
    """
    trainings: list[Path] = []
    for folder in _folders(checkpoints, "*"):
        # Earlier versions of this code did not make a folder for each pipeline.
        is_training = any((folder / name).is_dir() for name in (CHECKPOINTS, TENSORBOARD))
        trainings += [folder] if is_training else _folders(folder, "*")
    kept: list[Path] = []
    finished: set[Path] = set()
    for folder in sorted(trainings, key=_last_change, reverse=True):
        is_finished = (folder / FINISHED).exists()
        is_old = config.keep_days is not None and time.time() - _last_change(folder) > config.keep_days * _DAY
        if (is_finished and folder.parent in finished) or (kept and (is_old or len(kept) >= config.keep_runs)):
            yield folder
            continue
        kept.append(folder)
        if is_finished:
            finished.add(folder.parent)


def _last_change(folder: Path) -> float:
    times = (os.stat(os.path.join(parent, name)).st_mtime for parent, _, names in os.walk(folder) for name in names)
    return max(times, default=folder.stat().st_mtime)
