"""How long `inspect` takes, beside reading the same files with Pillow alone.

Usage: python benchmarks/inspection.py [--images 1000] [--rounds 3]

The images are JPEGs of 1300x1000 with noise like a camera's, and RGB masks of five colours in PNG. Both contenders read
every image and every mask once in as many threads as there are cores; `inspect` also lists, hashes, counts and draws.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from data.dataset import DataConfig
from data.files import LocalFiles
from pipeline.inspection.dataset import inspect_dataset

HEIGHT, WIDTH = 1000, 1300
COLORS = np.array([(0, 0, 0), (200, 30, 60), (20, 160, 220), (90, 200, 40), (240, 220, 10)], np.uint8)


def write_pair(folder: Path, number: int) -> None:
    """An image of smooth colours with noise, and a mask of large patches."""
    random = np.random.default_rng(number)
    smooth = Image.fromarray(random.integers(0, 255, (10, 13, 3)).astype(np.uint8)).resize((WIDTH, HEIGHT))
    noisy = np.asarray(smooth).astype(np.int16) + random.integers(-12, 13, (HEIGHT, WIDTH, 1))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"images/{number:05}.jpg", quality=88)
    patches = Image.fromarray(random.integers(0, len(COLORS), (12, 16)).astype(np.uint8))
    labels = np.asarray(patches.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
    Image.fromarray(COLORS[labels]).save(folder / f"masks/{number:05}.png")


def with_pillow(folder: Path) -> None:
    """Decodes every file and nothing else."""

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, sorted(folder.rglob("*.*"))))


def with_inspect(folder: Path, images: int, page: Path) -> None:
    """Inspects the folder as the command does with `--limit IMAGES`."""
    found = inspect_dataset(DataConfig(path=str(folder)), LocalFiles(), limit=images, out=page)
    if found.looked_at != images or len(found.classes) != len(COLORS):
        raise SystemExit(f"inspect found {found.looked_at} of {images} images and {len(found.classes)} classes")


def main() -> None:
    """Prints the seconds of both, their ratio, and the largest memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "data"
        for side in ("images", "masks"):
            (folder / side).mkdir(parents=True)
        for number in track(range(arguments.images), "writing images"):
            write_pair(folder, number)
        contenders: dict[str, Callable[[], None]] = {
            "Pillow alone": lambda: with_pillow(folder),
            "inspect": lambda: with_inspect(folder, arguments.images, Path(root) / "page.html"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.rounds):
            for name, run in contenders.items():
                begin = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - begin)
    table = Table("", "seconds: median", "all rounds")
    for name, taken in seconds.items():
        table.add_row(name, f"{statistics.median(taken):.1f}", ", ".join(f"{one:.1f}" for one in taken))
    console = Console()
    console.print(table)
    ratios = [one / other for one, other in zip(seconds["inspect"], seconds["Pillow alone"], strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"inspect takes {statistics.median(ratios):.2f} times as long; largest memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
