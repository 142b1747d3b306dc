"""What became of many pictures, in a few numbers."""

import heapq
from collections.abc import Iterable
from itertools import chain
from typing import Self

from pydantic import BaseModel, ConfigDict

from data.errors import DataError
from pipeline.prediction.journal import Prediction

#: More pictures than these are counted, not listed.
MOST_LISTED = 50


class Tally(BaseModel):
    """Counts of pictures, and some that failed."""

    model_config = ConfigDict(frozen=True)

    done: int = 0
    """Pictures whose outputs were written."""
    before: int = 0
    """Pictures whose outputs an earlier process wrote."""
    failed: int = 0
    """Pictures without outputs."""
    failures: tuple[str, ...] = ()
    """Which ones, and why: the first in alphabetical order, at most `MOST_LISTED`."""

    @classmethod
    def of(cls, prediction: Prediction, new: bool) -> Self:
        """One picture."""
        if prediction.error:
            return cls(failed=1, failures=(f"{prediction.picture}: {prediction.error}",))
        return cls(done=int(new), before=int(not new))

    def require_readable(self) -> None:
        """Raises DataError if pictures failed; names the first ones."""
        if self.failed:
            more = self.failed - len(self.failures)
            raise DataError("\n".join(self.failures) + (f"\nand {more} more" if more else ""))


def add_up(tallies: Iterable[Tally]) -> Tally:
    """The tally of all pictures of the given tallies."""
    tallies = list(tallies)
    return Tally(
        done=sum(tally.done for tally in tallies),
        before=sum(tally.before for tally in tallies),
        failed=sum(tally.failed for tally in tallies),
        failures=tuple(heapq.nsmallest(MOST_LISTED, chain.from_iterable(tally.failures for tally in tallies))),
    )
