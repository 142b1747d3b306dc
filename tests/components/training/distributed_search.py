"""A search that trains on two devices of a process, and the same on one: `python distributed_search.py FOLDER`.

Writes the trials of each strategy to FOLDER/trials.json, their values and scores in order, and their curves to
FOLDER/<strategy>/curves.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components.training.tuner import TunerConfig, tuner_fn
from components.training.tuning import TuningConfig
from components.transform import CHANNEL_MEAN, CHANNEL_VARIANCE, CLASS_PIXELS
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.features import IMAGE, MASK
from data.labels import ClassLabel, LabelMap
from models.config import ModelConfig, TrainingConfig

STEPS = 3
SECTIONS = {
    # Dropout would drop alike on both devices.
    "model": ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, dropout=0.0),
    "training": TrainingConfig(steps=STEPS, global_batch_size=4, optimizer="sgd", log_every=1, eval_every=STEPS),
    "augment": AugmentConfig(crop=32),
    "input": InputConfig(),
    "preprocess": PreprocessConfig(),
    "label_map": LabelMap(classes=(ClassLabel(name="dark"), ClassLabel(name="bright"))),
    "tuning": TuningConfig(trials=2, steps=STEPS, space={"training.learning_rate": {"choices": [0.02, 0.1]}}),
}


def bytes_feature(pixels: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(pixels).numpy()]))


def write_split(path: Path) -> str:
    """Five images of a bright disk on dark ground, as Transform writes them."""
    random = np.random.default_rng(0)
    statistics = {
        CHANNEL_MEAN: tf.train.Feature(float_list=tf.train.FloatList(value=[90.0] * 3)),
        CHANNEL_VARIANCE: tf.train.Feature(float_list=tf.train.FloatList(value=[3000.0] * 3)),
        CLASS_PIXELS: tf.train.Feature(int64_list=tf.train.Int64List(value=[3, 1])),
    }
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for size in (32, 36, 40, 44, 48):
            rows, columns = np.mgrid[:size, :size]
            mask = (np.hypot(rows - size / 2, columns - size / 3) < size / 3).astype(np.uint8)[:, :, None]
            pixels = np.clip(60 + 110 * mask + random.normal(0, 20, (size, size, 3)), 0, 255).astype(np.uint8)
            features = {IMAGE: bytes_feature(pixels), MASK: bytes_feature(mask), **statistics}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return str(path)


def search(strategy: str, records: str, folder: Path) -> list[dict[str, Any]]:
    """Runs the search as TFX's executor does; values and score of each trial, in order."""
    config = TunerConfig(**SECTIONS, checkpoints=str(folder / "checkpoints"))
    custom = config.with_values({"training.strategy": strategy}).model_dump(mode="json")
    tuner = tuner_fn(
        FnArgs(working_dir=str(folder / "tmp"), train_files=[records], eval_files=[records], custom_config=custom)
    ).tuner
    tuner.search()
    tuner.copy_curves(str(folder / "curves"))
    return [{"values": trial.hyperparameters.values, "mean_iou": trial.score} for trial in tuner.oracle.trials.values()]


def main(folder: Path) -> None:
    """Runs both searches."""
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    records = write_split(folder / "records.gz")
    trials = {name: search(name, records, folder / name) for name in ("one_device", "mirrored")}
    (folder / "trials.json").write_text(json.dumps(trials))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
