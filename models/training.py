"""The training loop: resumes where it was killed, stops early, keeps the best weights."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import keras
import numpy as np
import tensorflow as tf

from data.config import AugmentConfig, InputConfig
from data.errors import TrainingError
from data.input import evaluation_examples, training_batches
from data.section import Section
from models.balance import class_weights
from models.checkpoints import Checkpoints
from models.config import TrainingConfig
from models.evaluation import Evaluation, evaluate, predictor
from models.learner import Learner
from models.monitor import Progress, Silent, TensorBoard

PICTURES = 4


@dataclass(frozen=True)
class TrainingData:
    """The records to train on, and what is known of them."""

    train_files: Sequence[str]
    """TFRecord files of the training split."""
    val_files: Sequence[str]
    """TFRecord files of the validation split; may be empty."""
    label_names: Sequence[str]
    """Of the classes, in the order of their ids."""
    class_pixels: Sequence[int]
    """Number of pixels of each class in the training split."""
    channel_mean: Sequence[float]
    """Mean of the R, G and B of the training split, in [0, 255]."""


class TrainingResult(Section):
    """What a training came to."""

    steps: int = 0
    """Steps done."""
    history: tuple[Evaluation, ...] = ()
    """All evaluations, in order, those before an interruption included."""

    @property
    def best(self) -> Evaluation | None:
        """The first evaluation with the highest mean IoU; None without a validation split."""
        return max(self.history, key=lambda evaluation: evaluation.mean_iou, default=None)

    @property
    def since_best(self) -> int:
        """Number of evaluations after the best one."""
        return len(self.history) - 1 - self.history.index(self.best) if self.best else 0


def prepare(config: TrainingConfig) -> None:
    """Sets the process up for a training: seeds, precision, determinism. To be called before the model is built."""
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def train(
    model: keras.Model,
    config: TrainingConfig,
    data: TrainingData,
    *,
    augmentation: AugmentConfig,
    inputs: InputConfig,
    checkpoint_dir: str,
    log_dir: str,
    progress: Progress | None = None,
) -> TrainingResult:
    """Trains the model, from the newest checkpoint on if there is one.

    Args:
        model: a built model, made after `prepare`. In the end it holds the weights of the best evaluation, or the last
            ones where there is no validation split; with `ema_decay` the averaged ones in both cases.
        config: how it is trained.
        data: the records.
        augmentation: crop and variation of the training pictures.
        inputs: memory and buffers of the input.
        checkpoint_dir: kept between runs; one folder for each combination of code, data and configuration.
        log_dir: where TensorBoard looks.
        progress: is told how far the training is.

    Raises:
        DataError: a split without a record.
        TrainingError: the loss is not finite, or no checkpoint of the best weights can be read.
    """
    run = _Run(model, config, data, checkpoint_dir, log_dir, progress or Silent())
    start = run.resume()
    batches = training_batches(
        data.train_files,
        inputs,
        augmentation,
        batch_size=config.global_batch_size,
        channel_mean=data.channel_mean,
        seed=config.seed,
        start_step=start,
    )
    return run.run(batches)


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: keras.Model,
        config: TrainingConfig,
        data: TrainingData,
        checkpoint_dir: str,
        log_dir: str,
        progress: Progress,
    ) -> None:
        self._config = config
        self._progress = progress
        self._board = TensorBoard(log_dir, data.label_names)
        weights = class_weights(data.class_pixels, config.class_balance, config.class_balance_strength)
        self._learner = Learner(model, config, config.steps, weights)
        self._examples = evaluation_examples(data.val_files) if data.val_files else None
        self._num_classes = len(data.label_names)
        self._predict = predictor(model)
        self._result = TrainingResult()
        # Travels in the checkpoints as JSON, so that a resumed run knows the best evaluation and its patience.
        self._record = tf.Variable("", dtype=tf.string)
        self._states = Checkpoints(os.path.join(checkpoint_dir, "state"), [*self._learner.variables, self._record])
        self._best = Checkpoints(os.path.join(checkpoint_dir, "best"), self._learner.weights)
        self._pending: list[tuple[tf.Tensor, tf.Tensor]] = []
        self._clock = 0.0

    def resume(self) -> int:
        """Goes back to the newest checkpoint that can be read, if there is one; the steps done by then."""
        if self._states.restore_newest():
            self._result = TrainingResult.model_validate_json(self._record.numpy())
        self._progress.begin(self._result.steps, self._config.steps)
        return self._result.steps

    def run(self, batches: tf.data.Dataset) -> TrainingResult:
        """Steps until the last one, or until nothing has become better for long; then takes the best weights."""
        self._clock = time.perf_counter()
        remaining = 0 if self._is_exhausted() else self._config.steps - self._result.steps
        for images, masks in islice(batches, remaining):
            self._pending.append(self._learner.step(images, masks))
            self._result = self._result.model_copy(update={"steps": self._result.steps + 1})
            self._after_step()
            if self._is_exhausted():
                break
        if self._result.best:
            self._best.restore(self._result.best.step)
        else:
            self._learner.keep_average()
        return self._result

    def _after_step(self) -> None:
        examples = self._examples if self._is_due(self._config.eval_every) else None
        saves = examples is not None or self._is_due(self._config.checkpoint_every)
        if saves or self._is_due(self._config.log_every):
            # Before anything is saved, so that no checkpoint holds weights that are not finite.
            self._log()
        if examples is not None:
            self._evaluate(examples)
        if saves:
            self._record.assign(self._result.model_dump_json())
            self._states.save(self._result.steps)
            # Neither evaluation nor checkpoint counts in the images per second.
            self._clock = time.perf_counter()

    def _is_due(self, every: int) -> bool:
        return self._result.steps % every == 0 or self._result.steps == self._config.steps

    def _is_exhausted(self) -> bool:
        return 0 < self._config.patience <= self._result.since_best

    def _log(self) -> None:
        """Fetches what the steps since the last time gave; only here the loop waits for the device."""
        losses, norms = np.asarray([[float(value) for value in step] for step in self._pending]).T
        elapsed = time.perf_counter() - self._clock
        first = self._result.steps - len(losses) + 1
        for step, loss, norm in zip(range(first, first + len(losses)), losses, norms, strict=True):
            if not np.isfinite([loss, norm]).all():
                raise self._diverged(step, loss, norm)
        scalars = {
            "loss": float(losses.mean()),
            "gradient_norm": float(norms.mean()),
            "learning_rate": self._learner.learning_rate(self._result.steps - 1),
            "images_per_second": len(losses) * self._config.global_batch_size / elapsed,
        }
        self._board.write_step(self._result.steps, scalars)
        self._progress.update(self._result.steps, scalars["loss"], scalars["images_per_second"])
        self._pending.clear()
        self._clock = time.perf_counter()

    def _evaluate(self, examples: tf.data.Dataset) -> None:
        """Evaluates the weights, averaged ones if there are such, and keeps them if they are the best so far."""
        step = self._result.steps
        with self._learner.averaged():
            evaluation = evaluate(self._predict, examples, self._num_classes, step)
            self._result = self._result.model_copy(update={"history": (*self._result.history, evaluation)})
            is_best = self._result.best is evaluation
            if is_best:
                self._best.save(step)
                self._write_predictions(examples, step)
        self._board.write_evaluation(evaluation)
        self._progress.evaluated(evaluation, is_best)

    def _write_predictions(self, examples: tf.data.Dataset, step: int) -> None:
        for number, (image, mask) in enumerate(examples.take(PICTURES)):
            self._board.write_prediction(step, number, image.numpy(), mask.numpy(), self._predict(image).numpy())

    def _diverged(self, step: int, loss: float, norm: float) -> TrainingError:
        saved = self._states.steps
        good = f"The last good checkpoint is {self._states.path(saved[0])}." if saved else "There is no checkpoint yet."
        return TrainingError(
            f"training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}, learning rate "
            f"{self._learner.learning_rate(step - 1):g}. {good} Lower learning_rate, lengthen warmup_steps, set "
            "clip_norm (5 is mild, 1 is strict) or train with precision float32."
        )
