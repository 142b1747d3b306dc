"""The training loop: resumes from the last checkpoint, stops early, keeps the best weights."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import keras
import numpy as np
import tensorflow as tf

from data.config import AugmentConfig, InputConfig
from data.errors import TrainingError
from data.input import evaluation_examples, training_batches
from data.section import Section
from models.config import TrainingConfig
from models.network.deeplab import DeepLabV3Plus
from models.training.checkpoints import Checkpoints
from models.training.class_weights import class_weights
from models.training.progress import NoProgress, Progress
from models.training.step import StepResult, TrainStep
from models.training.strategies import Distribution, distribute
from models.training.tensorboard import Profiler, TensorBoard
from models.training.validation import Evaluation, count, predictor, validation_result

Batch = tuple[tf.Tensor, tf.Tensor]
"""Images and masks, as `training_batches` gives them."""


@dataclass(frozen=True)
class TrainingData:
    """The records to train on, and their statistics."""

    train_files: Sequence[str]
    """TFRecord files of the training split."""
    val_files: Sequence[str]
    """TFRecord files of the validation split; may be empty."""
    label_names: Sequence[str]
    """Class names, in the order of the class ids."""
    class_pixels: Sequence[int]
    """Number of pixels of each class in the training split."""
    channel_mean: Sequence[float]
    """Mean of the R, G and B of the training split, in [0, 255]."""


class TrainingResult(Section):
    """The result of a training."""

    steps: int = 0
    """Steps done."""
    history: tuple[Evaluation, ...] = ()
    """All evaluations, in order, including those before an interruption."""

    @property
    def best(self) -> Evaluation | None:
        """The first evaluation with the highest mean IoU; None without a validation split."""
        return max(self.history, key=lambda evaluation: evaluation.mean_iou, default=None)

    @property
    def since_best(self) -> int:
        """Number of evaluations after the best one."""
        return len(self.history) - 1 - self.history.index(self.best) if self.best else 0


def prepare(config: TrainingConfig) -> Distribution:
    """Sets the process up for a training: replicas, seeds, precision, determinism.

    Call it before the model is built, and build the model in the scope of the distribution.

    Raises:
        ConfigError, TrainingError: the replicas are not available.
    """
    distribution = distribute(config.strategy)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return distribution


def train(
    model: keras.Model,
    config: TrainingConfig,
    data: TrainingData,
    *,
    augmentation: AugmentConfig,
    inputs: InputConfig,
    checkpoint_dir: str,
    log_dir: str,
    initialize: Callable[[], object] | None = None,
    progress: Progress | None = None,
    distribution: Distribution | None = None,
) -> TrainingResult:
    """Trains a model in place: it ends with the weights of the best evaluation.

    Without a validation split it ends with the last weights, averaged if `config.ema_decay` is set. If
    `checkpoint_dir` holds a checkpoint of this training, training resumes from it.

    Several workers train as one: start all of them with the same arguments. When one has ended early the others end,
    too; started again, all of them resume from the last checkpoint.

    Args:
        model: the model, as `TrainStep` takes it.
        config: how to train.
        data: the records.
        augmentation: crop and augmentation of the training images.
        inputs: memory and buffers.
        checkpoint_dir: folder of this training's checkpoints, which hold the best weights, too; one for all workers.
        log_dir: folder of the curves.
        initialize: sets the weights that the training starts from; not called where training resumes.
        progress: receives the progress, on the chief.
        distribution: the replicas, as `prepare` returns them; None is one device.

    Raises:
        ConfigError: the replicas cannot train this configuration.
        DataError: a split has no record.
        TrainingError: loss or gradient is not finite, no checkpoint can be read, or another worker has ended.
    """
    distribution = distribution or distribute("one_device")
    run = _Run(model, config, data, checkpoint_dir, log_dir, progress or NoProgress(), distribution)
    start = run.resume()
    if not start and initialize:
        initialize()
        run.begin_with_current_weights()
    network = {"model": model.config} if isinstance(model, DeepLabV3Plus) else {}
    run.describe({**network, "training": config, "augment": augmentation, "input": inputs})

    def batches(start: int, augmentation: AugmentConfig, context: tf.distribute.InputContext) -> tf.data.Dataset:
        return training_batches(
            data.train_files,
            inputs,
            augmentation,
            batch_size=config.global_batch_size,
            channel_mean=data.channel_mean,
            seed=config.seed,
            start_step=start,
            context=context,
        )

    def staged() -> Iterator[Batch]:
        for begin, end, stage in augmentation.stages(start, config.steps):
            make = partial(batches, begin, stage)
            # No name holds the dataset, so that its images leave the memory before the next stage reads its own.
            yield from islice(distribution.strategy.distribute_datasets_from_function(make), end - begin)

    return run.run(staged())


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
        distribution: Distribution,
    ) -> None:
        self._config = config
        self._distribution = distribution
        writes = distribution.is_chief
        self._progress = progress if writes else NoProgress()
        self._board = TensorBoard(log_dir, data.label_names) if writes else None
        self._profiler = Profiler(log_dir, config.profile_step if writes else 0)
        weights = class_weights(data.class_pixels, config.class_balance, config.class_balance_strength)
        self._train_step = TrainStep(model, config, weights, distribution)
        self._examples = evaluation_examples(data.val_files) if data.val_files else None
        self._num_classes = len(data.label_names)
        self._predict = predictor(model)
        self._result = TrainingResult()
        # Travels in the checkpoints as JSON, so that a resumed run knows the best evaluation and its patience.
        self._record = tf.Variable("", dtype=tf.string)
        # So do the weights of that evaluation: in a checkpoint of their own they could be newer than the state to which
        # a killed training returns, and those that it knows as the best be gone. They are kept in the host's memory.
        with tf.device("CPU:0"):
            self._best = [tf.Variable(weight) for weight in self._train_step.weights] if data.val_files else []
        state = [*self._train_step.variables, *self._best, self._record]
        self._states = Checkpoints(os.path.join(checkpoint_dir, "state"), state, writes=writes)
        self._pending: list[StepResult] = []
        self._clock = 0.0

    def resume(self) -> int:
        """Restores the newest checkpoint that can be read, if there is one, and returns its step."""
        if self._states.restore_newest():
            self._result = TrainingResult.model_validate_json(self._record.numpy())
        steps = self._result.steps
        distribution = self._distribution
        found = distribution.sum_over_workers(np.eye(distribution.workers, dtype=np.int64)[distribution.worker] * steps)
        if set(found.tolist()) != {steps}:
            raise TrainingError(
                f"the workers would resume after the steps {', '.join(map(str, found))}: the folder of "
                f"{self._states.path(steps)} must be one and the same for all of them"
            )
        self._progress.begin(steps, self._config.steps)
        return steps

    def begin_with_current_weights(self) -> None:
        """Starts from the model's weights, which were set from outside."""
        self._train_step.restart_average()

    def describe(self, sections: Mapping[str, Section]) -> None:
        """Logs the configuration of this training."""
        if self._board:
            self._board.write_hparams(sections)

    def run(self, batches: Iterable[Batch]) -> TrainingResult:
        """Trains until the last step or until patience is exhausted; then restores the best weights."""
        try:
            self._steps(batches)
            self._distribution.wait()
        except tf.errors.OpError as error:
            if self._distribution.workers == 1:
                raise
            raise TrainingError(
                f"worker {self._distribution.worker} lost the others after step {self._result.steps}: one has ended or "
                f"cannot be reached ({type(error).__name__}). Start all workers again: they resume from the last "
                "checkpoint"
            ) from error
        if self._result.best:
            for weight, best in zip(self._train_step.weights, self._best, strict=True):
                weight.assign(best)
        else:
            self._train_step.keep_average()
        if self._board and self._result.best:
            self._board.write_result(self._result.steps, self._result.best.mean_iou)
        return self._result

    def _steps(self, batches: Iterable[Batch]) -> None:
        self._clock = time.perf_counter()
        remaining = 0 if self._is_exhausted() else self._config.steps - self._result.steps
        with self._profiler:
            for images, masks in islice(batches, remaining):
                step = self._result.steps + 1
                with self._profiler.step(step):
                    self._pending.append(self._train_step.run(images, masks))
                self._result = self._result.model_copy(update={"steps": step})
                self._after_step()
                if self._is_exhausted():
                    break

    def _after_step(self) -> None:
        examples = self._examples if self._is_due(self._config.eval_every) else None
        saves = examples is not None or self._is_due(self._config.checkpoint_every)
        if saves or self._is_due(self._config.log_every):
            # Before anything is saved, so that no checkpoint holds weights that are not finite.
            self._log(saves)
        if examples is not None:
            self._evaluate(examples)
        if saves:
            self._record.assign(self._result.model_dump_json())
            self._states.save(self._result.steps)
            # The time of evaluations and checkpoints does not count in the images per second.
            self._clock = time.perf_counter()

    def _is_due(self, every: int) -> bool:
        return self._result.steps % every == 0 or self._result.steps == self._config.steps

    def _is_exhausted(self) -> bool:
        return 0 < self._config.patience <= self._result.since_best

    def _log(self, saves: bool) -> None:
        """Fetches and logs the results of the steps since the last call; only here the loop waits for the device."""
        losses, norms, diverged = np.asarray([[float(value) for value in result] for result in self._pending]).T
        if saves and not self._train_step.is_finite():
            diverged[-1] = True
        elapsed = time.perf_counter() - self._clock
        step = self._result.steps
        if diverged.any():
            first = int(diverged.argmax())
            raise self._diverged(step - len(losses) + 1 + first, losses[first], norms[first])
        # Steps whose gradients overflowed in float16 were skipped.
        norms = norms[np.isfinite(norms)]
        scalars = {
            "loss": float(losses.mean()),
            **({"gradient_norm": float(norms.mean())} if norms.size else {}),
            **self._train_step.scalars(step - 1),
            "images_per_second": len(losses) * self._config.global_batch_size / elapsed,
        }
        if self._board:
            self._board.write_step(step, scalars)
        self._progress.update(step, scalars["loss"], scalars["images_per_second"])
        self._pending.clear()
        self._clock = time.perf_counter()

    def _evaluate(self, examples: tf.data.Dataset) -> None:
        """Evaluates the weights, or their average if it is kept, and saves them if they are the best so far."""
        step = self._result.steps
        distribution = self._distribution
        with self._train_step.averaged():
            share = examples.shard(distribution.workers, distribution.worker)
            matrix = distribution.sum_over_workers(count(self._predict, share, self._num_classes))
            evaluation = validation_result(matrix, step)
            self._result = self._result.model_copy(update={"history": (*self._result.history, evaluation)})
            is_best = self._result.best is evaluation
            if is_best:
                for best, weight in zip(self._best, self._train_step.weights, strict=True):
                    best.assign(weight)
            if self._board:
                self._board.write_evaluation(evaluation)
                self._board.write_confusion(step, matrix)
                shown = self._config.tensorboard_images if is_best else 0
                for number, (image, mask) in enumerate(examples.take(shown)):
                    predicted = self._predict(image).numpy()
                    self._board.write_prediction(step, number, image.numpy(), mask.numpy(), predicted)
        self._progress.evaluated(evaluation, is_best)

    def _diverged(self, step: int, loss: float, norm: float) -> TrainingError:
        saved = self._states.steps
        good = f"The last good checkpoint is {self._states.path(saved[0])}." if saved else "There is no checkpoint yet."
        return TrainingError(
            f"training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}, learning rate "
            f"{self._train_step.learning_rate(step - 1):g}. {good} Lower learning_rate, lengthen warmup_steps, set "
            "clip_norm (5 is mild, 1 is strict) or train with precision float32."
        )
