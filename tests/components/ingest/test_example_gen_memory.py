"""ExampleGen's pipeline graph and memory do not grow with the dataset."""

import os
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from PIL import Image

from components.ingest.example_gen import LabelledImages
from data.layouts.base import SPLITS
from tests.components.conftest import resolved

ROOT = Path(__file__).parents[3]

#: Runs ExampleGen and prints by how many MB the process grew at the peak.
SCRIPT = """
import sys
from pathlib import Path
from data.errors import DataError
from tests.components.conftest import generate, resolved

def megabytes(key):
    return int(Path("/proc/self/status").read_text().partition(key + ":")[2].split()[0]) / 1024

config = resolved(sys.argv[1], max_bad_fraction=1.0)
Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here on: importing has a higher one (proc(5)).
before = megabytes("VmRSS")
try:
    generate(config, Path(sys.argv[2]))
except DataError as error:
    print(str(error).splitlines()[0])
print(megabytes("VmHWM") - before)
"""


def grown(root: Path, out: Path) -> tuple[float, str]:
    """The growth in MB, and the error if there was one."""
    command = [sys.executable, "-c", SCRIPT, str(root), str(out)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT, check=True)
    *error, growth = result.stdout.splitlines()
    return float(growth), "".join(error)


def voc(root: Path, train: int) -> Path:
    """An empty dataset of the VOC layout, in whose lists stand images that are not there."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    write_list(root, "train", train)
    return root


def name_of(split: str, number: int) -> str:
    """A name as PASCAL VOC has them, by which masks without its palette are known to be VOC's."""
    return f"{2007 + SPLITS.index(split)}_{number:06}"


def write_list(root: Path, split: str, count: int) -> None:
    lines = "".join(f"{name_of(split, number)}\n" for number in range(count))
    (root / "ImageSets/Segmentation" / f"{split}.txt").write_text(lines)


def test_the_graph_is_the_same_for_ten_and_for_200_000_entries(tmp_path: Path):
    root = voc(tmp_path / "data", 10)

    def size() -> int:
        pipeline = beam.Pipeline()
        _ = pipeline | LabelledImages(resolved(root))
        return pipeline.to_runner_api().ByteSize()

    few = size()
    write_list(root, "train", 200_000)

    assert size() == pytest.approx(few, abs=100)  # Beam numbers the stages of one process through.
    assert few < 100_000


@pytest.mark.long
def test_200_000_entries_need_little_memory(tmp_path: Path):
    growth, error = grown(voc(tmp_path / "data", 200_000), tmp_path)

    assert "no valid pair of image and mask (200000 bad)" in error
    # Measured: 207 MB, about 1 KB an entry: Beam's local runner shuffles the paths in memory.
    assert growth < 350


def test_no_image_stays_in_memory(tmp_path: Path):
    count = 100
    root = voc(tmp_path / "data", count)
    for split in ("val", "test"):
        write_list(root, split, 1)
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    Image.fromarray(np.zeros((600, 600), np.uint8)).save(tmp_path / "mask.png")
    for split, images in (("train", count), ("val", 1), ("test", 1)):
        for number in range(images):
            os.link(tmp_path / "image.png", root / "JPEGImages" / f"{name_of(split, number)}.png")
            os.link(tmp_path / "mask.png", root / "SegmentationClass" / f"{name_of(split, number)}.png")

    growth, error = grown(root, tmp_path)

    assert not error
    # Measured: 34 MB, most of it for what is imported meanwhile. The bound is half of what the encoded images take.
    assert growth < count * 600 * 600 * 3 / 2**20 / 2
