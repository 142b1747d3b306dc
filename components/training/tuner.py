"""Tuner: short trainings with other hyperparameters, each evaluated on the validation split.

A search that was killed begins again and proposes the same values, because KerasTuner's algorithms are seeded: a trial
that was complete gives the score that it saved, and the one that was under way resumes from its checkpoint.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import keras
import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import Trial
from pydantic import Field
from tfx import types
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner import component, executor
from tfx.components.tuner.component import TunerFnResult
from tfx.dsl.components.base import executor_spec
from tfx.proto import trainer_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.code_hash import code_hash
from components.storage.atomic import write_small
from components.training.search_space import chosen_values, is_integer, short
from components.training.trainer import (
    CHECKPOINTS,
    FINISHED,
    TENSORBOARD,
    TrainerConfig,
    fit,
    record_files,
)
from components.training.tuning import Dimension, TuningConfig
from data.console import terminal
from data.errors import ProjectError, TrainingError
from data.layouts.base import TRAIN, VAL

OBJECTIVE = keras_tuner.Objective("val_mean_iou", direction="max")
SCORE_FILE = "score.txt"

#: What TFX's executor writes into its two outputs.
BEST_FILE = "best_hyperparameters.txt"
TRIALS_FILE = "tuner_results.json"

#: Hyperband's factor: each round keeps a third of the trials, and trains them three times as long.
FACTOR = 3


class Executor(executor.Executor):
    """TFX's executor, which also keeps the curves of the trials: `tensorboard/trial-<number>/` beside their results."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        search = executor.search(input_dict, exec_properties, self._get_tmp_dir())
        executor.write_best_hyperparameters(search, output_dict)
        results = artifact_utils.get_single_uri(output_dict[standard_component_specs.TUNER_RESULTS_KEY])
        search.copy_curves(os.path.join(results, TENSORBOARD))
        search.mark_finished()


class TunerConfig(TrainerConfig):
    """The training whose hyperparameters are searched, and the search."""

    tuning: TuningConfig
    code_hash: str = Field(default_factory=lambda: code_hash(__name__))
    """Hash of the code that searches."""

    @classmethod
    def of(cls, training: TrainerConfig, tuning: TuningConfig) -> Self:
        """The search for better hyperparameters of a training."""
        return cls(**{name: value for name, value in training if name != "code_hash"}, tuning=tuning)


class Tuner(component.Tuner):
    """TFX's Tuner, which runs `tuner_fn` and keeps the curves of the trials.

    Args of the constructor:
        examples: Transform's output.
        transform_graph: Transform's output.
        config: What is trained, and the search.
        base_model: The copy of the served model to start from, where `training.warm_start` is on.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        config: TunerConfig,
        base_model: types.BaseChannel | None = None,
    ):
        super().__init__(
            examples=examples,
            transform_graph=transform_graph,
            base_model=base_model,
            tuner_fn=f"{tuner_fn.__module__}.{tuner_fn.__name__}",
            train_args=trainer_pb2.TrainArgs(splits=[TRAIN], num_steps=config.tuning.steps),
            eval_args=trainer_pb2.EvalArgs(splits=[VAL]),
            custom_config=config.without_inference().model_dump(mode="json"),
        )


class TrialFailed(TrainingError, keras_tuner.errors.FatalError):
    """A trial ended without a score.

    KerasTuner records any error but its own `FatalError` as a bad trial, and TFX would then call the search a success.
    """


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Prepares the search that `fn_args.custom_config`, the JSON of a `TunerConfig`, describes."""
    config = TunerConfig.model_validate(fn_args.custom_config).starting_from(fn_args.base_model)
    search = Search(
        make_oracle(config.tuning, config.training.seed),
        config,
        train_files=record_files(fn_args.train_files, "train"),
        val_files=record_files(fn_args.eval_files, "val"),
        directory=fn_args.working_dir,
    )
    return TunerFnResult(tuner=search, fit_kwargs={})


