"""Whether the input pipeline starves the training step: images/s of the input alone, and idle share in training.

Usage: PYTHONPATH=. python benchmarks/input.py [DATASET]   (default: the sample dataset, written to a temporary folder)
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from training_images import training_images

from data.config import AugmentConfig, InputConfig
from data.features import IMAGE, MASK
from data.input import training_batches
from data.synthetic import write_dataset
from models.config import ModelConfig, TrainingConfig
from models.network.deeplab import build_model
from models.training.step import TrainStep

IMAGES, BATCH, CROP = 160, 16, 192
WARMUP, BATCHES, STEPS, ROUNDS = 3, 20, 12, 3
JITTER = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2}


def write_records(folder: str, path: str) -> int:
    """Writes the first training images of a dataset as transformed records; returns the number of classes."""
    labelled, classes = training_images(folder, IMAGES)
    with tf.io.TFRecordWriter(path) as writer:
        for example in labelled:
            values = {IMAGE: example.encoded, MASK: tf.io.encode_png(example.mask[:, :, None]).numpy()}
            features = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return classes


def batches(path: str, config: InputConfig, jitter: bool) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The batches that the Trainer reads."""
    augmentation = AugmentConfig.model_validate({"crop": CROP, **(JITTER if jitter else {})})
    dataset = training_batches(
        [path], config, augmentation, batch_size=BATCH, channel_mean=(127.5, 127.5, 127.5), seed=0
    )
    iterator = iter(dataset)
    for _ in range(WARMUP):
        next(iterator)
    return iterator


def alone(path: str, config: InputConfig, jitter: bool) -> float:
    """Images/s of the input when nothing else runs."""
    iterator = batches(path, config, jitter)
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(iterator)
    return BATCH * BATCHES / (time.perf_counter() - started)


def in_training(path: str, config: InputConfig, classes: int) -> tuple[float, float]:
    """Images/s of training, and the fraction of its time in which the step waited for a batch."""
    model = build_model(ModelConfig(width=0.75, aspp_channels=128, decoder_channels=128), classes)
    train_step = TrainStep(model, TrainingConfig(global_batch_size=BATCH), np.ones(classes, np.float32))
    iterator = batches(path, config, jitter=True)
    train_step.run(*next(iterator))[0].numpy()
    waited, started = 0.0, time.perf_counter()
    for _ in range(STEPS):
        asked = time.perf_counter()
        batch = next(iterator)
        waited += time.perf_counter() - asked
        train_step.run(*batch)[0].numpy()
    elapsed = time.perf_counter() - started
    return BATCH * STEPS / elapsed, waited / elapsed


def main() -> None:
    """Prints both tables."""
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = sys.argv[1] if len(sys.argv) > 1 else str(write_dataset(Path(temporary, "sample")))
        path = str(Path(temporary, "train.tfrecord"))
        classes = write_records(folder, path)
        settings = {
            "in memory": InputConfig(),
            "from disk": InputConfig(cache_bytes=0),
            "from disk, prefetch 8": InputConfig(cache_bytes=0, prefetch=8),
        }
        table = Table("records", "alone, images/s", "with colour jitter", title=f"{CROP}x{CROP}, batch {BATCH}")
        for name, config in settings.items():
            rates = [statistics.median(alone(path, config, jitter) for _ in range(ROUNDS)) for jitter in (False, True)]
            table.add_row(name, *(f"{rate:.0f}" for rate in rates))
        console.print(table)
        table = Table("records", "training, images/s", "step waits", title="MobileNetV2 x0.75, output stride 16")
        for name, config in settings.items():
            rate, waiting = in_training(path, config, classes)
            table.add_row(name, f"{rate:.1f}", f"{waiting:.1%}")
        console.print(table)


if __name__ == "__main__":
    main()
