"""The sample dataset: the same every time, valid on disk, and hard enough to tell a broken pipeline."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import SGDClassifier

from data.errors import DataError
from data.features import IGNORE_LABEL
from data.synthetic import CLASSES, SOURCES, render, source_of, write_dataset

TRAIN, TEST = range(40), range(280, 300)
NUM_CLASSES = len(CLASSES)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("sample") / "scenes", num_train=7, num_val=2, num_test=3)


def digest(folder: Path) -> str:
    """Of the names, the contents and the times of last change of all files."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder)} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return total.hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mean_iou(truth: list[np.ndarray], predicted: list[np.ndarray]) -> float:
    """Over all pixels whose truth is not void."""
    labels, guesses = np.concatenate([t.ravel() for t in truth]), np.concatenate([p.ravel() for p in predicted])
    labels, guesses = labels[labels != IGNORE_LABEL].astype(int), guesses[labels != IGNORE_LABEL]
    matrix = np.bincount(labels * 256 + guesses, minlength=256 * 256).reshape(256, 256)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return float((matrix.diagonal()[:NUM_CLASSES] / union[:NUM_CLASSES]).mean())


# Scenes


def test_a_scene_does_not_depend_on_those_drawn_before() -> None:
    alone = render(5)
    for index in (9, 2):
        render(index)
    again = render(5)
    assert np.array_equal(alone[0], again[0]) and np.array_equal(alone[1], again[1])


def test_index_and_seed_each_change_the_scene() -> None:
    digests = {hashlib.sha256(render(index, seed)[0].tobytes()).hexdigest() for index in range(6) for seed in range(3)}
    assert len(digests) == 18


def test_scenes_are_uint8_of_varied_size_with_known_labels() -> None:
    scenes = [render(index) for index in TRAIN]
    for image, mask in scenes:
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (*mask.shape, 3)
        assert all(96 <= side <= 176 for side in mask.shape)
        assert set(np.unique(mask)) <= {*range(NUM_CLASSES), IGNORE_LABEL}
    shapes = [mask.shape for _, mask in scenes]
    assert len(set(shapes)) > 30
    assert {height > width for height, width in shapes} == {True, False}


def test_every_class_is_in_a_good_part_of_the_scenes() -> None:
    masks = [render(index)[1] for index in TRAIN]
    for class_id in range(NUM_CLASSES):
        assert np.mean([np.mean(mask == class_id) > 0.02 for mask in masks]) > 0.3, CLASSES[class_id]


def test_different_classes_touch_only_through_void() -> None:
    for index in TRAIN:
        mask = render(index)[1]
        for one, other in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert np.all((one == other) | (one == IGNORE_LABEL) | (other == IGNORE_LABEL))


def test_void_is_a_thin_border() -> None:
    void = np.mean([np.mean(render(index)[1] == IGNORE_LABEL) for index in TRAIN])
    assert 0.05 < void < 0.2


def test_classes_share_their_colours() -> None:
    pixels: dict[int, list[np.ndarray]] = {class_id: [] for class_id in range(NUM_CLASSES)}
    for index in TRAIN:
        image, mask = render(index)
        for class_id, parts in pixels.items():
            parts.append(image[mask == class_id])
    means = [np.concatenate(parts).mean(0) for parts in pixels.values()]
    spreads = [np.concatenate(parts).std(0) for parts in pixels.values()]
    assert np.ptp(means[1:], axis=0).max() < np.min(spreads[1:])


# The bar: what a broken pipeline scores


def test_a_constant_prediction_scores_low() -> None:
    truth = [render(index)[1] for index in TEST]
    assert mean_iou(truth, [np.zeros_like(mask) for mask in truth]) < 0.2


def test_a_linear_classifier_of_pixels_scores_low() -> None:
    def features(image: np.ndarray) -> np.ndarray:
        rgb = image.reshape(-1, 3) / 127.5 - 1
        return np.concatenate([rgb, rgb**2, rgb * np.roll(rgb, 1, axis=1)], axis=1)

    train = [render(index) for index in TRAIN]
    inputs = np.concatenate([features(image) for image, _ in train])
    labels = np.concatenate([mask.ravel() for _, mask in train])
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(labels != IGNORE_LABEL))[:40_000]
    classifier = SGDClassifier(loss="log_loss", class_weight="balanced", random_state=0)
    classifier.fit(inputs[chosen], labels[chosen])
    test = [render(index) for index in TEST]
    predicted = [classifier.predict(features(image)).reshape(mask.shape) for image, mask in test]
    assert mean_iou([mask for _, mask in test], predicted) < 0.4


