"""Texts shared by several report pages."""

from dataclasses import dataclass
from typing import Literal

from pipeline.records.summary import Summary


@dataclass(frozen=True)
class Verdict:
    """The headline of a run."""

    tone: Literal["good", "warn", "bad", "open"]
    text: str


def verdict(summary: Summary | None) -> Verdict:
    """The headline of a run; a summary of None stands for a run without a record."""
    if summary is None:
        return Verdict("open", "No record: killed, or still running")
    if summary.status == "failed":
        return Verdict("bad", "The run failed")
    if summary.blessed is None:
        return Verdict("open", "The run ended before a judgement")
    if not summary.blessed:
        return Verdict("warn", "Not blessed")
    if summary.pushed_version is None:
        return Verdict("good", "Blessed; nothing was pushed")
    return Verdict("good", f"Blessed, and pushed as version {summary.pushed_version}")


def seconds_text(seconds: float) -> str:
    """Formats a duration: "0.13 s", "8.5 s", "4 min 44 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
