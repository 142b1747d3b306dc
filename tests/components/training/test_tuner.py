"""The search: which trainings it makes, that it goes on after a kill, and that no failure passes for a result.

A training is a formula here, except where devices matter; tests/pipeline/test_tuning.py has the search in a pipeline.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tfx.components.trainer.fn_args_utils import FnArgs

from components.code_hash import code_hash
from components.training import tuner
from components.training.tuner import TunerConfig, halvings, tuner_fn
from components.training.tuning import TuningConfig
from data.errors import DataError, TrainingError
from models.config import TrainingConfig
from models.training.loop import TrainingResult
from models.training.validation import Evaluation
from tests.components.training.configurations import trainer_config

# KerasTuner calls threading.currentThread.
pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName).. is deprecated:DeprecationWarning")

SPACE = {
    "training.learning_rate": {"min": 0.001, "max": 0.1, "sampling": "log"},
    "model.dropout": {"choices": [0, 0.5]},
}

#: What each training was told, in order.
Trainings = list[TunerConfig]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """What has been trained; the mean IoU of a training is its dropout plus its learning rate."""
    made: Trainings = []

    def fit(config: TunerConfig, train: list[str], val: list[str], folder: Path) -> tuple[None, TrainingResult]:
        assert [Path(file).name for file in (*train, *val)] == ["train-0", "val-0"]
        (folder / "checkpoints").mkdir(exist_ok=True)
        made.append(config)
        score = config.model.dropout + config.training.learning_rate
        early = Evaluation(step=1, mean_iou=score, iou=(score,))
        late = Evaluation(step=config.training.steps, mean_iou=score / 2, iou=(score / 2,))
        return None, TrainingResult(steps=config.training.steps, history=(early, late))

    monkeypatch.setattr(tuner, "fit", fit)
    monkeypatch.setattr(tuner.keras.backend, "clear_session", lambda: None)  # half a second each, and nothing to clear
    return made


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., keras_tuner.engine.base_tuner.BaseTuner]:
    """Runs a search to its end as TFX's executor does."""
    for name in ("train-0", "val-0"):
        (tmp_path / name).touch()

    def run(space: Mapping[str, Any] = SPACE, **tuning: Any) -> keras_tuner.engine.base_tuner.BaseTuner:
        training = trainer_config(TrainingConfig(steps=100), str(tmp_path / "checkpoints"))
        config = TunerConfig.of(training, TuningConfig(steps=90, space=space, **tuning))
        result = tuner_fn(
            FnArgs(
                working_dir=str(tmp_path / "tmp"),
                train_files=[str(tmp_path / "train-*")],
                eval_files=[str(tmp_path / "val-*")],
                custom_config=config.model_dump(mode="json"),
            )
        )
        result.tuner.search(**result.fit_kwargs)
        return result.tuner

    return run


def values(trained: TunerConfig) -> tuple[float, float]:
    return trained.training.learning_rate, trained.model.dropout


@pytest.mark.parametrize(("algorithm", "least"), [("random", 6), ("bayesian", 4)])
def test_trials_train_with_different_values_of_the_space_and_the_best_score_wins(
    algorithm: str, least: int, search: Callable[..., Any], trainings: Trainings
) -> None:
    found = search(trials=6, algorithm=algorithm)
    assert len({values(training) for training in trainings}) == len(trainings) >= least
    assert all(0.001 <= rate <= 0.1 and dropout in (0, 0.5) for rate, dropout in map(values, trainings))
    assert {training.training.steps for training in trainings} == {90}
    best = found.get_best_hyperparameters()[0].values
    assert (best["training.learning_rate"], best["model.dropout"]) == max(map(values, trainings), key=sum)
    assert found.oracle.get_best_trials()[0].score == pytest.approx(max(map(sum, map(values, trainings))))


def test_hyperband_gives_few_steps_to_many_trials_and_all_steps_to_the_best(
    search: Callable[..., Any], trainings: Trainings
) -> None:
    search(trials=13, algorithm="hyperband")
    assert [training.training.steps for training in trainings] == [10] * 9 + [30] * 3 + [90]
    by_score = sorted(map(values, trainings[:9]), key=sum, reverse=True)
    assert set(map(values, trainings[9:12])) == set(by_score[:3])
    assert values(trainings[12]) == by_score[0]


