"""`lineage --data FILE`: which pushed versions came from an image.

`FileUses` is a stable interface; other tools may rely on its JSON. This module does not import TFX.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from ml_metadata.metadata_store import MetadataStore
from pydantic import BaseModel

from components.publishing.directory import all_published
from components.storage.file_systems import file_system
from data.errors import WorkspaceError
from data.manifest import ImageFile, digests, read_manifest
from data.spans import has_pattern, parse_pattern
from pipeline.metadata.lineage import SCHEMA_VERSION, PushRecord, pushes
from pipeline.metadata.provenance import Provenance, StageExecution, copied_version, ingests, json_object, properties


class FileUse(BaseModel):
    """One pushed version that used a file."""

    model: str
    version: int
    split: Literal["train", "val", "test"]
    """train: the file was used for training; val: for selecting the model; test: for evaluating it."""
    key: str
    """Path of the file in the dataset when it was ingested."""
    matched_by: Literal["content", "path"]
    """'path': only the path is the same, and the content was different."""
    through: int | None = None
    """The version that used the file, and from whose weights training started; None if this version used it itself."""
    restored_from: int | None = None
    """The version that a rollback republished under this number, and that used the file; None without a rollback."""


class FileUses(BaseModel):
    """The pushed versions that came from a file."""

    schema_version: int = SCHEMA_VERSION
    file: str
    uses: list[FileUse]
    unknown: list[str]
    """`model/version` of those whose examples have no manifest or are deleted, and of those that started from these."""
    removed: list[str] = []
    """The members of `unknown` that are no longer in the serving directory."""


def file_uses(store: MetadataStore, file: Path) -> FileUses:
    """Finds the pushed versions that came from an image file, by its content, or else by its path in the dataset.

    Raises:
        WorkspaceError: The path is a folder, or it does not exist and no version used a file of this path.
    """
    if file.is_dir():
        raise WorkspaceError(f"{file}: is a folder; name one image")
    known = pushes(store)
    provenance = Provenance(store, [push.artifact_id for push in known])
    wanted = digests(file.read_bytes()) if file.exists() else set()
    found: dict[int, list[tuple[ImageFile, Literal["content", "path"]]] | None] = {}
    uses: dict[str, list[FileUse]] = {}
    unknown: dict[str, PushRecord] = {}
    for push in known:
        ingested = [step for step in provenance.behind(push.artifact_id) if ingests(step, provenance)]
        for step in ingested:
            if step.execution.id not in found:
                found[step.execution.id] = _search(step, provenance, file.absolute(), wanted)
        matches = [found[step.execution.id] for step in ingested]
        own = [
            FileUse.model_validate(
                {
                    "model": push.model,
                    "version": push.version,
                    "split": entry.split,
                    "key": entry.key,
                    "matched_by": how,
                }
            )
            for entries in matches
            for entry, how in entries or []
        ]
        start = _start(push, provenance)
        # It is also unknown if the push of the version that training started from is not on record, as after a loss of
        # ML Metadata.
        if None in matches or (start is not None and (start.path in unknown or start.path not in uses)):
            unknown[push.path] = push
        if start is not None and all(use.split == "test" for use in own):
            # The version inherits the uses of the version from whose weights its training started.
            learned = [use for use in uses.get(start.path, []) if use.split != "test"]
            through = {"version": push.version, "through": start.version}
            own = [*own, *(use.model_copy(update=through) for use in learned)]
        uses[push.path] = own
    every = [use for found in uses.values() for use in found]
    if not every and not file.exists():
        unclear = f"; not known for: {', '.join(_names(unknown.values()))}" if unknown else ""
        raise WorkspaceError(f"{file}: no such file, and no version used this path{unclear}")
    # Several workspaces that share a store may have versions of the same name, of which some are still there.
    names, kept = _names(unknown.values()), _names(push for push in unknown.values() if not push.removed)
    return FileUses(file=str(file), uses=every, unknown=names, removed=[name for name in names if name not in kept])


def with_restored(found: FileUses, serving: Path) -> FileUses:
    """Adds the versions as which rollbacks republished these, as far as they are still there."""
    restored = [
        (folder.name, version)
        for folder in sorted(serving.glob("*"))
        for version in all_published(str(folder))
        if version.record.restored_from is not None
    ]
    uses = [
        use.model_copy(update={"version": version.version, "restored_from": use.version})
        for model, version in restored
        for use in found.uses
        if (use.model, use.version) == (model, version.record.restored_from)
    ]
    unknown = [
        f"{model}/{version.version}"
        for model, version in restored
        if f"{model}/{version.record.restored_from}" in found.unknown
    ]
    return found.model_copy(
        update={
            "uses": [*found.uses, *uses],
            "unknown": [*found.unknown, *unknown],
            "removed": [name for name in found.removed if name not in unknown],
        }
    )


class _StartVersion(NamedTuple):
    """The version from whose weights a training started."""

    version: int
    path: str
    """Where it was first pushed to; after a rollback, the path of the version that was restored."""


def _start(push: PushRecord, provenance: Provenance) -> _StartVersion | None:
    pusher = provenance.maker(push.artifact_id)
    trainer = provenance.maker(pusher.inputs["model"][0]) if pusher else None
    version = copied_version(trainer, "base_model", provenance) if trainer else None
    if trainer is None or version is None:
        return None
    # If a rollback published it, its files are listed under the version that the rollback restored.
    first = properties(provenance.artifacts[trainer.inputs["base_model"][0]]).get("first_version", version)
    return _StartVersion(version, str(PurePosixPath(push.path).with_name(str(first))))


def _names(known: Iterable[PushRecord]) -> list[str]:
    return [f"{push.model}/{push.version}" for push in known]


def _search(
    step: StageExecution, provenance: Provenance, file: Path, wanted: set[str]
) -> list[tuple[ImageFile, Literal["content", "path"]]] | None:
    """The manifest entries of an ingestion that match the file; None if the ingestion left no manifest."""
    path = str(json_object(properties(step.execution).get("config"))["path"])
    root = parse_pattern(path).root if has_pattern(path) else path
    below = str(file.relative_to(root)) if file.is_relative_to(root) else None
    found: list[tuple[ImageFile, Literal["content", "path"]]] = []
    for examples in step.outputs["examples"]:
        uri = provenance.artifacts[examples].uri
        try:
            for entry in read_manifest(uri, file_system(uri)):
                if entry.sha256 in wanted:
                    found.append((entry, "content"))
                elif entry.key == below:
                    found.append((entry, "path"))
        except FileNotFoundError:
            return None
    return found
