"""Checkpoints that survive a kill at any moment."""

import logging
import os
import re
from collections.abc import Sequence

import tensorflow as tf

from data.errors import TrainingError

log = logging.getLogger(__name__)


class Checkpoints:
    """The newest values of some variables, by step, in a folder.

    `tf.train.CheckpointManager` writes each under a temporary name and renames it, so that a write that is killed
    leaves the former checkpoints intact.

    Args:
        folder: local folder or gs:// URI; created if absent.
        variables: variables that are saved; the same ones in the same order at each run.
        keep: number of checkpoints that are kept.
        writes: whether `save` does anything: of the workers that train together and share the folder, only one writes.
    """

    def __init__(self, folder: str, variables: Sequence[tf.Variable], keep: int = 2, *, writes: bool = True) -> None:
        self._folder = folder
        self._variables = list(variables)
        self._writes = writes
        checkpoint = tf.train.Checkpoint(variables=self._variables)
        self._manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=keep, checkpoint_name="step")

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, newest first."""
        names = tf.io.gfile.glob(os.path.join(self._folder, "step-*.index"))
        return sorted((int(re.findall(r"step-(\d+)\.index$", name)[0]) for name in names), reverse=True)

    def path(self, step: int) -> str:
        """The path of a step's checkpoint: the prefix of its files."""
        return os.path.join(self._folder, f"step-{step}")

    def save(self, step: int) -> None:
        """Saves the variables as they are after `step` steps."""
        if self._writes:
            self._manager.save(checkpoint_number=step)

    def restore(self, step: int) -> None:
        """Sets the variables to their values after `step` steps: all of them or, on an error, none.

        Raises:
            TrainingError: the checkpoint is absent, damaged or belongs to another model.
        """
        try:
            values = self._read(step)
        except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
            raise TrainingError(f"checkpoint {self.path(step)} cannot be read: {error}") from error
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def restore_newest(self) -> int:
        """Restores the newest checkpoint that can be read and returns its step; 0 where there is none."""
        for step in self.steps:
            try:
                self.restore(step)
            except TrainingError as error:
                log.warning("%s; falling back to the one before", error)
            else:
                return step
        return 0

    def _read(self, step: int) -> list:
        reader = tf.train.load_checkpoint(self.path(step))
        values = [
            reader.get_tensor(f"variables/{index}/.ATTRIBUTES/VARIABLE_VALUE") for index in range(len(self._variables))
        ]
        for variable, value in zip(self._variables, values, strict=True):
            if variable.dtype != tf.string and variable.shape != value.shape:
                raise ValueError(f"it holds {value.shape} for {variable.name}, which has shape {variable.shape}")
        return values
