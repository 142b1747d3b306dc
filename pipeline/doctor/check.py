"""The result of one of the doctor's checks."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of the doctor."""

    name: str
    status: Status
    detail: str
    """What was found, with the value."""
    remedy: str = ""
    """What to do about it; empty if the check passed."""