def test_the_score_falls_when_two_labels_are_swapped() -> None:
    truth = [render(index)[1] for index in TEST]
    swap = np.arange(256)
    swap[[2, 3]] = 3, 2
    assert mean_iou(truth, truth) == 1
    assert mean_iou(truth, [swap[mask] for mask in truth]) < 0.7


@pytest.mark.parametrize("axis", [0, 1])
def test_the_score_falls_when_masks_are_out_of_place(axis: int) -> None:
    truth = [render(index)[1] for index in TEST]
    assert mean_iou(truth, [np.roll(mask, 6, axis) for mask in truth]) < 0.85


# The dataset on disk


def test_the_folder_is_a_voc_layout(dataset: Path) -> None:
    assert (dataset / "labels.txt").read_text().split() == list(CLASSES)
    folder = dataset / "ImageSets" / "Segmentation"
    lists = [(folder / f"{split}.txt").read_text().split() for split in ("train", "val", "test")]
    assert [len(names) for names in lists] == [7, 2, 3]
    names = [name for listed in lists for name in listed]
    assert len(set(names)) == 12
    assert sorted(names) == sorted(path.stem for path in (dataset / "JPEGImages").glob("*.jpg"))
    assert sorted(names) == sorted(path.stem for path in (dataset / "SegmentationClass").glob("*.png"))
    assert {name.split("_")[0] for name in names} == set(SOURCES)


def test_masks_are_indexed_pngs_that_hold_the_class_ids(dataset: Path) -> None:
    for index in range(12):
        name = f"{source_of(index)}_{index:05d}"
        with (
            Image.open(dataset / f"SegmentationClass/{name}.png") as mask,
            Image.open(dataset / f"JPEGImages/{name}.jpg") as image,
        ):
            assert (mask.mode, mask.format, image.mode, image.format) == ("P", "PNG", "RGB", "JPEG")
            assert mask.size == image.size
            pixels, labels = render(index)
            assert np.array_equal(np.asarray(mask), labels)
            assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 12


def test_the_same_bytes_are_written_every_time(dataset: Path, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "again", num_train=7, num_val=2, num_test=3)
    assert contents(again) == contents(dataset)


def test_another_seed_gives_other_images(dataset: Path, tmp_path: Path) -> None:
    other = contents(write_dataset(tmp_path / "other", num_train=7, num_val=2, num_test=3, seed=1))
    same = {name for name, content in contents(dataset).items() if other[name] == content}
    assert not any(name.endswith((".jpg", ".png")) for name in same)


def test_a_second_call_touches_nothing(dataset: Path) -> None:
    before = digest(dataset)
    calls: list[int] = []
    write_dataset(dataset, num_train=7, num_val=2, num_test=3, progress=lambda done, total: calls.append(done))
    assert digest(dataset) == before and not calls


def test_progress_counts_up_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "few", num_train=2, num_val=1, num_test=1, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_dataset(tmp_path / "empty", num_train=1, num_val=1, num_test=1)
    assert (tmp_path / "empty" / "dataset.json").is_file()


def test_other_parameters_in_the_same_folder_are_refused(dataset: Path) -> None:
    before = digest(dataset)
    with pytest.raises(DataError, match=r"scenes holds the sample dataset with .*'train': 7.*not with .*'train': 8"):
        write_dataset(dataset, num_train=8, num_val=2, num_test=3)
    assert digest(dataset) == before


@pytest.mark.parametrize(("name", "content"), [("notes.txt", "mine"), ("dataset.json", "{not json")])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="is not the sample dataset"):
        write_dataset(tmp_path)
    assert contents(tmp_path) == {name: content.encode()}


def test_an_error_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "scenes", num_train=2, num_val=1, num_test=1, progress=fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_killed_writer_leaves_no_half_dataset_and_a_rerun_completes(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    code = f"from data.synthetic import write_dataset; write_dataset({str(root)!r}, num_train=5000)"
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".*/SegmentationClass/*.png")):
        assert time.monotonic() < deadline and writer.poll() is None
        time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not root.exists()
    write_dataset(root, num_train=7, num_val=2, num_test=3)
    assert contents(root) == contents(dataset)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [root]
    assert json.loads((root / "dataset.json").read_text())["train"] == 7
