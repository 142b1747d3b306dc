"""The runbook's recipe for an image that must go leaves none of its bytes in the workspace."""

import gzip
from collections.abc import Collection
from pathlib import Path

import pytest

from data.synthetic import write_dataset
from tests.pipeline.conftest import in_process, overrides, run_arguments

SETTINGS = {"evaluation.max_drop": "1"}
RECIPE = {**SETTINGS, "training.warm_start": "false", "push.keep": "1", "retention.keep_runs": "1"}
GZIP = b"\x1f\x8b"


def holders(workspace: Path, images: Collection[bytes]) -> list[Path]:
    """Files below a folder, packed or not, that hold one of the images."""
    found = []
    for path in workspace.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            content = gzip.decompress(content) if content.startswith(GZIP) else content
            found += [path] if any(image in content for image in images) else []
    return found


def remove(data: Path, name: str) -> bytes:
    """Deletes an image with its mask from the dataset; the image."""
    image = data / "JPEGImages" / f"{name}.jpg"
    content = image.read_bytes()
    image.unlink()
    (data / "SegmentationClass" / f"{name}.png").unlink()
    for listing in (data / "ImageSets/Segmentation").glob("*.txt"):
        listing.write_text("".join(f"{line}\n" for line in listing.read_text().split() if line != name))
    return content


def first(data: Path, split: str) -> str:
    return (data / f"ImageSets/Segmentation/{split}.txt").read_text().split()[0]


@pytest.mark.long
def test_nothing_is_left_of_an_image_after_the_recipe(tmp_path: Path):
    data = write_dataset(tmp_path / "data", num_train=8, num_val=3, num_test=4)
    workspace = tmp_path / "workspace"
    before = in_process(*run_arguments(workspace, overrides(data, **SETTINGS)))
    assert before.returncode == 0, before.stderr
    images = [remove(data, first(data, split)) for split in ("train", "test")]
    stages = {path.relative_to(workspace).parts[0] for path in holders(workspace, images)}
    assert stages == {"artifacts", "serving"}

    after = in_process(*run_arguments(workspace, overrides(data, **RECIPE)))

    assert after.returncode == 0, after.stderr
    assert [path.name for path in (workspace / "serving/tiny").iterdir() if path.name.isdecimal()] == ["2"]
    assert holders(workspace, images) == []
    for number, image in enumerate(images):
        copy = tmp_path / f"copy-{number}.jpg"
        copy.write_bytes(image)
        answer = in_process("lineage", "--data", str(copy), "--workspace", str(workspace)).stdout
        assert "no pushed version that is still there came from it" in answer
        assert "not known for versions that are removed: tiny/1\n" in answer
