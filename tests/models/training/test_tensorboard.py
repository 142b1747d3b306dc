"""What is written for TensorBoard, read the way TensorBoard reads it, and the image of a confusion matrix."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from data.features import IGNORE_LABEL
from data.masks import VOID_COLOR, palette
from models.config import LossConfig, ModelConfig, TrainingConfig
from models.training.tensorboard import (
    EMPTY,
    FULL,
    MOST_NUMBERED,
    NUMBERED,
    PLAIN,
    PROFILED_STEPS,
    WHITE,
    Profiler,
    TensorBoard,
    confusion_image,
    hparam_values,
)
from models.training.validation import Evaluation

EVALUATION = Evaluation(step=20, mean_iou=0.5, iou=(0.75, 0.25, None))


def board(folder: Path) -> TensorBoard:
    return TensorBoard(str(folder), ["road", "car", "sky"])


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """All scalars by tag and step."""
    events = read(folder)
    tensors = ((tag, event) for tag in events.Tags()["tensors"] for event in events.Tensors(tag))
    return {(tag, event.step): float(tf.make_ndarray(event.tensor_proto)) for tag, event in tensors}


def logged_image(folder: Path, tag: str) -> np.ndarray:
    """The only image under a tag, (height, width, 3)."""
    (event,) = read(folder).Tensors(tag)
    *_, encoded = tf.make_ndarray(event.tensor_proto)
    return tf.io.decode_png(encoded).numpy()


def test_scalars_are_written_with_their_steps(tmp_path: Path) -> None:
    log = board(tmp_path)
    log.write_step(10, {"loss": 1.5, "learning_rate": 0.125, "images_per_second": 20.0})
    log.write_evaluation(EVALUATION)
    log.write_result(30, 0.625)
    assert scalars(tmp_path) == {
        ("train/loss", 10): 1.5,
        ("train/learning_rate", 10): 0.125,
        ("train/images_per_second", 10): 20.0,
        ("val/mean_iou", 20): 0.5,
        ("val_iou/road", 20): 0.75,
        ("val_iou/car", 20): 0.25,
        ("result/mean_iou", 30): 0.625,
    }


def test_a_prediction_shows_image_label_and_prediction_side_by_side(tmp_path: Path) -> None:
    log = board(tmp_path)
    image = np.full((1, 2, 3), 9, np.uint8)
    log.write_prediction(5, 0, image, np.array([[1, IGNORE_LABEL]], np.uint8), np.array([[0, 1]], np.uint8))
    log.write_evaluation(EVALUATION)
    road, car = palette(2)
    # What is void in the label is shown as void in the prediction too.
    expected = [[(9, 9, 9), (9, 9, 9), car, VOID_COLOR, road, VOID_COLOR]]
    np.testing.assert_array_equal(logged_image(tmp_path, "val/0"), expected)


def test_the_confusion_matrix_is_written_as_a_logged_image(tmp_path: Path) -> None:
    matrix = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    board(tmp_path).write_confusion(20, matrix)
    np.testing.assert_array_equal(
        logged_image(tmp_path, "val/confusion"), confusion_image(matrix, ["road", "car", "sky"])
    )


def test_the_configuration_is_written_where_the_hparams_tab_reads_it(tmp_path: Path) -> None:
    sections = {"model": ModelConfig(width=0.5), "training": TrainingConfig(loss=LossConfig(dice=0.25))}
    board(tmp_path).write_hparams(sections)
    content = read(tmp_path).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert values["model.backbone"].string_value == "mobilenet_v2"
    assert values["model.width"].number_value == 0.5
    assert values["model.separable"].bool_value is True
    assert values["training.loss.dice"].number_value == 0.25
    assert "model.batch_norm_epsilon" not in values


def test_hyperparameters_are_flat_values() -> None:
    fields = {"a": {"b": 1, "c": None, "d": {"e": (1.0, 1.5)}}, "f": True, "g": "x"}
    assert hparam_values(fields) == {"a.b": 1, "a.d.e": "[1.0, 1.5]", "f": True, "g": "x"}


def steps(profiler: Profiler, numbers: range) -> None:
    for number in numbers:
        with profiler.step(number):
            tf.reduce_sum(tf.ones((8, 8)))


def profiles(folder: Path) -> list[Path]:
    """The recordings where the Profile tab looks for them."""
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def test_a_profile_records_some_steps_and_no_others(tmp_path: Path) -> None:
    with Profiler(str(tmp_path), first=2) as profiler:
        steps(profiler, range(1, 2))
        # Starting another recording is an error while one is under way.
        tf.profiler.experimental.start(str(tmp_path / "probe"))
        tf.profiler.experimental.stop(save=False)
        steps(profiler, range(2, 2 + PROFILED_STEPS))
        (recording,) = profiles(tmp_path)
        steps(profiler, range(2 + PROFILED_STEPS, 20))
    assert profiles(tmp_path) == [recording]
    content = recording.read_bytes()
    assert b"Sum" in content and b"train" in content


def test_a_profile_that_an_error_cuts_short_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError), Profiler(str(tmp_path), first=1) as profiler, profiler.step(1):
        raise ArithmeticError
    assert len(profiles(tmp_path)) == 1


def test_without_a_first_step_nothing_is_profiled(tmp_path: Path) -> None:
    with Profiler(str(tmp_path), first=0) as profiler:
        steps(profiler, range(1, 8))
    assert profiles(tmp_path) == []


MATRIX = np.array([[30, 10, 0], [0, 0, 0], [0, 0, 7]])
NAMES = ["road", "car", "sky"]


def cells(image: np.ndarray, count: int, cell: int) -> np.ndarray:
    """The matrix without names: (rows, columns, cell, cell, 3)."""
    grid = image[-count * cell :, -count * cell :]
    return grid.reshape(count, cell, count, cell, 3).swapaxes(1, 2)


def test_the_shade_is_the_share_of_the_row() -> None:
    corners = cells(confusion_image(MATRIX, NAMES), 3, NUMBERED)[:, :, 1, 1]
    expected = np.round(WHITE + (FULL - WHITE) * np.array([0.75, 0.25, 0.0])[:, None])
    np.testing.assert_array_equal(corners[0], expected)
    np.testing.assert_array_equal(corners[2], [WHITE, WHITE, FULL])


def test_a_class_without_a_labelled_pixel_is_gray() -> None:
    row = cells(confusion_image(MATRIX, NAMES), 3, NUMBERED)[1]
    np.testing.assert_array_equal(row, np.broadcast_to(EMPTY, row.shape))


def test_shares_have_numbers_and_zeros_have_none() -> None:
    has_text = (np.ptp(cells(confusion_image(MATRIX, NAMES), 3, NUMBERED), axis=(2, 3)) > 0).any(axis=-1)
    np.testing.assert_array_equal(has_text, [[True, True, False], [False] * 3, [False, False, True]])


def test_names_stand_at_their_row_and_above_their_column() -> None:
    image = confusion_image(MATRIX, ["", "car", ""])
    margin = len(image) - 3 * NUMBERED
    ink = image.min(axis=-1) < 128
    rows = ink[margin:, :margin].reshape(3, NUMBERED, -1).any(axis=(1, 2))
    columns = ink[:margin, margin:].reshape(-1, 3, NUMBERED).any(axis=(0, 2))
    assert rows.tolist() == columns.tolist() == [False, True, False]


def test_many_classes_get_small_cells_and_long_names_get_room() -> None:
    count = MOST_NUMBERED + 1
    names = [f"a rather long name of class {i}" for i in range(count)]
    image = confusion_image(np.eye(count, dtype=np.int64), names)
    assert image.shape == (len(image), len(image), 3)
    shades = cells(image, count, PLAIN)
    assert (np.ptp(shades, axis=(2, 3)) == 0).all()
    np.testing.assert_array_equal(shades[:, :, 0, 0].min(axis=-1) < 128, np.eye(count, dtype=bool))
    # The strip to the left of a name is white: nothing is cut off.
    assert (image[-count * PLAIN :, :3] == 255).all()
