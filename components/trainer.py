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

from components.transform import DatasetStatistics, read_statistics
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.errors import DataError
from data.labels import LabelMap
from models.config import ModelConfig, TrainingConfig
from models.console import terminal
from models.deeplab import build_model
from models.export import export_saved_model
from models.monitor import ProgressBar
from models.training import TrainingData, prepare, train

RESULT_FILE = "training.json"
TENSORBOARD = "tensorboard"


def run_fn(fn_args: FnArgs) -> None:
    """Trains, then exports to `fn_args.serving_model_dir`; curves and the result go to `fn_args.model_run_dir`.

    Checkpoints live outside the artifacts, which TFX deletes when a stage fails: a run that was killed goes on where
    it stopped, provided that configuration, code and data are the same.
    """
    custom: dict[str, Any] = fn_args.custom_config
    labels = LabelMap.model_validate(custom["label_map"])
    config = TrainingConfig.model_validate(custom["training"])
    train_files, val_files = _files(fn_args.train_files, "train"), _files(fn_args.eval_files, "val")
    statistics = read_statistics(train_files[0], labels.num_classes)
    folder = checkpoint_folder(custom, train_files)
    prepare(config)
    model = build_model(
        ModelConfig.model_validate(custom["model"]),
        labels.num_classes,
        mean=statistics.channel_mean.tolist(),
        variance=statistics.channel_variance.tolist(),
    )
    with ProgressBar(terminal()) as progress:
        result = train(
            model,
            config,
            training_data(train_files, val_files, labels, statistics),
            augmentation=AugmentConfig.model_validate(custom["augment"]),
            inputs=InputConfig.model_validate(custom["input"]),
            checkpoint_dir=str(folder / "checkpoints"),
            log_dir=str(folder / TENSORBOARD),
            progress=progress,
        )
    export_saved_model(
        model,
        fn_args.serving_model_dir,
        label_map=labels,
        preprocess=PreprocessConfig.model_validate(custom["preprocess"]),
    )
    io_utils.copy_dir(str(folder / TENSORBOARD), os.path.join(fn_args.model_run_dir, TENSORBOARD))
    summary = {"parameters": model.count_params(), **result.model_dump(mode="json")}
    io_utils.write_string_file(os.path.join(fn_args.model_run_dir, RESULT_FILE), json.dumps(summary))
    forget_other_checkpoints(folder)


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


def _files(patterns: list[str], split: str) -> list[str]:
    files = sorted(path for pattern in patterns for path in fileio.glob(pattern))
    if not files:
        raise DataError(f"split {split} has no record files ({', '.join(patterns)})")
    return files


def checkpoint_folder(custom_config: dict[str, Any], train_files: list[str]) -> Path:
    """One folder for each combination of configuration, code (its hash is in the configuration) and data."""
    key = json.dumps([custom_config, train_files], sort_keys=True)
    folder = Path(custom_config["checkpoints"], hashlib.sha256(key.encode()).hexdigest()[:16])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget_other_checkpoints(folder: Path) -> None:
    """Removes what trainings with another configuration left behind, once this one has come to its end."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