class Search(base_tuner.BaseTuner):
    """A search over the fields of the configuration.

    Args:
        oracle: Proposes values for them.
        config: What is trained, and for how many steps.
        train_files: Transformed records of the training split.
        val_files: Transformed records of the validation split.
        directory: For KerasTuner's own files, from which nothing is read.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        config: TunerConfig,
        *,
        train_files: list[str],
        val_files: list[str],
        directory: str,
    ):
        super().__init__(oracle, directory=directory, overwrite=True)
        # The trials are in one folder, so that retention keeps or removes them together. Section `tuning` is not part
        # of its name: a search for more trials resumes from those that were made.
        self._folder = config.checkpoint_folder(train_files)
        self._config = config.model_copy(update={"checkpoints": str(self._folder)})
        self._train_files = train_files
        self._val_files = val_files
        self._console = terminal()
        self._folders: dict[int, Path] = {}

    def run_trial(self, trial: Trial) -> float:
        """Trains with the values of a trial, as KerasTuner asks; returns the best mean IoU on the validation split.

        Raises:
            TrialFailed: The training failed with an error of this project.
            FatalError: The training failed with any other error.
        """
        values = chosen_values(trial.hyperparameters.values)
        text = ", ".join(f"{field}={short(value)}" for field, value in values.items())
        number = int(trial.trial_id) + 1
        name = f"trial {number} of at most {self.oracle.max_trials} ({text})"
        config = self._config.with_values(values).with_steps(self._steps_of(trial))
        self._folders[number] = config.checkpoint_folder(self._train_files)
        try:
            return self._score(name, config, self._folders[number])
        except ProjectError as error:
            raise TrialFailed(f"{name} failed: {error}") from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{name} failed: {type(error).__name__}: {error}") from error

    def _steps_of(self, trial: Trial) -> int:
        if not isinstance(self.oracle, keras_tuner.oracles.HyperbandOracle):
            return self._config.tuning.steps
        return max(
            1, self._config.tuning.steps * trial.hyperparameters.values["tuner/epochs"] // self.oracle.max_epochs
        )

    def copy_curves(self, target: str) -> None:
        """Copies the TensorBoard logs of all trials."""
        for number, folder in self._folders.items():
            io_utils.copy_dir(str(folder / TENSORBOARD), os.path.join(target, f"trial-{number:03}"))

    def mark_finished(self) -> None:
        """Says that the results are written, and the trials of use only to a search for more of them."""
        (self._folder / FINISHED).touch()

    def _score(self, name: str, config: TunerConfig, folder: Path) -> float:
        if (folder / SCORE_FILE).exists():
            score = float((folder / SCORE_FILE).read_text(encoding="utf-8"))
            self._console.print(f"{name} is already done: mean IoU {score:.4f}", highlight=False, soft_wrap=True)
            return score
        self._console.print(name, highlight=False, soft_wrap=True)
        keras.backend.clear_session()
        _, result = fit(config, self._train_files, self._val_files, folder)
        if result.best is None:
            raise TrainingError("nothing was evaluated")
        write_small(str(folder / SCORE_FILE), repr(result.best.mean_iou).encode())
        # The weights of a trial are large and not needed any more.
        shutil.rmtree(folder / CHECKPOINTS)
        return result.best.mean_iou


def make_space(space: Mapping[str, Dimension]) -> keras_tuner.HyperParameters:
    """KerasTuner's form of section `tuning.space`."""
    hyperparameters = keras_tuner.HyperParameters()
    for field, dimension in space.items():
        if not dimension.choices:
            make, number = (hyperparameters.Int, int) if is_integer(field) else (hyperparameters.Float, float)
            least, greatest = (number(end) for end in dimension.extremes)
            step = None if dimension.step is None else number(dimension.step)
            make(field, least, greatest, step=step, sampling=dimension.sampling)
        elif isinstance(dimension.choices[0], bool):
            hyperparameters.Boolean(field)
        else:
            # KerasTuner wants choices of one type.
            floats = any(isinstance(choice, float) for choice in dimension.choices)
            hyperparameters.Choice(field, [float(c) if floats else c for c in dimension.choices])
    return hyperparameters


def make_oracle(tuning: TuningConfig, seed: int) -> keras_tuner.Oracle:
    """Proposes the values: the same values for the same seed and the same scores."""
    common = {
        "objective": OBJECTIVE,
        "hyperparameters": make_space(tuning.space),
        "seed": seed + 1,  # KerasTuner takes 0 for a random seed.
    }
    if tuning.algorithm == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=tuning.trials, **common)
    if tuning.algorithm == "bayesian":
        drawn = min(3 * len(tuning.space), (tuning.trials + 1) // 2)
        return keras_tuner.oracles.BayesianOptimizationOracle(
            max_trials=tuning.trials, num_initial_points=drawn, **common
        )
    oracle = keras_tuner.oracles.HyperbandOracle(
        max_epochs=FACTOR ** halvings(tuning.trials), factor=FACTOR, hyperband_iterations=None, **common
    )
    # The constructor does not take `max_trials`: brackets follow each other until there were so many trials.
    oracle.max_trials = tuning.trials
    return oracle


def halvings(trials: int) -> int:
    """How often Hyperband's first bracket, of 3^n + ... + 3 + 1 trials, can halve without exceeding `trials`."""
    count = 0
    while sum(FACTOR**power for power in range(count + 2)) <= trials:
        count += 1
    return count
