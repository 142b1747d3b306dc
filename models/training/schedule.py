"""The learning rate over the steps of a training."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("deeplab")
class PolySchedule(keras.optimizers.schedules.LearningRateSchedule):
    """`peak * (1 - step / steps) ** power` ("poly", arXiv 1706.05587, section 4.1), times a linear warm-up.

    The warm-up multiplies the rate of step k (from 0) by `min(1, (k + 1) / warmup_steps)`.

    Args:
        peak: learning rate that the decay starts from.
        steps: number of steps of the whole training; the rate is 0 from there on.
        power: exponent of the decay.
        warmup_steps: steps until the warm-up is over; 0 for none.
    """

    def __init__(self, peak: float, steps: int, power: float = 0.9, warmup_steps: int = 0) -> None:
        super().__init__()
        self._arguments = {"peak": peak, "steps": steps, "power": power, "warmup_steps": warmup_steps}

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        remaining = ops.maximum(1.0 - step / self._arguments["steps"], 0.0)
        warmup = ops.minimum((step + 1.0) / max(self._arguments["warmup_steps"], 1), 1.0)
        return self._arguments["peak"] * warmup * remaining ** self._arguments["power"]

    def get_config(self) -> dict[str, Any]:
        return dict(self._arguments)
