"""Large images are batches of their own, and nothing is lost or moved."""

import pyarrow as pa
import pytest

from components import evaluation_batches
from components.evaluation_batches import large_apart
from data.features import HEIGHT, KEY, WIDTH


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([9], [[9]]),
        ([9, 8], [[9], [8]]),
        ([1, 2, 9, 3, 4], [[1, 2], [9], [3, 4]]),
        ([9, 1, 8, 2], [[9], [1], [8], [2]]),
        ([1, 5, 2], [[1, 5, 2]]),
        ([], []),
    ],
)
def test_a_batch_is_cut_around_each_large_image(
    heights: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_batches, "LARGE", 50)
    sides = [pa.array([[side] for side in column], pa.list_(pa.int64())) for column in (heights, [10] * len(heights))]
    keys = pa.array([[f"{height}".encode()] for height in heights], pa.list_(pa.binary()))
    whole = pa.RecordBatch.from_arrays([*sides, keys], [HEIGHT, WIDTH, KEY])
    found = [part.to_pydict() for part in large_apart(whole)]
    assert [[row[0] for row in part[HEIGHT]] for part in found] == expected
    assert [[int(row[0]) for row in part[KEY]] for part in found] == expected
