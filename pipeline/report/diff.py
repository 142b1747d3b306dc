"""The differences between the configurations of two runs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.section import with_current_names
from pipeline.config import Config
from pipeline.workspace import CONFIG_FILE, run_folders


@dataclass(frozen=True)
class Change:
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
    changes: list[Change]


def config_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The settings that differ, in alphabetical order; settings that were renamed have their current names."""
    old, new = (dict(_settings(with_current_names(Config, tree)[0])) for tree in (before, after))
    return [
        Change(key, old.get(key, ""), new.get(key, ""))
        for key in sorted({*old, *new})
        if old.get(key, "") != new.get(key, "")
    ]


def since_previous(folder: Path, config: Mapping[str, Any]) -> ConfigDiff | None:
    """Compares a run's configuration with that of the previous run in the workspace; None for the first run."""
    for run in run_folders(folder.parent):
        before = _recorded(run) if run.name < folder.name else None
        if before is not None:
            return ConfigDiff(run.name, config_diff(before, config))
    return None


def _recorded(run: Path) -> dict[str, Any] | None:
    """A run's configuration; None if it was killed before it wrote one, or if the file was damaged since."""
    try:
        found = json.loads((run / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _settings(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.dumps(value, ensure_ascii=False)
