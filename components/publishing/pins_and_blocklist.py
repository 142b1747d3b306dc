"""What an operator says of versions, in two small files beside them.

`pins.json` names versions that are never removed, `withdrawn.json` models that were rolled back and are not pushed
again by themselves. Each file is replaced as a whole. A damaged one stops whoever would act on it: who cannot read
what is pinned removes nothing.
"""

import os
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from components.publishing.lock import changing
from components.storage.atomic import read_small, write_small
from data.errors import WorkspaceError
from data.section import first_problem

PINS_FILE = "pins.json"
WITHDRAWN_FILE = "withdrawn.json"


class Pins(BaseModel):
    """The content of `pins.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: list[PositiveInt] = []


class Withdrawal(BaseModel):
    """A model that was rolled back."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_fingerprint: str
    """As in the record of its version."""
    version: int
    """Under which it was served."""
    withdrawn_at: datetime
    reason: str = ""


class Withdrawn(BaseModel):
    """The content of `withdrawn.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[Withdrawal] = []


_Marks = TypeVar("_Marks", Pins, Withdrawn)


def _read(serving_dir: str, name: str, kind: type[_Marks]) -> _Marks:
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


def _write(serving_dir: str, name: str, marks: Pins | Withdrawn) -> None:
    write_small(os.path.join(serving_dir, name), marks.model_dump_json(indent=2).encode())


def pinned(serving_dir: str) -> frozenset[int]:
    """Versions that are never removed.

    Raises:
        WorkspaceError: The file is damaged.
    """
    return frozenset(_read(serving_dir, PINS_FILE, Pins).versions)


def pin(serving_dir: str, version: int) -> None:
    """Keeps a version from being removed."""
    with changing(serving_dir):
        _write(serving_dir, PINS_FILE, Pins(versions=sorted(pinned(serving_dir) | {version})))


def unpin(serving_dir: str, version: int) -> bool:
    """Lets a version be removed again when its time has come; whether it had been pinned."""
    with changing(serving_dir):
        pins = pinned(serving_dir)
        if version not in pins:
            return False
        _write(serving_dir, PINS_FILE, Pins(versions=sorted(pins - {version})))
        return True


def withdrawn(serving_dir: str) -> dict[str, Withdrawal]:
    """Fingerprint -> how the model was withdrawn.

    Raises:
        WorkspaceError: The file is damaged.
    """
    return {entry.model_fingerprint: entry for entry in _read(serving_dir, WITHDRAWN_FILE, Withdrawn).models}


def withdraw(serving_dir: str, model_fingerprint: str, version: int, reason: str) -> None:
    """Keeps a model from being pushed again by itself; of one that is withdrawn already, the last word counts."""
    entry = Withdrawal(
        model_fingerprint=model_fingerprint, version=version, withdrawn_at=datetime.now(UTC), reason=reason
    )
    with changing(serving_dir):
        entries = {**withdrawn(serving_dir), model_fingerprint: entry}
        _write(serving_dir, WITHDRAWN_FILE, Withdrawn(models=list(entries.values())))


def readmit(serving_dir: str, model_fingerprint: str) -> bool:
    """Lets a model be pushed again; whether it had been withdrawn."""
    with changing(serving_dir):
        entries = withdrawn(serving_dir)
        if model_fingerprint not in entries:
            return False
        del entries[model_fingerprint]
        _write(serving_dir, WITHDRAWN_FILE, Withdrawn(models=list(entries.values())))
        return True
