"""What a person sees of a training."""

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console

from data.features import IGNORE_LABEL
from data.masks import VOID_COLOR, palette
from models.evaluation import Evaluation
from models.monitor import ProgressBar, TensorBoard

EVALUATION = Evaluation(step=20, mean_iou=0.5, iou=(0.75, 0.25, None))


def events(folder: Path) -> dict[tuple[str, int], tf.Tensor]:
    """Everything written for TensorBoard, by tag and step."""
    (file,) = folder.glob("events.*")
    records = (tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file)))
    return {(v.tag, event.step): tf.make_ndarray(v.tensor) for event in records for v in event.summary.value}


def test_scalars_are_written_with_their_steps(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), ["road", "car", "sky"])
    board.write_step(10, {"loss": 1.5, "learning_rate": 0.1})
    board.write_evaluation(EVALUATION)
    assert events(tmp_path) == {
        ("train/loss", 10): 1.5,
        ("train/learning_rate", 10): np.float32(0.1),
        ("val/mean_iou", 20): 0.5,
        ("val_iou/road", 20): 0.75,
        ("val_iou/car", 20): 0.25,
    }


def test_a_prediction_shows_image_label_and_prediction_side_by_side(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), ["road", "car"])
    image = np.full((1, 2, 3), 9, np.uint8)
    mask = np.array([[1, IGNORE_LABEL]], np.uint8)
    board.write_prediction(5, 0, image, mask, np.array([[0, 1]], np.uint8))
    board.write_evaluation(EVALUATION.model_copy(update={"iou": (None, None)}))
    *_, encoded = events(tmp_path)["val/0", 5]
    road, car = palette(2)
    # What is void in the label is shown as void in the prediction too.
    expected = [[(9, 9, 9), (9, 9, 9), car, VOID_COLOR, road, VOID_COLOR]]
    np.testing.assert_array_equal(tf.io.decode_png(encoded), expected)


def test_the_bar_tells_of_resumption_progress_and_evaluations() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with ProgressBar(console) as progress:
        progress.begin(15, 40)
        progress.update(20, 1.234, 56.78)
        progress.evaluated(EVALUATION, best=True)
    text = console.file.getvalue()
    for part in ("resuming after step 15 of 40", "20/40", "1.234", "56.8 img/s", "mean IoU 0.5000, the best so far"):
        assert part in text
