"""The training loop: it learns, stops, resumes, and hands over the best weights."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from data.config import AugmentConfig, InputConfig
from data.errors import TrainingError
from models.config import ModelConfig, TrainingConfig
from models.network.deeplab import build_model
from models.training import loop as training
from models.training.loop import TrainingData, TrainingResult, prepare, train
from models.training.strategies import Distribution
from models.training.validation import Evaluation

AUGMENTATION = AugmentConfig(crop=24, scale_min=0.8, scale_max=1.25)
#: Steps that change next to nothing.
STILL = {"optimizer": "sgd", "learning_rate": 1e-30}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, write_records: Callable) -> str:
    """Five images of a bright disk on dark ground, with noise; the classes are dark and bright, the rim is void."""
    random_numbers = np.random.default_rng(0)
    pairs = []
    for size in (24, 28, 32, 36, 40):
        rows, columns = np.mgrid[:size, : size + 6]
        distance = np.hypot(rows - size / 2, columns - size / 3)
        mask = np.where(distance < size / 3, 1, 0)
        pixels = 60 + 110 * mask[:, :, None] + random_numbers.normal(0, 20, (*mask.shape, 3))
        mask[np.abs(distance - size / 3) < 1] = 255
        pairs.append((np.clip(pixels, 0, 255).astype(np.uint8), mask.astype(np.uint8)))
    return write_records(tmp_path_factory.mktemp("records") / "Split-train" / "a.gz", pairs)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 128, -1),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(2, 1),
        ]
    )


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.losses: dict[int, float] = {}
        self.speeds: list[float] = []
        self.best: dict[int, bool] = {}

    def begin(self, step: int, steps: int) -> None:
        self.begun.append(step)

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        self.losses[step] = loss
        self.speeds.append(images_per_second)

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        self.best[evaluation.step] = best


def run(
    model: keras.Model,
    folder: Path,
    records: str,
    *,
    val: bool = True,
    progress: Notes | None = None,
    initialize: Callable[[], None] | None = None,
    distribution: Distribution | None = None,
    **options: object,
) -> TrainingResult:
    config = TrainingConfig.model_validate({"global_batch_size": 4, "log_every": 5, "weight_decay": 0, **options})
    return train(
        model,
        config,
        TrainingData([records], [records] if val else [], ["dark", "bright"], [3, 1], [90.0, 90.0, 90.0]),
        augmentation=AUGMENTATION,
        inputs=InputConfig(),
        checkpoint_dir=str(folder / "checkpoints"),
        log_dir=str(folder / "log"),
        initialize=initialize,
        progress=progress,
        distribution=distribution,
    )


def test_a_few_images_are_learned(tmp_path: Path, records: str) -> None:
    notes = Notes()
    result = run(
        network(),
        tmp_path,
        records,
        progress=notes,
        steps=60,
        learning_rate=0.03,
        log_every=10,
        eval_every=30,
        class_balance="median",
        ema_decay=0.9,
    )
    assert list(notes.losses) == [10, 20, 30, 40, 50, 60]
    assert notes.losses[60] < 0.5 * notes.losses[10]
    assert [evaluation.step for evaluation in result.history] == [30, 60]
    assert result.steps == 60 and result.best is not None and result.best.mean_iou > 0.9
    assert all(speed > 0 for speed in notes.speeds)
    assert list((tmp_path / "log").glob("events.*"))


def state(folder: Path) -> dict[str, np.ndarray]:
    """Every variable of the newest checkpoint."""
    prefix = tf.train.latest_checkpoint(str(folder / "checkpoints" / "state"))
    reader = tf.train.load_checkpoint(prefix)
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("variables/")]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def trained(records: str, folder: Path, **options: object) -> tuple[int, list[str]]:
    """Exit status and printed lines of `resumable_training.py` in a process of its own."""
    root = Path(__file__).parents[3]
    script = Path(__file__).with_name("resumable_training.py")
    done = subprocess.run(
        [sys.executable, str(script), records, str(folder), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.fixture(scope="module")
def undisturbed(records: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Every variable of the last checkpoint of a training that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert trained(records, folder) == (0, ["begin 0", *(f"step {number}" for number in range(1, 17))])
    return state(folder)


# Checkpoints are made after steps 4, 6, 8, 12 and 16; evaluations after 6, 12 and 16.
@pytest.mark.parametrize(("step", "saved"), [(7, 6), pytest.param(12, 8, marks=pytest.mark.long)])
def test_a_killed_training_resumes_to_the_same_bits(
    step: int, saved: int, tmp_path: Path, records: str, undisturbed: dict[str, np.ndarray]
) -> None:
    assert trained(records, tmp_path, killed_before_saving=step)[0] == -signal.SIGKILL
    status, (begun, *_) = trained(records, tmp_path)
    assert (status, begun) == (0, f"begin {saved}")
    found = state(tmp_path)
    assert undisturbed.keys() == found.keys() and len(undisturbed) > 30
    for name, value in undisturbed.items():
        assert value.tolist() == found[name].tolist(), f"{name} differs"


@pytest.mark.long
def test_the_best_weights_outlive_kills_after_better_evaluations_that_are_not_repeated(
    tmp_path: Path, records: str
) -> None:
    """Sums on a GPU are not the same twice: what was best just before a kill may not be so after it."""
    kept, killed = tmp_path / "kept", tmp_path / "killed"
    attempts = [
        ({6: 0.5, 12: 0.8}, 12, "begin 0"),
        ({12: 0.4, 16: 0.9}, 16, "begin 8"),
        ({16: 0.3}, 0, "begin 12"),
    ]
    for scores, kill, expected in attempts:
        status, (begun, *_) = trained(records, killed, mean_iou=scores, killed_before_saving=kill)
        assert (status, begun) == (-signal.SIGKILL if kill else 0, expected)
    assert trained(records, kept, mean_iou={6: 0.5, 12: 0.4, 16: 0.3})[0] == 0

    found, best = (np.load(folder / "weights.npz") for folder in (killed, kept))
    for name in best:
        np.testing.assert_array_equal(found[name], best[name])


def test_a_finished_training_is_not_repeated(tmp_path: Path, records: str) -> None:
    first = network()
    result = run(first, tmp_path, records, steps=8, eval_every=4)
    notes, again = Notes(), network()
    assert run(again, tmp_path, records, steps=8, eval_every=4, progress=notes) == result
    assert notes.begun == [8] and not notes.losses
    for weight, expected in zip(again.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_initial_weights_are_set_once_and_averaged_from(tmp_path: Path, records: str) -> None:
    model, calls = network(), []

    def initialize() -> None:
        calls.append(1)
        model.set_weights([np.full_like(weight, 0.5) for weight in model.get_weights()])

    for _ in range(2):
        run(model, tmp_path, records, val=False, steps=2, ema_decay=0.9, initialize=initialize, **STILL)
    assert calls == [1]
    for weight in model.get_weights():
        np.testing.assert_allclose(weight, 0.5, rtol=1e-6)


class Apart(Distribution):
    """Two workers, of which the other one found a checkpoint of step 4."""

    def sum_over_workers(self, values: np.ndarray) -> np.ndarray:
        return values + np.array([0, 4])


def test_workers_that_see_different_folders_are_told(tmp_path: Path, records: str) -> None:
    distribution = Apart("one_device", tf.distribute.get_strategy(), 0, 2)
    with pytest.raises(TrainingError, match=r"would resume after the steps 0, 4: the folder of .* one and the same"):
        run(network(), tmp_path, records, steps=2, distribution=distribution)


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_the_model_ends_with_the_weights_of_the_best_evaluation(
    tmp_path: Path, records: str, monkeypatch: pytest.MonkeyPatch, ema_decay: float
) -> None:
    model, seen, scores = network(), {}, {2: 0.3, 4: 0.8, 6: 0.5, 8: 0.8}

    def judged(matrix: np.ndarray, step: int) -> Evaluation:
        seen[step] = model.get_weights()
        return Evaluation(step=step, mean_iou=scores[step], iou=(scores[step], scores[step]))

    monkeypatch.setattr(training, "validation_result", judged)
    notes = Notes()
    result = run(
        model, tmp_path, records, steps=8, eval_every=2, learning_rate=0.1, ema_decay=ema_decay, progress=notes
    )
    assert result.best == result.history[1]
    assert notes.best == {2: True, 4: True, 6: False, 8: False}
    for weight, expected, last in zip(model.get_weights(), seen[4], seen[8], strict=True):
        np.testing.assert_array_equal(weight, expected)
        assert not np.array_equal(weight, last)


def test_without_validation_the_last_weights_stay(tmp_path: Path, records: str) -> None:
    model = network()
    before = model.get_weights()
    result = run(model, tmp_path, records, val=False, steps=3, learning_rate=0.1)
    assert result == TrainingResult(steps=3) and result.best is None
    assert not np.array_equal(model.get_weights()[0], before[0])
    variables = state(tmp_path)
    np.testing.assert_array_equal(variables["variables/0/.ATTRIBUTES/VARIABLE_VALUE"], model.get_weights()[0])


def test_training_stops_when_nothing_becomes_better(tmp_path: Path, records: str) -> None:
    result = run(network(), tmp_path, records, steps=50, eval_every=2, patience=3, **STILL)
    assert [evaluation.step for evaluation in result.history] == [2, 4, 6, 8]
    assert result.steps == 8 and result.best == result.history[0]
    assert run(network(), tmp_path, records, steps=50, eval_every=2, patience=3, **STILL) == result


def test_a_loss_that_is_not_finite_stops_with_what_to_do(tmp_path: Path, records: str) -> None:
    options = {"optimizer": "sgd", "learning_rate": 1e30, "power": 0.0, "steps": 20, "log_every": 20}
    with pytest.raises(TrainingError) as raised:
        run(network(), tmp_path, records, **options)
    text = str(raised.value)
    assert "training diverged at step 2: loss " in text
    assert "learning rate 1e+30" in text and "There is no checkpoint yet" in text and "clip_norm" in text
    assert not list((tmp_path / "checkpoints").rglob("step-*"))


def test_divergence_names_the_last_good_checkpoint(tmp_path: Path, records: str) -> None:
    run(network(), tmp_path, records, val=False, steps=4, **STILL)
    with pytest.raises(TrainingError, match=r"at step 6: .*last good checkpoint is .*state/step-4\."):
        run(network(), tmp_path, records, val=False, steps=20, **{**STILL, "learning_rate": 1e30})


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, records: str) -> None:
    # Loss and gradient of the first step are finite, but this rate times this decay is not.
    options = {"optimizer": "sgd", "learning_rate": 1e38, "weight_decay": 1e30, "steps": 3, "checkpoint_every": 1}
    with pytest.raises(TrainingError, match="training diverged at step 1: loss 0"):
        run(network(), tmp_path, records, val=False, **options)
    assert not list((tmp_path / "checkpoints").rglob("step-*"))


def logged(folder: Path) -> EventAccumulator:
    """What TensorBoard reads."""
    log = EventAccumulator(str(folder / "log"))
    log.Reload()
    return log


def test_tensorboard_shows_curves_images_confusion_and_profile(tmp_path: Path, records: str) -> None:
    options = {"steps": 4, "eval_every": 2, "log_every": 2, "learning_rate": 0.1, "profile_step": 3}
    result = run(network(), tmp_path, records, **options)

    log = logged(tmp_path)
    tensors = {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in log.Tensors(tag)]
        for tag in log.Tags()["tensors"]
    }
    curves = ("train/loss", "train/gradient_norm", "train/images_per_second", "val/mean_iou", "val_iou/dark")
    assert all([step for step, _ in tensors[tag]] == [2, 4] for tag in curves)
    # After one and after three of four steps: (1 - 1 / 4) ** 0.9 and (1 - 3 / 4) ** 0.9 of the rate.
    rates = [rate for _, rate in tensors["train/learning_rate"]]
    np.testing.assert_allclose(rates, 0.1 * np.float32([0.75, 0.25]) ** 0.9, rtol=1e-5)
    assert [float(score) for _, score in tensors["result/mean_iou"]] == [pytest.approx(result.best.mean_iou)]
    assert [step for step, _ in tensors["val/confusion"]] == [2, 4]
    # Image, label and prediction side by side; the first image is 30 wide.
    assert tensors["val/0"][0][1][0] == b"90" and "val/3" in tensors and "val/4" not in tensors
    assert list((tmp_path / "log").glob("plugins/profile/*/*.xplane.pb"))


def test_tensorboard_shows_the_configuration(tmp_path: Path, records: str) -> None:
    shape = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4)
    run(build_model(shape, 2), tmp_path, records, val=False, steps=1, learning_rate=0.1)

    content = logged(tmp_path).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert values["model.width"].number_value == 0.35 and values["training.learning_rate"].number_value == 0.1
    assert values["augment.crop"].number_value == 24 and "input.cache_bytes" in values


def test_tensorboard_shows_as_many_images_as_wanted(tmp_path: Path, records: str) -> None:
    for wanted in (0, 2):
        folder = tmp_path / str(wanted)
        run(network(), folder, records, steps=1, tensorboard_images=wanted)
        images = {tag for tag in logged(folder).Tags()["tensors"] if tag.startswith("val/")} - {
            "val/mean_iou",
            "val/confusion",
        }
        assert images == {f"val/{number}" for number in range(wanted)}


def test_prepare_sets_precision_and_seed() -> None:
    try:
        prepare(TrainingConfig(precision="mixed_bfloat16", seed=4))
        first = keras.layers.Dense(3)
        first.build((None, 2))
        assert first.compute_dtype == "bfloat16" and first.kernel.dtype == "float32"
        prepare(TrainingConfig(seed=4))
        again = keras.layers.Dense(3)
        again.build((None, 2))
        assert again.compute_dtype == "float32"
        np.testing.assert_array_equal(first.kernel, again.kernel)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup_steps 20 is larger than steps 10"):
        TrainingConfig(steps=10, warmup_steps=20)
