"""An image and its mask, read together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset import DataConfig
from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from data.layouts import open_layout
from data.layouts.base import Mask, MaskFile, Sample, Shapes
from data.pairs import check_sizes, mask_size, read_pair
from tests.data.test_images import exif

LABELS = LabelMap(classes=(ClassLabel(name="ground", values=(0,)), ClassLabel(name="thing", values=(1,))))
CONFIG = DataConfig(path="any")
UPRIGHT = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
STORED = np.ascontiguousarray(np.rot90(UPRIGHT))
IDS = np.arange(24).reshape(6, 4).astype(np.uint8) % 2


def pair(tmp_path: Path, mask: Mask | np.ndarray) -> Sample:
    Image.fromarray(STORED).save(tmp_path / "i.png", exif=exif(6))
    if isinstance(mask, np.ndarray):
        Image.fromarray(mask).save(tmp_path / "m.png")
        mask = MaskFile(str(tmp_path / "m.png"))
    return Sample("i.png", str(tmp_path / "i.png"), mask)


def test_an_image_is_turned_to_the_size_of_its_mask(tmp_path: Path, files) -> None:
    _, image, ids = read_pair(pair(tmp_path, IDS), LABELS, CONFIG, files)
    assert np.array_equal(image, UPRIGHT) and ids.tolist() == IDS.tolist()


def test_a_mask_of_the_stored_size_is_not_guessed_at(tmp_path: Path, files) -> None:
    with pytest.raises(DataError, match="^rotated by EXIF: the image has orientation 6, and its mask has the size of"):
        read_pair(pair(tmp_path, IDS.T.copy()), LABELS, CONFIG, files)


def test_an_annotation_states_the_size(tmp_path: Path, files) -> None:
    _, image, _ = read_pair(pair(tmp_path, Shapes((), "ground", (6, 4))), LABELS, CONFIG, files)
    assert np.array_equal(image, UPRIGHT)
    with pytest.raises(DataError, match="its mask states no size"):
        read_pair(pair(tmp_path, Shapes((), "ground")), LABELS, CONFIG, files)


def test_the_size_of_a_mask_by_its_header(tmp_path: Path, files) -> None:
    np.save(tmp_path / "m.npy", IDS)
    Image.fromarray(IDS).save(tmp_path / "m.gif")
    for name in ("m.npy", "m.gif"):
        assert mask_size(MaskFile(str(tmp_path / name)), files) == (6, 4)
    with pytest.raises(DataError, match="^mask missing: "):
        mask_size(MaskFile(str(tmp_path / "absent.png")), files)


def folder(root: Path, bad: int, good: int, side: int) -> None:
    for index in range(bad + good):
        for kind in ("images", "masks"):
            (root / kind).mkdir(exist_ok=True)
            size = (side, side) if kind == "masks" and index < bad else (8, 6)
            Image.new("L", size).save(root / kind / f"{index:03}.png")


def test_a_dataset_of_masks_of_other_sizes_is_refused_by_the_headers(tmp_path: Path, files) -> None:
    folder(tmp_path, 20, 10, side=7)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(path.read_bytes()[:-13])  # Its pixels are not needed.
    layout = open_layout("folder", str(tmp_path), files)
    with pytest.raises(DataError, match="20 of 30 masks compared have another size than their image") as caught:
        check_sizes(layout, CONFIG)
    assert "size mismatch: image 8x6, mask 7x7" in str(caught.value)


def test_a_few_masks_of_other_sizes_are_left_to_the_quarantine(tmp_path: Path, files) -> None:
    folder(tmp_path, 2, 28, side=7)  # 6.7 %, which a dataset with 5 % might show in a sample.
    check_sizes(open_layout("folder", str(tmp_path), files), CONFIG)


def test_scaled_masks_are_no_mismatch_where_they_are_resized(tmp_path: Path, files) -> None:
    folder(tmp_path, 0, 9, side=0)
    for path in (tmp_path / "masks").iterdir():
        Image.new("L", (4, 3)).save(path)
    layout = open_layout("folder", str(tmp_path), files)
    with pytest.raises(DataError, match="9 of 9 masks compared .*(\n.*)*data.resize_masks: nearest"):
        check_sizes(layout, CONFIG)
    check_sizes(layout, CONFIG.model_copy(update={"resize_masks": "nearest"}))
