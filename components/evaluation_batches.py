"""How many images the model gets at once when it is judged."""

from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa

from data.features import HEIGHT, WIDTH

#: Pixels of an image above which it is a batch of its own: the signature `evaluate` has several images of a batch under
#: way, and memory would be short sooner than the time would be long.
LARGE = 4_000_000


def large_apart(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cuts a batch of examples so that each image of more than `LARGE` pixels stands alone; keeps the order."""
    height, width = (batch.column(name).flatten().to_numpy() for name in (HEIGHT, WIDTH))
    around = (edge for row in (height * width > LARGE).nonzero()[0] for edge in (row, row + 1))
    for start, end in pairwise(sorted({0, *around, batch.num_rows})):
        yield batch.slice(start, end - start)
