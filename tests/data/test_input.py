"""Records to batches: order, variation and resumption are functions of seed and step alone."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data.config import AugmentConfig, InputConfig
from data.errors import DataError
from data.input import evaluation_examples, training_batches

MEMORY = InputConfig()
DISK = InputConfig(cache_bytes=0, shuffle_buffer=3)
#: Crops that change nothing, to tell the images apart.
PLAIN = AugmentConfig(crop=8, scale_min=1, scale_max=1, flip=False)
VARIED = AugmentConfig(crop=16, contrast=0.3)

Batch = tuple[np.ndarray, np.ndarray]
InputContext = tf.distribute.InputContext


@pytest.fixture
def files(tmp_path: Path, write_records: Callable) -> list[str]:
    """Seven images in two files, one of them zipped; each pixel and each label is the number of the image."""
    pairs = [(np.full((8, 8, 3), 10 * n, np.uint8), np.full((8, 8), n, np.uint8)) for n in range(7)]
    folder = tmp_path / "Split-train"
    return [write_records(folder / "a.gz", pairs[:4]), write_records(folder / "b", pairs[4:])]


def batches(
    files: list[str], config: InputConfig, augmentation: AugmentConfig, count: int, **options: object
) -> list[Batch]:
    options = {"batch_size": 3, "seed": 1, **options}
    dataset = training_batches(files, config, augmentation, channel_mean=[100.0, 100.0, 100.0], **options)
    return list(islice(dataset.as_numpy_iterator(), count))


def numbers(found: list[Batch]) -> list[int]:
    """Which images the batches hold, in order."""
    return [int(mask[mask < 255][0]) for _, masks in found for mask in masks]


@pytest.mark.parametrize("config", [MEMORY, DISK], ids=["memory", "disk"])
def test_each_epoch_holds_each_image_once_in_an_order_of_its_own(files: list[str], config: InputConfig) -> None:
    found = numbers(batches(files, config, PLAIN, 7))
    epochs = [found[start : start + 7] for start in (0, 7, 14)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert len(set(map(tuple, epochs))) == 3
    assert numbers(batches(files, config, PLAIN, 7, seed=2)) != found


def test_pixels_and_labels_belong_together(files: list[str]) -> None:
    for images, masks in batches(files, MEMORY, PLAIN, 3):
        assert images.dtype == np.float32 and masks.dtype == np.uint8
        np.testing.assert_allclose(images, 10.0 * masks[..., None] * np.ones(3), atol=1e-3)


@pytest.mark.parametrize("config", [MEMORY, DISK], ids=["memory", "disk"])
@pytest.mark.parametrize("step", [1, 2, 5, 9])
def test_resuming_at_a_step_gives_the_same_bits(files: list[str], config: InputConfig, step: int) -> None:
    tf.random.set_seed(1)
    undisturbed = batches(files, config, VARIED, step + 2)[step:]
    tf.random.set_seed(2)
    resumed = batches(files, config, VARIED, 2, start_step=step)
    for (images, masks), (expected_images, expected_masks) in zip(resumed, undisturbed, strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(masks, expected_masks)


@pytest.mark.parametrize("config", [MEMORY, DISK], ids=["memory", "disk"])
def test_a_set_smaller_than_the_batch_fills_it(files: list[str], config: InputConfig) -> None:
    (images, masks), *_ = batches(files[1:], config, PLAIN, 2, batch_size=8)
    assert images.shape == (8, 8, 8, 3) and masks.shape == (8, 8, 8)
    assert set(numbers([(images, masks)])) == {4, 5, 6}


@pytest.mark.parametrize("config", [MEMORY, DISK], ids=["memory", "disk"])
@pytest.mark.parametrize(("workers", "replicas"), [(1, 3), (2, 2), (3, 6)])
def test_the_workers_slices_make_up_the_batch_of_one_process(
    files: list[str], config: InputConfig, workers: int, replicas: int
) -> None:
    whole = batches(files, config, VARIED, 3, batch_size=6, start_step=2)
    steps = 3 * replicas // workers
    slices = [
        batches(files, config, VARIED, steps, batch_size=6, start_step=2, context=InputContext(workers, w, replicas))
        for w in range(workers)
    ]
    share = 6 // replicas
    assert all(images.shape[0] == masks.shape[0] == share for found in slices for images, masks in found)
    for part in (0, 1):
        # Each step's batches, worker by worker.
        rows = [np.concatenate([batch[part] for batch in found]).reshape(3, 6 // workers, -1) for found in slices]
        expected = np.stack([batch[part].reshape(6, -1) for batch in whole])
        np.testing.assert_array_equal(np.concatenate(rows, axis=1), expected)


def test_batches_have_fixed_shapes_and_no_end(files: list[str]) -> None:
    dataset = training_batches(files, DISK, VARIED, batch_size=3, channel_mean=[100.0] * 3, seed=1)
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[3, 16, 16, 3], [3, 16, 16]]
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_few_large_images_in_memory_are_no_constants_of_the_graph(tmp_path: Path, write_records: Callable) -> None:
    pair = np.zeros((99, 99, 3), np.uint8), np.zeros((99, 99), np.uint8)
    files = [write_records(tmp_path / "a", [pair] * 2)]
    dataset = training_batches(files, MEMORY, PLAIN, batch_size=2, channel_mean=[100.0] * 3, seed=1)
    stages, sizes = [dataset], []
    while stages:
        stage = stages.pop()
        stages += stage._inputs()
        operations = [op for function in stage._functions() for op in function.function.graph.get_operations()]
        sizes += [op.get_attr("value").ByteSize() for op in operations if op.type == "Const"]
    assert 0 < max(sizes) < 1000


def test_an_image_varies_from_epoch_to_epoch(files: list[str]) -> None:
    found = batches(files[1:], MEMORY, VARIED, 4)
    crops = np.concatenate([images for images, _ in found])[np.array(numbers(found)) == 5]
    assert len(crops) == 4
    assert any(not np.array_equal(crops[0], other) for other in crops[1:])


def test_evaluation_keeps_order_and_sizes(tmp_path: Path, write_records: Callable) -> None:
    sizes = [(5, 9), (12, 3), (8, 8)]
    pairs = [(np.full((*size, 3), n, np.uint8), np.full(size, n, np.uint8)) for n, size in enumerate(sizes)]
    found = list(evaluation_examples([write_records(tmp_path / "a", pairs)]).as_numpy_iterator())
    assert [mask.shape for _, mask in found] == sizes
    assert [int(mask[0, 0]) for _, mask in found] == [0, 1, 2]
    assert all(image.shape == (*mask.shape, 3) and image.dtype == mask.dtype == np.uint8 for image, mask in found)


def test_a_split_without_records_is_named(tmp_path: Path, write_records: Callable) -> None:
    empty = [write_records(tmp_path / "Split-val" / "a.gz", [])]
    for read in (lambda: evaluation_examples(empty), lambda: batches(empty, MEMORY, PLAIN, 1)):
        with pytest.raises(DataError, match=r"split 'val' is empty: no record in the 1 file\(s\) of .*Split-val"):
            read()


def test_no_files_is_an_error() -> None:
    with pytest.raises(DataError, match="no record files"):
        evaluation_examples([])
