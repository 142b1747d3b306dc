"""Slices: sets of test images whose scores are reported separately, named `column:value`.

===================================================  =================================================================
column                                               values
===================================================  =================================================================
`source`, `height`, `width`                          the values in the examples
`size`, `brightness`, `contrast`, `void_fraction`    buckets: "<256", "256-1024", ">=1024"
`has`                                                the classes that have a pixel in the mask
===================================================  =================================================================

Nothing of TFX is imported here, so that a command line can check a configuration quickly.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator

from data import features
from data.section import Section

SIZE = "size"
HAS = "has"

Scalar = str | int | float


def _ascending(edges: tuple[float, ...]) -> tuple[float, ...]:
    if any(lower >= upper for lower, upper in pairwise(edges)):
        raise ValueError("the edges must ascend")
    return edges


Edges = Annotated[tuple[float, ...], AfterValidator(_ascending)]


class Buckets(Section):
    """The edges that divide the values of a column into buckets; an edge belongs to the bucket above it."""

    size: Edges = (256, 1024)
    """Square root of the image's area, in pixels."""
    brightness: Edges = (0.25, 0.5)
    """Mean luma, in [0, 1]."""
    contrast: Edges = (0.1, 0.2)
    """Standard deviation of luma, in [0, 0.5]."""
    void_fraction: Edges = (0.1, 0.5)
    """Fraction of ignored (void) pixels, in [0, 1]."""


BUCKETED = tuple(Buckets.model_fields)
COLUMNS = (features.SOURCE, features.HEIGHT, features.WIDTH, *BUCKETED, HAS)


def split_slice(name: str) -> tuple[str, str | None]:
    """Column and value of a slice's name; the value is None if the name is that of a column.

    Raises:
        ValueError: There is no such column.
    """
    column, colon, value = name.partition(":")
    if column not in COLUMNS:
        raise ValueError(f"{name!r}: images cannot be sliced by {column!r}; allowed: {', '.join(COLUMNS)}")
    return column, value if colon else None


def bucket_names(edges: Sequence[float]) -> list[str]:
    """The names of the buckets between edges, lowest first; a single one, "all", if there is no edge."""
    if not edges:
        return ["all"]
    return [f"<{edges[0]:g}", *(f"{lower:g}-{upper:g}" for lower, upper in pairwise(edges)), f">={edges[-1]:g}"]


def check_value(name: str, buckets: Buckets) -> None:
    """Checks the value in a slice's name against the buckets of its column; other columns may have any value.

    Raises:
        ValueError: The column has no such bucket.
    """
    column, value = split_slice(name)
    if value and column in BUCKETED:
        known = bucket_names(getattr(buckets, column))
        if value not in known:
            raise ValueError(f"{name!r}: no such bucket; allowed: {', '.join(f'{column}:{each}' for each in known)}")


def wanted_values(names: Sequence[str]) -> dict[str, frozenset[str] | None]:
    """Column -> the values that are wanted, None for all of them; `names` are columns and slices."""
    wanted: dict[str, frozenset[str] | None] = {}
    for name in names:
        column, value = split_slice(name)
        known = wanted.get(column, frozenset())
        wanted[column] = None if value is None or known is None else known | {value}
    return wanted


def slice_values(
    image: Mapping[str, Scalar], wanted: Mapping[str, frozenset[str] | None], buckets: Buckets
) -> dict[str, list[str]]:
    """The slices that an image is in: column -> values.

    Args:
        image: The scalar columns of its example (`data.features`).
        wanted: What `wanted_values` gives.
        buckets: The buckets of the columns of numbers.
    """
    found = {column: _values(image, column, buckets) for column in wanted}
    return {
        column: [value for value in values if (allowed := wanted[column]) is None or value in allowed]
        for column, values in found.items()
    }


def _values(image: Mapping[str, Scalar], column: str, buckets: Buckets) -> list[str]:
    if column == HAS:
        prefix = features.pixels_key("")
        return [name.removeprefix(prefix) for name, count in image.items() if name.startswith(prefix) and count]
    if column not in BUCKETED:
        return [str(image[column])]
    area = float(image[features.HEIGHT]) * float(image[features.WIDTH])
    value = math.sqrt(area) if column == SIZE else float(image[column])
    edges = getattr(buckets, column)
    return [bucket_names(edges)[bisect_right(edges, value)]]
