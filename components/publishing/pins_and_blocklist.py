"""Pinned versions and blocked models of a serving directory, in two small files beside the versions.

`pins.json` names versions that are never removed. `withdrawn.json` is the blocklist: models that were rolled back,
which the pipeline does not push again. Each file is replaced atomically. A damaged file is an error for whoever would
act on it: nothing is removed while the pins cannot be read.
"""

import os
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from components.publishing.lock import serving_lock
from components.storage.atomic import read_small, write_small
from data.errors import WorkspaceError
from data.section import first_problem

PINS_FILE = "pins.json"
BLOCKLIST_FILE = "withdrawn.json"


class Pins(BaseModel):
    """The content of `pins.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: list[PositiveInt] = []


class BlockedModel(BaseModel):
    """A model that was rolled back."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_fingerprint: str
    """The fingerprint in the record of its version."""
    version: int
    """The version as which it was served."""
    withdrawn_at: datetime
    """When it was blocked."""
    reason: str = ""


class Blocklist(BaseModel):
    """The content of `withdrawn.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[BlockedModel] = []


_Content = TypeVar("_Content", Pins, Blocklist)


def _read(serving_dir: str, name: str, kind: type[_Content]) -> _Content:
    path = os.path.join(serving_dir, name)
    content = read_small(path)
    if content is None:
        return kind()
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise WorkspaceError(
            f"{path}: damaged: {first_problem(error)}. Restore or remove the file; nothing is pushed or removed until "
            "then"
        ) from None


def _write(serving_dir: str, name: str, content: Pins | Blocklist) -> None:
    write_small(os.path.join(serving_dir, name), content.model_dump_json(indent=2).encode())


def pinned(serving_dir: str) -> frozenset[int]:
    """Versions that are never removed.

    Raises:
        WorkspaceError: The file is damaged.
    """
    return frozenset(_read(serving_dir, PINS_FILE, Pins).versions)


def pin(serving_dir: str, version: int) -> None:
    """Marks a version as one that is never removed."""
    with serving_lock(serving_dir):
        _write(serving_dir, PINS_FILE, Pins(versions=sorted(pinned(serving_dir) | {version})))


def unpin(serving_dir: str, version: int) -> bool:
    """Removes the mark of a version that is never removed; whether it was pinned."""
    with serving_lock(serving_dir):
        pins = pinned(serving_dir)
        if version not in pins:
            return False
        _write(serving_dir, PINS_FILE, Pins(versions=sorted(pins - {version})))
        return True


def blocked(serving_dir: str) -> dict[str, BlockedModel]:
    """Fingerprint of a model that was rolled back -> its entry in the blocklist.

    Raises:
        WorkspaceError: The file is damaged.
    """
    return {entry.model_fingerprint: entry for entry in _read(serving_dir, BLOCKLIST_FILE, Blocklist).models}


def block(serving_dir: str, model_fingerprint: str, version: int, reason: str) -> None:
    """Puts a model on the blocklist, so that the pipeline does not push it again; replaces an earlier entry of it."""
    entry = BlockedModel(
        model_fingerprint=model_fingerprint, version=version, withdrawn_at=datetime.now(UTC), reason=reason
    )
    with serving_lock(serving_dir):
        entries = {**blocked(serving_dir), model_fingerprint: entry}
        _write(serving_dir, BLOCKLIST_FILE, Blocklist(models=list(entries.values())))


def unblock(serving_dir: str, model_fingerprint: str) -> bool:
    """Takes a model off the blocklist, so that it may be pushed again; whether it was on it."""
    with serving_lock(serving_dir):
        entries = blocked(serving_dir)
        if model_fingerprint not in entries:
            return False
        del entries[model_fingerprint]
        _write(serving_dir, BLOCKLIST_FILE, Blocklist(models=list(entries.values())))
        return True