@pytest.mark.parametrize(("trials", "count"), [(4, 1), (12, 1), (13, 2), (39, 2), (40, 3)])
def test_hyperband_halves_as_often_as_its_trials_allow(trials: int, count: int) -> None:
    assert halvings(trials) == count


@pytest.mark.parametrize("algorithm", ["random", "hyperband", "bayesian"])
def test_a_search_that_was_killed_makes_only_the_trials_that_were_not_finished(
    algorithm: str, search: Callable[..., Any], trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = tuner.fit

    def killed(*arguments: Any) -> Any:
        if len(trainings) == 4:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(tuner, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        search(trials=6, algorithm=algorithm)
    monkeypatch.setattr(tuner, "fit", fit)
    found = search(trials=6, algorithm=algorithm)
    assert [trial.status for trial in found.oracle.trials.values()] == ["COMPLETED"] * 6
    made = [(values(training), training.training.steps) for training in trainings]
    assert 4 < len(made) == len(set(made)), "no trial was made twice"


def curve(log: Path, name: str) -> list[float]:
    """A scalar at each step of a trial."""
    events = EventAccumulator(str(log))
    events.Reload()
    return [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(f"train/{name}")]


@pytest.mark.long
def test_a_search_over_two_devices_finds_what_it_finds_on_one(tmp_path: Path) -> None:
    script = Path(__file__).with_name("distributed_search.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[3]), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = json.loads((tmp_path / "trials.json").read_text())
    one, two = trials["one_device"], trials["mirrored"]
    assert [trial["values"] for trial in one] == [trial["values"] for trial in two] and len(one) == 2
    for alone, together in zip(one, two, strict=True):
        assert together["mean_iou"] == pytest.approx(alone["mean_iou"], abs=0.05)
    for trial in ("trial-001", "trial-002"):
        alone, together = (tmp_path / name / "curves" / trial for name in ("one_device", "mirrored"))
        losses = curve(alone, "loss")
        assert len(losses) == 3 and curve(together, "loss") == pytest.approx(losses, rel=5e-3)
        # Batch normalisation over few features amplifies rounding; that of the first gradient has no history.
        assert curve(together, "gradient_norm")[0] == pytest.approx(curve(alone, "gradient_norm")[0], rel=0.01)


def test_more_trials_go_on_from_those_that_were_made(
    search: Callable[..., Any], trainings: Trainings, tmp_path: Path
) -> None:
    search(trials=2)
    assert len(search(trials=3).oracle.trials) == len(trainings) == 3
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1, "retention takes each folder for one training"


def test_a_finished_trial_leaves_no_weights(search: Callable[..., Any], trainings: Trainings, tmp_path: Path) -> None:
    search(trials=2)
    assert len(list((tmp_path / "checkpoints").glob("*/*/score.txt"))) == len(trainings) == 2
    assert not list((tmp_path / "checkpoints").glob("*/*/checkpoints"))


@pytest.mark.parametrize(
    ("failure", "raised", "reason"),
    [
        (TrainingError("training diverged at step 3"), TrainingError, "training diverged at step 3"),
        (MemoryError("no room"), keras_tuner.errors.FatalError, "MemoryError: no room"),
    ],
)
def test_a_trial_that_fails_ends_the_search_with_its_number_values_and_reason(
    failure: Exception,
    raised: type[Exception],
    reason: str,
    search: Callable[..., Any],
    trainings: Trainings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit = tuner.fit

    def failing(*arguments: Any) -> Any:
        if len(trainings) == 1:
            raise failure
        return fit(*arguments)

    monkeypatch.setattr(tuner, "fit", failing)
    with pytest.raises(raised, match=rf"^trial 2 of at most 3 \(.*training.learning_rate=0.\d+.*\) failed: {reason}$"):
        search(trials=3)


def test_a_search_without_a_validation_split_is_refused(
    search: Callable[..., Any], trainings: Trainings, tmp_path: Path
) -> None:
    (tmp_path / "val-0").unlink()
    with pytest.raises(DataError, match="split val has no record files"):
        search(trials=1)


def test_a_search_is_of_the_same_training_and_knows_the_code_that_searches() -> None:
    training = trainer_config(TrainingConfig(steps=7), "/checkpoints")
    search = TunerConfig.of(training, TuningConfig())
    assert search.training == training.training
    assert search.code_hash == code_hash("components.training.tuner") != training.code_hash
