"""A tiny deterministic training as a process of its own, which can kill itself.

    python resumable_training.py RECORDS FOLDER [OPTIONS]

OPTIONS is JSON: `killed_before_saving` is a step at which the process kills itself, once it is computed and, where an
evaluation is due, evaluated, and before its state is saved; `mean_iou` gives steps the score that their evaluation has.
Prints the number of each step once the step is computed. The final weights are written to FOLDER/weights.npz.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from data.config import AugmentConfig, InputConfig, ProgressiveResizingConfig
from models.config import TrainingConfig
from models.training import loop
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
    """Prints each step, and kills the process at one of them."""

    def __init__(self, killed_before_saving: int) -> None:
        self._last = killed_before_saving

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def begin(self, step: int, steps: int) -> None:
        self._write(f"begin {step}")

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        self._write(f"step {step}")
        if step % CONFIG.eval_every and step != CONFIG.steps:
            self._end_at(step)

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        self._end_at(evaluation.step)

    def _end_at(self, step: int) -> None:
        if step == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def main(records: str, folder: str, options: str = "{}") -> None:
    """Trains in `folder`, from its checkpoint if there is one."""
    wanted = json.loads(options)
    if "mean_iou" in wanted:
        scores = {int(step): score for step, score in wanted["mean_iou"].items()}
        loop.validation_result = lambda _, step: Evaluation(step=step, mean_iou=scores[step], iou=(scores[step],) * 2)
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
        progress=Steps(wanted.get("killed_before_saving", 0)),
    )
    np.savez(Path(folder, "weights.npz"), *model.get_weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
