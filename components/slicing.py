"""Slices: sets of test images whose scores are told apart, named `column:value`.

===================================================  =================================================================
column                                               values
===================================================  =================================================================
`source`, `height`, `width`                          as in the examples
`size`, `brightness`, `contrast`, `void_fraction`    buckets: "<256", "256-1024", ">=1024"
`has`                                                the classes of which the label has a pixel
===================================================  =================================================================

Imports nothing of TFX, so that a command line can check a configuration quickly.
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
    """Where the values of a column are cut into buckets; an edge belongs to the bucket above it."""

    size: Edges = (256, 1024)
    """Side in pixels of the square that has the image's area."""
    brightness: Edges = (0.25, 0.5)
    """Mean luma, in [0, 1]."""
    contrast: Edges = (0.1, 0.2)
    """Standard deviation of luma, in [0, 0.5]."""
    void_fraction: Edges = (0.1, 0.5)
    """Fraction of void pixels, in [0, 1]."""


BUCKETED = tuple(Buckets.model_fields)
COLUMNS = (features.SOURCE, features.HEIGHT, features.WIDTH, *BUCKETED, HAS)


def split_slice(name: str) -> tuple[str, str | None]:
    """Column and value of a slice's name; a column alone has no value.

    Raises:
        ValueError: there is no such column.
    """
    column, colon, value = name.partition(":")
    if column not in COLUMNS:
        raise ValueError(f"{name!r}: images cannot be told apart by {column!r}; allowed: {', '.join(COLUMNS)}")
    return column, value if colon else None


def bucket_names(edges: Sequence[float]) -> list[str]:
    """The buckets between edges, lowest first; one for everything where there is no edge."""
    if not edges:
        return ["all"]
    return [f"<{edges[0]:g}", *(f"{lower:g}-{upper:g}" for lower, upper in pairwise(edges)), f">={edges[-1]:g}"]


def check_value(name: str, buckets: Buckets) -> None:
    """Raises ValueError if a slice's name has a value that its column cannot have; `has` and `source` are not known."""
    column, value = split_slice(name)
    if value and column in BUCKETED:
        known = bucket_names(getattr(buckets, column))
        if value not in known:
            raise ValueError(f"{name!r}: no such bucket; allowed: {', '.join(f'{column}:{each}' for each in known)}")


def wanted_values(names: Sequence[str]) -> dict[str, frozenset[str] | None]:
    """Column -> the values that are asked for, None for all; `names` are columns and slices."""
    wanted: dict[str, frozenset[str] | None] = {}
    for name in names:
        column, value = split_slice(name)
        known = wanted.get(column, frozenset())
        wanted[column] = None if value is None or known is None else known | {value}
    return wanted


def slice_values(
    image: Mapping[str, Scalar], wanted: Mapping[str, frozenset[str] | None], buckets: Buckets
) -> dict[str, list[str]]:
    """What slices an image is in: column -> values.

    Args:
        image: the scalar columns of its example (`data.features`).
        wanted: as `wanted_values` gives it.
        buckets: of the columns with numbers.
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
