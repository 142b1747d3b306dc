"""The runs that the pages show: their records, and how their configurations differ."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore

from data.errors import WorkspaceError
from data.section import with_current_names
from pipeline.config import Config
from pipeline.metadata.backup import require_whole
from pipeline.metadata.lineage import find_push, lineage, pushes
from pipeline.metadata.outline import Outline, lineage_outline
from pipeline.metadata.store import metadata_config, open_store, recorded_config
from pipeline.records.executions import StageRecord, read_run
from pipeline.records.summary import RunSummary, read_summary
from pipeline.sections.workspace import ReportConfig
from pipeline.workspace import CONFIG_FILE, Workspace, run_folders


@dataclass(frozen=True)
class RunRecord:
    """The artifacts and records of a run."""

    summary: RunSummary
    stages: Mapping[str, StageRecord]
    """The stages, as `pipeline.records.executions.read_run` returns them."""
    folder: Path
    """The run's folder."""
    origin: Outline | None = None
    """Lineage of the version that the run pushed; None if it pushed none."""

    @property
    def config(self) -> ReportConfig:
        """Section `report` of the run's configuration."""
        return ReportConfig.model_validate(self.summary.config["report"])


def read_run_record(workspace: Workspace, run_id: str | None) -> RunRecord:
    """Reads the artifacts and records of a run; None stands for the newest run.

    Raises:
        WorkspaceError: Nothing has run yet, the run does not exist, or it has no record.
        MetadataError: ML Metadata cannot be opened, or is damaged.
    """
    folder = workspace.latest_run if run_id is None else workspace.run_folder(run_id)
    summary = read_summary(folder)
    config = recorded_config(workspace)
    if config.backend == "sqlite":
        require_whole(workspace)
    connection = metadata_config(workspace, config)
    stages = read_run(connection, summary.config["name"], summary.run_id)
    return RunRecord(summary, stages, folder, read_origin(open_store(connection), summary, workspace))


def read_origin(store: MetadataStore, summary: RunSummary, workspace: Workspace) -> Outline | None:
    """The lineage of the version that a run pushed; None if it pushed none, or if the metadata were lost since."""
    if summary.pushed_version is None:
        return None
    name = summary.config["push"]["model_name"]
    with suppress(WorkspaceError):
        push = find_push(pushes(store), summary.pushed_version, name, workspace.serving)
        return lineage_outline(lineage(store, push))
    return None


@dataclass(frozen=True)
class ConfigChange:
    """One setting that differs."""

    key: str
    """The setting, as `section.key`."""
    before: str
    """The earlier value as JSON; empty if there was none."""
    after: str


@dataclass(frozen=True)
class ConfigDiff:
    """The differences from another run."""

    run_id: str
    """Id of the other run."""
    changes: list[ConfigChange]


def config_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ConfigChange]:
    """The settings that differ, in alphabetical order; settings that were renamed have their current names."""
    old, new = (dict(_settings(with_current_names(Config, tree)[0])) for tree in (before, after))
    return [
        ConfigChange(key, old.get(key, ""), new.get(key, ""))
        for key in sorted({*old, *new})
        if old.get(key, "") != new.get(key, "")
    ]


def _settings(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.dumps(value, ensure_ascii=False)


def since_previous(folder: Path, config: Mapping[str, Any]) -> ConfigDiff | None:
    """Compares a run's configuration with that of the previous run in the workspace; None for the first run.

    A run that was killed before it wrote its configuration, or whose file was damaged since, is passed over.
    """
    for run in run_folders(folder.parent):
        if run.name >= folder.name:
            continue
        try:
            before = json.loads((run / CONFIG_FILE).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(before, dict):
            return ConfigDiff(run.name, config_diff(before, config))
    return None
