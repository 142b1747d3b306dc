"""ExampleGen on datasets of a few files: what it writes, what it quarantines, and when it stops."""

import hashlib
import io
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from tfx.types.artifact import Artifact

from components.ingest.example_gen import ReadPairs
from components.ingest.quarantine import BAD as BAD_KIND
from components.ingest.quarantine import read_bad, read_counts
from data import features
from data.dataset import DataConfig, open_dataset
from data.errors import DataError
from data.files import LocalFiles
from data.labels import ClassLabel, LabelMap
from data.layouts.base import SPLITS, BadEntry, MaskFile, Sample
from data.layouts.folder import Folder
from data.manifest import read_manifest
from data.splits import plan_splits
from tests.components.conftest import columns, generate, read_split, resolved

LABELS = LabelMap(
    classes=tuple(ClassLabel(name=name, values=(value,)) for value, name in enumerate(("sky", "road", "car"))),
    ignore_values=(9,),
)
SIZE = (24, 40)  # height, width


def pixels(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def label_values(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 9], np.uint8), size)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def add(root: Path, split: str, name: str, image: bytes, mask: np.ndarray | None) -> None:
    """Puts a pair into a dataset of the folder layout."""
    for folder in ("images", "masks"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    (root / "images" / split / name).write_bytes(image)
    if mask is not None:
        Image.fromarray(mask).save(root / "masks" / split / f"{name.rpartition('.')[0]}.png")


def add_good(root: Path, split: str, count: int) -> None:
    """Puts good pairs into a dataset of the folder layout."""
    for number in range(count):
        add(root, split, f"good{number}.png", encoded(Image.fromarray(pixels(number))), label_values(number))


def folder_config(root: Path, **settings: object) -> DataConfig:
    return DataConfig(path=str(root), layout="folder", label_map=LABELS, **settings)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A dataset of the folder layout with 4 train, 1 val and 1 test images."""
    for split, count in zip(SPLITS, (4, 1, 1), strict=True):
        add_good(tmp_path / "data", split, count)
    return tmp_path / "data"


def exif_rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


RGB = Image.fromarray(pixels(0))
CLEAR = Image.fromarray(np.dstack([pixels(0), np.full(SIZE, 9, np.uint8)]))
DEEP = Image.fromarray(np.full(SIZE, 40_000, np.uint16))

#: file name -> (encoded image, mask or None, what its reason begins with)
BAD: dict[str, tuple[bytes, np.ndarray | None, str]] = {
    "truncated.jpg": (encoded(RGB, "JPEG")[:-200], label_values(0), "truncated image"),
    "text.jpg": (b"no image at all", label_values(0), "unreadable image"),
    "empty.png": (b"", label_values(0), "unreadable image"),
    "size.png": (encoded(RGB), label_values(0, (24, 41)), "size mismatch: image 40x24, mask 41x24"),
    "label.png": (encoded(RGB), np.full(SIZE, 3, np.uint8), "label outside the label map"),
    "alone.png": (encoded(RGB), None, "mask missing"),
    "deep.png": (encoded(DEEP), label_values(0), "unsupported image"),
    "rgba.png": (encoded(CLEAR), label_values(0), "unsupported image"),
    "rotated.jpg": (exif_rotated(RGB), label_values(0), "rotated by EXIF"),
    "large.png": (encoded(RGB.resize((50, 50))), label_values(0, (50, 50)), "image too large"),
    "line\nbreak.png": (encoded(RGB), label_values(0), "invalid path"),
}


#: Images of every kind that is good, whether TensorFlow can decode it or not.
GOOD = {
    "colour.jpg": encoded(RGB, "JPEG"),
    "colour.png": encoded(RGB),
    "gray.jpeg": encoded(RGB.convert("L"), "JPEG"),
    "gray_too.png": encoded(RGB.convert("L")),
    "palette.png": encoded(RGB.quantize(16)),
    "bilevel.png": encoded(RGB.convert("1")),
    "bitmap.bmp": encoded(RGB, "BMP"),
    "web.webp": encoded(RGB, "WEBP", lossless=True),
    "tagged.tif": encoded(RGB, "TIFF"),
    "opaque.png": encoded(RGB.convert("RGBA")),
    "turned.jpg": exif_rotated(RGB.rotate(90, expand=True)),
}
GOOD = {f"{number}_{name}": image for number, (name, image) in enumerate(GOOD.items())}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    """Examples and quarantine of a dataset with everything good and everything bad."""
    folder = tmp_path_factory.mktemp("mixed")
    root = folder / "data"
    add_good(root, "val", 1)
    add_good(root, "test", 1)
    for name, image in GOOD.items():
        add(root, "train", name, image, label_values(1))
    for name, (image, mask, _) in BAD.items():
        add(root, "train", name, image, mask)
    Image.fromarray(label_values(0)).save(root / "masks/train/orphan.png")
    (root / "images/train/notes.txt").write_text("a list is no data")
    (root / "images/train/.DS_Store").write_bytes(b"Bud1")
    (root / "images/train/drawing.svg").write_text("<svg/>")
    with open(os.fsencode(root) + b"/images/train/\xff.png", "wb") as file:
        file.write(encoded(RGB))
    return generate(folder_config(root, max_bad_fraction=1.0, max_pixels=40 * 40), folder)


def test_the_columns_equal_those_computed_independently(plain: Path, tmp_path: Path):
    examples, quarantine = generate(folder_config(plain), tmp_path)

    assert read_counts(quarantine.uri) == {"splits": {"train": 4, "val": 1, "test": 1}, "bad": {}}
    assert json.loads(examples.split_names) == list(SPLITS)
    found = {row[features.KEY].decode(): row for split in SPLITS for row in map(columns, read_split(examples, split))}
    assert set(found) == {str(path.relative_to(plain)) for path in (plain / "images").rglob("*.png")}
    for key, row in found.items():
        image = np.asarray(Image.open(plain / key), np.float64) / 255
        values = np.asarray(Image.open(plain / key.replace("images", "masks")))
        luma = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
        assert row[features.IMAGE] == (plain / key).read_bytes()
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(row[features.MASK]))), np.where(values == 9, 255, values)
        )
        assert (row[features.HEIGHT], row[features.WIDTH]) == SIZE
        assert row[features.BRIGHTNESS] == pytest.approx(luma.mean(), abs=1e-6)
        assert row[features.CONTRAST] == pytest.approx(luma.std(), abs=1e-6)
        assert row[features.VOID_FRACTION] == pytest.approx((values == 9).mean(), abs=1e-7)
        assert [row[f"pixels/{name}"] for name in LABELS.names] == [(values == v).sum() for v in range(3)]
        assert row[features.SOURCE] == b"all"


def test_the_manifest_names_every_image_in_the_examples_by_the_content_of_its_file(
    dataset: Path, examples: Artifact
) -> None:
    entries = list(read_manifest(examples.uri, LocalFiles()))
    listed = {(entry.split, entry.key) for entry in entries}
    held = {
        (split, columns(record)["key"].decode())
        for split in ("train", "val", "test")
        for record in read_split(examples, split)
    }
    assert listed == held
    assert len(entries) == 15
    for entry in entries:
        content = (dataset / entry.key).read_bytes()
        assert (entry.sha256, entry.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [entry.sha256 for entry in entries] == sorted(entry.sha256 for entry in entries)


def test_corrected_pixels_are_stated_in_the_log(plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = plain / "masks/train/good0.png"
    values = label_values(0)
    values[0, :12] = 4  # 2 from class 2, of 24 x 40 pixels in each of 6 masks.
    Image.fromarray(values).save(path)
    with caplog.at_level("WARNING", logger="absl"):
        examples, _ = generate(folder_config(plain, color_tolerance=2), tmp_path)
    assert (
        "1 masks were corrected: 1.2% of their pixels by data.color_tolerance, 0.0% by data.soft_edges" in caplog.text
    )
    rows = {row[features.KEY].decode(): row for row in map(columns, read_split(examples, "train"))}
    mask = np.asarray(Image.open(io.BytesIO(rows["images/train/good0.png"][features.MASK])))
    assert (mask[0, :12] == 2).all()


def test_masks_of_other_sizes_end_the_run_before_anything_is_read(plain: Path, tmp_path: Path):
    for path in plain.glob("masks/*/*.png"):
        Image.fromarray(label_values(0, (12, 20))).save(path)
    with pytest.raises(DataError, match="6 of 6 masks compared have another size than their image") as caught:
        generate(folder_config(plain), tmp_path / "refused")
    assert "data.resize_masks: nearest scales each mask to its image" in str(caught.value)
    _, quarantine = generate(folder_config(plain, resize_masks="nearest"), tmp_path / "scaled")
    assert read_counts(quarantine.uri)["splits"] == {"train": 4, "val": 1, "test": 1}


def test_every_kind_of_bad_pair_is_quarantined_with_its_reason(mixed: tuple[Artifact, Artifact]):
    expected = {f"images/train/{name}": reason for name, (_, _, reason) in BAD.items()} | {
        "masks/train/orphan.png": "image missing",
        "images/train/drawing.svg": "no image",
        "images/train/\\udcff.png": "invalid path",
    }
    found = {entry["path"]: entry["reason"] for entry in read_bad(mixed[1].uri)}
    assert set(found) == set(expected)
    assert {path: reason[: len(expected[path])] for path, reason in found.items()} == expected
    counts = read_counts(mixed[1].uri)
    assert counts["splits"] == {"train": len(GOOD), "val": 1, "test": 1}
    assert counts["bad"] == Counter(reason.partition(":")[0] for reason in expected.values())


def test_nothing_good_is_lost(mixed: tuple[Artifact, Artifact]):
    keys = [columns(serialized)[features.KEY].decode() for serialized in read_split(mixed[0], "train")]

    assert sorted(keys) == sorted(f"images/train/{name}" for name in GOOD)


def test_tensorflow_decodes_every_example_to_the_pixels_of_its_file(mixed: tuple[Artifact, Artifact]):
    for row in map(columns, read_split(mixed[0], "train")):
        name = Path(row[features.KEY].decode()).name
        truth = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(GOOD[name]))).convert("RGB"))
        decoded = tf.io.decode_image(row[features.IMAGE], channels=3).numpy()
        # Two JPEG decoders may round differently.
        np.testing.assert_allclose(decoded.astype(int), truth, atol=4 if ".jp" in name else 0, err_msg=name)
        keeps_bytes = name.endswith(("jpg", "jpeg", "colour.png", "gray_too.png")) and "turned" not in name
        assert (row[features.IMAGE] == GOOD[name]) == keeps_bytes, name


def read_entries(root: Path, entries: Iterable[Sample | BadEntry]) -> list[tuple[str, str, str]]:
    """What becomes of the entries of one group, in the order of the output: (split or `BAD_KIND`, key, reason)."""
    found = []
    for output in ReadPairs(folder_config(root), LABELS, plan_splits(SPLITS), "").process((0, entries)):
        if output.tag == BAD_KIND:
            found.append((BAD_KIND, output.value["path"], output.value["reason"]))
        else:
            found.append((output.tag, columns(output.value)[features.KEY].decode(), ""))
    return found


def listed(root: Path, key: str, split: str, mask: str) -> Sample:
    """An entry of a list, of images and masks that `add_good` made."""
    return Sample(key, str(root / "images" / key), MaskFile(str(root / "masks" / mask)), split)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_which_entry_of_an_image_counts_does_not_depend_on_their_order(order: tuple[int, ...], plain: Path):
    key = "train/good0.png"
    entries = [
        listed(plain, key, "train", "train/good0.png"),
        listed(plain, key, "test", "train/good2.png"),
        listed(plain, key, "val", "train/good0.png"),
        listed(plain, "train/good1.png", "train", "train/good1.png"),
    ]
    why = "test comes before val and val before train, so that no image of an evaluation is trained on"
    assert read_entries(plain, [entries[number] for number in order]) == [
        (BAD_KIND, key, f"listed twice: in split test, which counts, and in split val; {why}"),
        (BAD_KIND, key, f"listed twice: in split test, which counts, and in split train; {why}"),
        ("test", key, ""),
        ("train", "train/good1.png", ""),
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_of_two_masks_of_an_image_the_first_by_name_counts(order: tuple[int, ...], plain: Path):
    key = "train/good0.png"
    masks = ("train/good0.png", "train/good1.png", "train/good1.png")
    entries = [listed(plain, key, "train", mask) for mask in masks]
    reason = "listed twice: with different annotations in split train; the first in alphabetical order counts"
    assert read_entries(plain, [entries[number] for number in order]) == [
        (BAD_KIND, key, reason),
        (BAD_KIND, key, reason),
        ("train", key, ""),
    ]
    expected = np.asarray(Image.open(plain / "masks/train/good0.png"))
    (_, _, good) = ReadPairs(folder_config(plain), LABELS, plan_splits(SPLITS), "").process((0, entries))
    found = np.asarray(Image.open(io.BytesIO(columns(good.value)[features.MASK])))
    np.testing.assert_array_equal(found, np.where(expected == 9, 255, expected))


def test_the_same_line_twice_is_quarantined_once(plain: Path):
    entry = listed(plain, "train/good0.png", "train", "train/good0.png")
    assert read_entries(plain, [entry, entry]) == [
        (BAD_KIND, entry.key, "listed twice: alike in split train"),
        ("train", entry.key, ""),
    ]


def test_too_many_bad_files_stop_the_run_with_the_list(plain: Path, tmp_path: Path):
    for number in range(3):
        add(plain, "train", f"bad{number}.png", b"", label_values(0))

    with pytest.raises(DataError) as caught:
        generate(folder_config(plain, max_bad_fraction=0.33), tmp_path)

    first, *others = str(caught.value).splitlines()
    assert first == f"{plain}: 3 of 9 images are bad, more than data.max_bad_fraction=0.33 allows"
    assert sorted(line.partition(":")[0] for line in others) == [f"  images/train/bad{n}.png" for n in range(3)]


def test_a_dataset_without_training_images_is_refused_before_anything_is_read(plain: Path, tmp_path: Path):
    (plain / "images/train").rename(plain / "images/other")

    with pytest.raises(DataError, match="no training images: the dataset has the splits val, test"):
        generate(folder_config(plain), tmp_path)


def test_a_listing_that_breaks_off_stops_the_run_however_little_may_be_missing(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = Folder.samples

    def breaks_off(layout: Folder, split: str | None) -> Iterator[Sample | BadEntry]:
        yield from whole(layout, split)
        if split == "train":
            raise DataError("unreadable folder: images/train: I/O error")

    monkeypatch.setattr(Folder, "samples", breaks_off)

    with pytest.raises(DataError, match="split train: listing failed: unreadable folder: images/train: I/O error"):
        generate(folder_config(plain, max_bad_fraction=1.0), tmp_path)


def test_lost_annotations_stop_the_run_however_few_entries_they_are(tmp_path: Path):
    images = [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(40)]
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    annotations = [{"image_id": 99, "category_id": 1, "segmentation": square} for _ in range(40)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red"}]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/result.json").write_text(json.dumps(content))
    for i in range(40):
        (tmp_path / f"data/{i}.png").write_bytes(encoded(Image.fromarray(pixels(i))))

    with pytest.raises(DataError, match="annotations lost: 40 of 40, more than data.max_bad_fraction=0.05 allows"):
        generate(resolved(str(tmp_path / "data")), tmp_path / "out")


def test_splits_that_are_missing_are_carved_by_group(tmp_path: Path):
    for number in range(60):
        name = f"scene{number // 3}_{number % 3}.png"
        add(tmp_path / "data", "", name, encoded(Image.fromarray(pixels(number, (4, 4)))), label_values(0, (4, 4)))

    config = folder_config(tmp_path / "data", group_pattern="(scene[0-9]+)_", val_fraction=0.3, test_fraction=0.3)
    examples, _ = generate(config, tmp_path)

    splits_of = defaultdict(set)
    for split in SPLITS:
        for row in map(columns, read_split(examples, split)):
            splits_of[row[features.KEY].decode().partition("_")[0]].add(split)
    assert len(splits_of) == 20
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert set().union(*splits_of.values()) == set(SPLITS)


def test_neighbouring_frames_do_not_stay_neighbours(tmp_path: Path):
    for split, count in zip(SPLITS, (40, 1, 1), strict=True):
        for number in range(count):
            add(tmp_path / "data", split, f"{number:03}.png", encoded(RGB), label_values(0))

    examples, _ = generate(folder_config(tmp_path / "data"), tmp_path)

    keys = [columns(serialized)[features.KEY] for serialized in read_split(examples, "train")]
    assert len(keys) == 40
    neighbours = sum(abs(int(a[-7:-4]) - int(b[-7:-4])) == 1 for a, b in pairwise(keys))
    assert neighbours < 10  # of 39; 2 are expected of a random order


def test_camvid_is_listed_completely(test_data: Path):
    layout = open_dataset(resolved(test_data / "camvid"), LocalFiles())

    listed = {split: list(layout.samples(split)) for split in layout.splits()}

    assert {split: len(samples) for split, samples in listed.items()} == {"train": 367, "val": 101, "test": 233}
    assert not any(isinstance(entry, BadEntry) for samples in listed.values() for entry in samples)


def test_some_of_camvid_becomes_examples(test_data: Path, tmp_path: Path):
    root = tmp_path / "camvid"
    for split in SPLITS:
        lines = (test_data / "camvid" / f"{split}.txt").read_text().splitlines()[:3]
        for path in (column.rpartition("/CamVid/")[2] for line in lines for column in line.split()):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(test_data / "camvid" / path, root / path)
        (root / f"{split}.txt").write_text("\n".join(lines))

    examples, quarantine = generate(resolved(root), tmp_path)

    assert read_counts(quarantine.uri) == {"splits": dict.fromkeys(SPLITS, 3), "bad": {}}
    for row in map(columns, read_split(examples, "test")):
        key = row[features.KEY].decode()
        raw = np.asarray(Image.open(root / key.replace("test/", "testannot/")))
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(row[features.MASK]))), np.where(raw == 11, 255, raw)
        )
        assert row[features.SOURCE].decode() == Path(key).name.partition("_")[0]
        assert row["pixels/sky"] == (raw == 0).sum()
