"""What TFX's Trainer runs: from transformed records to an exported SavedModel."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.training.search_space import tuned, with_values
from components.transform import DatasetStatistics, read_statistics
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.console import terminal
from data.errors import ConfigError, DataError
from data.input import count_records
from data.labels import LabelMap
from models.config import InferenceConfig, ModelConfig, TrainingConfig
from models.export.saved_model import export_saved_model
from models.network.deeplab import DeepLabV3Plus, build_model
from models.training.loop import TrainingData, TrainingResult, prepare, train
from models.training.progress import ProgressBar
from models.training.strategies import Distribution
from models.weights.initial_weights import InitialWeights, load_initial_weights

RESULT_FILE = "training.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


def run_fn(fn_args: FnArgs) -> None:
    """Trains, then exports to `fn_args.serving_model_dir`; curves and the result go to `fn_args.model_run_dir`.

    Checkpoints live outside the artifacts, which TFX deletes when a stage fails: a run that was killed goes on where
    it stopped, provided that configuration, code, data and initial weights are the same. Of several workers the chief
    exports, and the others wait for it.

    Raises:
        ConfigError: `training.warm_start` is on, and nothing says which model is served.
    """
    custom = tuned(fn_args.custom_config, fn_args.hyperparameters)
    train_files, val_files = record_files(fn_args.train_files, "train"), record_files(fn_args.eval_files, "val")
    custom = warm_started(custom, fn_args.base_model, train_files)
    folder = checkpoint_folder(custom, train_files)
    distribution = prepare(TrainingConfig.model_validate(custom["training"]))
    model, result = fit(custom, train_files, val_files, folder, distribution)
    if distribution.is_chief:
        _export(fn_args, custom, model, result, folder)
    distribution.wait()


def _export(
    fn_args: FnArgs, custom: dict[str, Any], model: DeepLabV3Plus, result: TrainingResult, folder: Path
) -> None:
    export_saved_model(
        model,
        fn_args.serving_model_dir,
        label_map=LabelMap.model_validate(custom["label_map"]),
        preprocess=PreprocessConfig.model_validate(custom["preprocess"]),
        inference=InferenceConfig.model_validate(custom["inference"]),
    )
    io_utils.copy_dir(str(folder / TENSORBOARD), os.path.join(fn_args.model_run_dir, TENSORBOARD))
    training = {"initial_weights": custom["training"]["initial_weights"], "planned_steps": custom["training"]["steps"]}
    summary = {"parameters": model.count_params(), **training, **result.model_dump(mode="json")}
    io_utils.write_string_file(os.path.join(fn_args.model_run_dir, RESULT_FILE), json.dumps(summary))
    forget_other_checkpoints(folder)


def fit(
    custom: dict[str, Any],
    train_files: list[str],
    val_files: list[str],
    folder: Path,
    distribution: Distribution | None = None,
) -> tuple[DeepLabV3Plus, TrainingResult]:
    """Builds the network that a configuration describes, and trains it; goes on if the folder holds its checkpoints.

    Args:
        custom: the sections of the configuration by name, and the label map.
        train_files: transformed records of the training split.
        val_files: those of the validation split.
        folder: for checkpoints and curves.
        distribution: the replicas that `prepare` gave; None lets it make them.
    """
    labels = LabelMap.model_validate(custom["label_map"])
    config = TrainingConfig.model_validate(custom["training"])
    distribution = distribution or prepare(config)
    statistics = read_statistics(train_files[0], labels.num_classes)
    with distribution.scope():
        model = build_model(
            ModelConfig.model_validate(custom["model"]),
            labels.num_classes,
            mean=statistics.channel_mean.tolist(),
            variance=statistics.channel_variance.tolist(),
        )
    console = terminal()

    def initialize() -> None:
        loaded = initial_weights(model, config, labels)
        if loaded.loaded and distribution.is_chief:
            console.print(str(loaded), highlight=False)

    with ProgressBar(console) as progress:
        result = train(
            model,
            config,
            training_data(train_files, val_files, labels, statistics),
            augmentation=AugmentConfig.model_validate(custom["augment"]),
            inputs=InputConfig.model_validate(custom["input"]),
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
        ConfigError: they do not fit the network; says what to do if they are those of the served model.
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


def served_as_initial_weights(custom_config: dict[str, Any], base_model: str | None) -> dict[str, Any]:
    """The configuration of a training that starts from the served model where `training.warm_start` wants that.

    Args:
        custom_config: of the Trainer.
        base_model: folder of the served model's SavedModel, empty where none is served; None if nobody looked.

    Raises:
        ConfigError: nobody looked for the served model.
    """
    if not custom_config["training"]["warm_start"]:
        return custom_config
    if base_model is None:
        raise ConfigError(
            "training.warm_start=true needs the served model, which only a run of the whole pipeline hands over; "
            "set it to false, and training.initial_weights to the folder of a served version"
        )
    served = fileio.exists(os.path.join(base_model, "saved_model.pb"))
    return with_values(custom_config, {"training.initial_weights": base_model}) if served else custom_config


def warm_started(custom_config: dict[str, Any], base_model: str | None, train_files: list[str]) -> dict[str, Any]:
    """As `served_as_initial_weights`, with as many steps as the training images ask for; see `TrainingConfig`."""
    started = served_as_initial_weights(custom_config, base_model)
    training = TrainingConfig.model_validate(started["training"])
    if started is custom_config or not training.warm_start_epochs:
        return started
    return shortened(started, training.warm_start_steps(count_records(train_files)))


def shortened(custom_config: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The configuration of a training of fewer steps: warm-up and ramps keep their share of them."""
    training = custom_config["training"]
    share = steps / training["steps"]
    return with_values(
        custom_config,
        {
            "training.steps": steps,
            "training.warmup_steps": int(share * training["warmup_steps"]),
            "training.loss.top_k_ramp_steps": int(share * training["loss"]["top_k_ramp_steps"]),
        },
    )


def training_data(
    train_files: list[str], val_files: list[str], labels: LabelMap, statistics: DatasetStatistics
) -> TrainingData:
    """The records, and what Transform learned from them."""
    return TrainingData(
        train_files=train_files,
        val_files=val_files,
        label_names=labels.names,
        class_pixels=statistics.class_pixels.tolist(),
        channel_mean=statistics.channel_mean.tolist(),
    )


def record_files(patterns: list[str], split: str) -> list[str]:
    """The files of a split.

    Raises:
        DataError: There is none.
    """
    files = sorted(path for pattern in patterns for path in fileio.glob(pattern))
    if not files:
        raise DataError(f"split {split} has no record files ({', '.join(patterns)})")
    return files


def checkpoint_folder(custom_config: dict[str, Any], train_files: list[str]) -> Path:
    """One folder for each combination of configuration, code (its hash is in the configuration) and data.

    How the exported model predicts is not part of it: a change of that exports anew from the finished training.
    """
    trained = {name: value for name, value in custom_config.items() if name != "inference"}
    key = json.dumps([trained, train_files], sort_keys=True)
    folder = Path(custom_config["checkpoints"], hashlib.sha256(key.encode()).hexdigest()[:16])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget_other_checkpoints(folder: Path) -> None:
    """Removes what trainings with another configuration left behind, once this one has come to its end."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
