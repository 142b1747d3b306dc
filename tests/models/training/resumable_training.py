"""A tiny deterministic training as a process of its own, to be killed: `python resumable_training.py RECORDS FOLDER`.

Writes the number of each step to standard output once the step is done.
"""

import sys

import keras

from data.config import AugmentConfig, InputConfig, ProgressiveResizingConfig
from models.config import TrainingConfig
from models.training.loop import TrainingData, prepare, train
from models.training.validation import Evaluation

CONFIG = TrainingConfig(
    steps=16,
    global_batch_size=3,
    learning_rate=0.01,
    warmup_steps=4,
    weight_decay=0.1,
    clip_norm=1.0,
    ema_decay=0.9,
    class_balance="log",
    deterministic=True,
    seed=3,
    log_every=1,
    eval_every=6,
    checkpoint_every=4,
)


class Steps:
    """Writes each step that is done."""

    def write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def begin(self, step: int, steps: int) -> None:
        self.write(f"begin {step}")

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        self.write(f"step {step}")

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        pass


def main(records: str, folder: str) -> None:
    """Trains in `folder`, from its checkpoint if there is one."""
    prepare(CONFIG)
    model = keras.Sequential(
        [
            keras.layers.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 128, -1),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.Dropout(0.3),
            keras.layers.Conv2D(2, 1),
        ]
    )
    train(
        model,
        CONFIG,
        TrainingData([records], [records], ["dark", "bright"], [10, 5], [100.0, 100.0, 100.0]),
        augmentation=AugmentConfig(
            crop=24, brightness=0.1, hue=0.1, progressive_resizing=ProgressiveResizingConfig(after=0.5, crop=(32, 28))
        ),
        inputs=InputConfig(),
        checkpoint_dir=f"{folder}/checkpoints",
        log_dir=f"{folder}/log",
        progress=Steps(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
