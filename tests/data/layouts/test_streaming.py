"""A dataset of any size is listed in bounded memory."""

import io
import tracemalloc
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from data.layouts import open_layout

ENTRIES = 20_000
#: One list of all entries' names would take several times as much.
MOST_BYTES = 400_000

LIST = b"".join(b"%07d\n" % i for i in range(ENTRIES))


class EndlessFiles:
    """A file system on which everything exists and every folder is large."""

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(LIST)

    def exists(self, path: str) -> bool:
        # CamVid without its list, and no split in images/.
        return not path.endswith(("train.txt", "images/train")) or "ImageSets" in path

    def list(self, folder: str) -> Iterator[str]:
        return (f"{i:07}.png" for i in range(ENTRIES))

    def stats(self, folder: str) -> Iterator[tuple[str, int, float]]:
        return ((name, 1, 0.0) for name in self.list(folder))

    def join(self, base: str, *parts: str) -> str:
        return "/".join((base, *parts))


@pytest.mark.parametrize(
    ("name", "split"), [("voc", "train"), ("voc", None), ("camvid", "train"), ("folder", None), ("ade20k", None)]
)
def test_samples_are_streamed(name, split):
    patterns = ("images/{stem}.png", "masks/{stem}.png") if name == "folder" else (None, None)
    layout = open_layout(name, "mem://set", EndlessFiles(), None, *patterns)
    tracemalloc.start()
    count = sum(1 for _ in layout.samples(split))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == ENTRIES
    assert peak < MOST_BYTES
