"""Trainer: from transformed records to an exported SavedModel."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field
from tfx import types
from tfx.components.trainer import component as trainer
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.io import fileio
from tfx.proto import trainer_pb2
from tfx.utils import io_utils

from components.code_hash import code_hash
from components.training.search_space import chosen_values, with_values
from components.transform import read_statistics
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.console import terminal
from data.errors import ConfigError, DataError
from data.input import count_records
from data.labels import LabelMap
from data.layouts.base import TRAIN, VAL
from data.section import Section
from models.config import InferenceConfig, ModelConfig, TrainingConfig
from models.export.saved_model import export_saved_model
from models.network.deeplab import DeepLabV3Plus, build_model
from models.training.loop import TrainingData, TrainingResult, prepare, train
from models.training.progress import ProgressBar
from models.training.strategies import Distribution
from models.weights.initial_weights import InitialWeights, load_initial_weights

RESULT_FILE = "training.json"
CHECKPOINTS = "checkpoints"
#: An empty file in the folder of a training whose model has been exported, or of a search that has come to its end.
FINISHED = "finished"
TENSORBOARD = "tensorboard"


class TrainerConfig(Section):
    """All that makes a training, beside the data and the model that it starts from.

    Its JSON is the `custom_config` of TFX's Trainer, so that it is recorded in ML Metadata and part of the cache key.
    """

    model: ModelConfig
    training: TrainingConfig
    augment: AugmentConfig
    input: InputConfig
    preprocess: PreprocessConfig
    inference: InferenceConfig = InferenceConfig()
    """How the exported model predicts; nothing of the training depends on it."""
    label_map: LabelMap
    checkpoints: str
    """Folder that holds a folder for each training of this pipeline, with its checkpoints."""
    code_hash: str = Field(default_factory=lambda: code_hash(__name__))
    """Hash of the code that trains and exports."""

    def without_inference(self) -> Self:
        """What is trained: the same for every way in which the exported model predicts."""
        return self.model_copy(update={"inference": InferenceConfig()})

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same training with other values for some fields, which are named by their dotted paths."""
        return type(self).model_validate(with_values(self.model_dump(mode="json"), values))

    def with_steps(self, steps: int) -> Self:
        """The same training with fewer steps: warm-up and ramps keep their share of them."""
        share = steps / self.training.steps
        return self.with_values(
            {
                "training.steps": steps,
                "training.warmup_steps": int(share * self.training.warmup_steps),
                "training.loss.ohem_ramp_steps": int(share * self.training.loss.ohem_ramp_steps),
            }
        )

    def starting_from(self, base_model: str | None) -> Self:
        """The training that starts from the served model where `training.warm_start` asks for that.

        Args:
            base_model: Folder of the served model's SavedModel, empty if none is served; None if WarmStart did not run.

        Raises:
            ConfigError: WarmStart did not run.
        """
        if not self.training.warm_start:
            return self
        if base_model is None:
            raise ConfigError(
                "training.warm_start=true needs the served model, which only a run of the whole pipeline hands over; "
                "set it to false, and training.initial_weights to the folder of a served version"
            )
        served = fileio.exists(os.path.join(base_model, "saved_model.pb"))
        return self.with_values({"training.initial_weights": base_model}) if served else self

    def checkpoint_folder(self, train_files: list[str]) -> Path:
        """One folder for each combination of configuration, code and data.

        How the exported model predicts is not part of it: a change of that exports again from the finished training.
        """
        trained = self.without_inference().model_dump(mode="json", include=set(TrainerConfig.model_fields))
        key = json.dumps([trained, train_files], sort_keys=True)
        folder = Path(self.checkpoints, hashlib.sha256(key.encode()).hexdigest()[:16])
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Trainer(trainer.Trainer):
    """TFX's Trainer, which runs `run_fn`.

    Args of the constructor:
        examples: Transform's output.
        transform_graph: Transform's output.
        config: What is trained.
        base_model: The copy of the served model to start from, where `training.warm_start` is on.
        hyperparameters: The Tuner's best values, where there is a Tuner.
    """

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        config: TrainerConfig,
        base_model: types.BaseChannel | None = None,
        hyperparameters: types.BaseChannel | None = None,
    ):
        super().__init__(
            examples=examples,
            transform_graph=transform_graph,
            base_model=base_model,
            hyperparameters=hyperparameters,
            run_fn=f"{run_fn.__module__}.{run_fn.__name__}",
            train_args=trainer_pb2.TrainArgs(splits=[TRAIN], num_steps=config.training.steps),
            eval_args=trainer_pb2.EvalArgs(splits=[VAL]),
            custom_config=config.model_dump(mode="json"),
        )


