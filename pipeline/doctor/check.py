"""What the doctor says of one thing."""

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
    """What to do about it; empty where all is well."""
