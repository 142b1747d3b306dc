"""What TFX's Trainer runs: from transformed records to an exported SavedModel."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.search_space import tuned
from components.transform import DatasetStatistics, read_statistics
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.errors import DataError
from data.labels import LabelMap
from models.config import InferenceConfig, ModelConfig, TrainingConfig
from models.console import terminal
from models.deeplab import DeepLabV3Plus, build_model
from models.export import export_saved_model
from models.initial_weights import load_initial_weights
from models.monitor import ProgressBar
from models.strategies import Distribution
from models.training import TrainingData, TrainingResult, prepare, train

RESULT_FILE = "training.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


def run_fn(fn_args: FnArgs) -> None:
    """Trains, then exports to `fn_args.serving_model_dir`; curves and the result go to `fn_args.model_run_dir`.

    Checkpoints live outside the artifacts, which TFX deletes when a stage fails: a run that was killed goes on where
    it stopped, provided that configuration, code and data are the same. Of several workers the chief exports, and the
    others wait for it.
    """
    custom = tuned(fn_args.custom_config, fn_args.hyperparameters)
    train_files, val_files = record_files(fn_args.train_files, "train"), record_files(fn_args.eval_files, "val")
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
    summary = {"parameters": model.count_params(), **result.model_dump(mode="json")}
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
        loaded = load_initial_weights(model, config.initial_weights, label_names=labels.names)
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
