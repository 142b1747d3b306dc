"""A tiny training on several replicas: `python distributed_training.py STRATEGY PROCESSORS RECORDS FOLDER...`.

Writes the number of each step to standard output once the step is done, and in the end the model's weights, and its
validation score, to FOLDER/weights<worker>.npz. With more folders it trains again in each, as a search does.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.config import AugmentConfig, InputConfig
from models.config import TrainingConfig
from models.network.kernels import BatchNormalization
from models.training.loop import TrainingData, TrainingResult, prepare, train
from models.training.validation import Evaluation

STEPS = 8
#: One void image more or less must not matter, nor how many labelled pixels a replica has.
OPTIONS = {
    "steps": STEPS,
    "global_batch_size": 4,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "ema_decay": 0.5,
    "class_balance": "log",
    "loss": {"dice": 0.0},
    "log_every": 1,
    "eval_every": STEPS,
    "checkpoint_every": 3,
}


class Steps:
    """Writes each step that is done."""

    def write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def begin(self, step: int, steps: int) -> None:
        self.write(f"begin {step}")

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        self.write(f"step {step} loss {loss:.6f}")

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        pass


def network() -> keras.Model:
    """A convolution, batch normalisation and a classifier of two classes."""
    return keras.Sequential(
        [
            keras.layers.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 128, -1),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Conv2D(2, 1),
        ]
    )


def fit(strategy: str, records: str, folder: str) -> tuple[keras.Model, TrainingResult, int]:
    """Trains in `folder`, from its checkpoint if there is one; the model, the result, and which worker this is."""
    config = TrainingConfig.model_validate({**OPTIONS, "strategy": strategy})
    distribution = prepare(config)
    with distribution.scope():
        model = network()
    result = train(
        model,
        config,
        TrainingData([records], [records], ["dark", "bright"], [10, 5], [100.0, 100.0, 100.0]),
        augmentation=AugmentConfig(crop=24, scale_min=0.8, scale_max=1.25),
        inputs=InputConfig(),
        checkpoint_dir=f"{folder}/checkpoints",
        log_dir=f"{folder}/log",
        progress=Steps(),
        distribution=distribution,
    )
    return model, result, distribution.worker


def main(strategy: str, processors: str, records: str, *folders: str) -> None:
    """Trains, and writes down what came of it."""
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * int(processors))
    for folder in folders:
        model, result, worker = fit(strategy, records, folder)
        np.savez(Path(folder, f"weights{worker}"), *model.get_weights(), score=[result.history[-1].mean_iou])
        keras.backend.clear_session()


if __name__ == "__main__":
    main(*sys.argv[1:])