def run_fn(fn_args: FnArgs) -> None:
    """Trains, then exports to `fn_args.serving_model_dir`; curves and the result go to `fn_args.model_run_dir`.

    Checkpoints live outside the artifacts, which TFX deletes when a stage fails: a training that was killed resumes
    from its last checkpoint, provided that configuration, code, data and initial weights are the same. They stay when
    the training has finished, and it removes no others: other runs may be training beside it. Of several workers
    the chief exports, and the others wait for it.

    Raises:
        ConfigError: `training.warm_start` is on, and nothing says which model is served.
    """
    config = TrainerConfig.model_validate(fn_args.custom_config)
    if fn_args.hyperparameters:
        config = config.with_values(chosen_values(fn_args.hyperparameters["values"]))
    train_files, val_files = record_files(fn_args.train_files, "train"), record_files(fn_args.eval_files, "val")
    config = warm_started(config, fn_args.base_model, train_files)
    folder = config.checkpoint_folder(train_files)
    distribution = prepare(config.training)
    model, result = fit(config, train_files, val_files, folder, distribution)
    if distribution.is_chief:
        export_saved_model(
            model,
            fn_args.serving_model_dir,
            label_map=config.label_map,
            preprocess=config.preprocess,
            inference=config.inference,
        )
        io_utils.copy_dir(str(folder / TENSORBOARD), os.path.join(fn_args.model_run_dir, TENSORBOARD))
        summary = {
            "parameters": model.count_params(),
            "initial_weights": config.training.initial_weights,
            "planned_steps": config.training.steps,
            **result.model_dump(mode="json"),
        }
        io_utils.write_string_file(os.path.join(fn_args.model_run_dir, RESULT_FILE), json.dumps(summary))
        (folder / FINISHED).touch()
    distribution.wait()


def fit(
    config: TrainerConfig,
    train_files: list[str],
    val_files: list[str],
    folder: Path,
    distribution: Distribution | None = None,
) -> tuple[DeepLabV3Plus, TrainingResult]:
    """Builds the network that a configuration describes and trains it; resumes if the folder holds its checkpoints.

    Args:
        config: What is trained.
        train_files: Transformed records of the training split.
        val_files: Transformed records of the validation split.
        folder: For checkpoints and curves.
        distribution: The replicas that `prepare` gave; None lets it make them.
    """
    labels = config.label_map
    distribution = distribution or prepare(config.training)
    statistics = read_statistics(train_files[0], labels.num_classes)
    with distribution.scope():
        model = build_model(
            config.model,
            labels.num_classes,
            mean=statistics.channel_mean.tolist(),
            variance=statistics.channel_variance.tolist(),
        )
    console = terminal()

    def initialize() -> None:
        loaded = initial_weights(model, config.training, labels)
        if loaded.loaded and distribution.is_chief:
            console.print(str(loaded), highlight=False)

    data = TrainingData(
        train_files=train_files,
        val_files=val_files,
        label_names=labels.names,
        class_pixels=statistics.class_pixels.tolist(),
        channel_mean=statistics.channel_mean.tolist(),
    )
    with ProgressBar(console) as progress:
        result = train(
            model,
            config.training,
            data,
            augmentation=config.augment,
            inputs=config.input,
            checkpoint_dir=str(folder / CHECKPOINTS),
            log_dir=str(folder / TENSORBOARD),
            initialize=initialize,
            progress=progress,
            distribution=distribution,
        )
    return model, result


def initial_weights(model: DeepLabV3Plus, config: TrainingConfig, labels: LabelMap) -> InitialWeights:
    """Sets the weights that training starts from.

    Raises:
        ConfigError: They do not fit the network; says what to do if they are those of the served model.
    """
    try:
        return load_initial_weights(model, config.initial_weights, label_names=labels.names)
    except ConfigError as error:
        if not config.warm_start:
            raise
        raise ConfigError(
            f"{error}\nWith training.warm_start=true these weights are those of the served model; set it to false to "
            "train a new network, or publish under another push.model_name"
        ) from error


def warm_started(config: TrainerConfig, base_model: str | None, train_files: list[str]) -> TrainerConfig:
    """As `TrainerConfig.starting_from`, with as many steps as the training images ask for; see `TrainingConfig`."""
    started = config.starting_from(base_model)
    if started is config or not config.training.warm_start_epochs:
        return started
    return started.with_steps(config.training.warm_start_steps(count_records(train_files)))


def record_files(patterns: list[str], split: str) -> list[str]:
    """The files of a split.

    Raises:
        DataError: There is none.
    """
    files = sorted(path for pattern in patterns for path in fileio.glob(pattern))
    if not files:
        raise DataError(f"split {split} has no record files ({', '.join(patterns)})")
    return files
