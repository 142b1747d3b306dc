"""The configuration of a training, as far as a test looks at it."""

from typing import Any

from components.training.trainer import TrainerConfig
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.labels import ClassLabel, LabelMap
from models.config import ModelConfig


def trainer_config(training: Any, checkpoints: str = "", **sections: Any) -> TrainerConfig:
    """The defaults for two classes, but for what is given."""
    return TrainerConfig(
        model=ModelConfig(),
        training=training,
        augment=AugmentConfig(),
        input=InputConfig(),
        preprocess=PreprocessConfig(),
        label_map=LabelMap(classes=(ClassLabel(name="sky"), ClassLabel(name="road"))),
        checkpoints=checkpoints,
        **sections,
    )
