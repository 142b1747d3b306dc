"""The configuration sections of network and training.

They stand apart from the code that uses them so that a command line can check a configuration without importing
TensorFlow.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from data.section import Section
from models.balance import Balance

#: Least and greatest width multiplier of each backbone.
WIDTHS = {"mobilenet_v2": (0.35, 1.4), "resnet50": (1.0, 1.0)}


class ModelConfig(Section):
    """The network."""

    backbone: Literal["mobilenet_v2", "resnet50"] = "mobilenet_v2"
    """Feature extractor."""
    width: float = 1.0
    """Multiplies the channels of the backbone: 0.35 to 1.4 for mobilenet_v2, 1.0 for resnet50."""
    output_stride: Literal[8, 16, 32] = 16
    """Ratio of the image's resolution to that of the last features. The same weights serve at each of them."""
    aspp_channels: int = Field(default=256, ge=8)
    """Channels of each branch of ASPP and of their fusion."""
    decoder_channels: int = Field(default=256, ge=8)
    """Channels of the two 3x3 convolutions of the decoder."""
    low_level_channels: int = Field(default=48, ge=1)
    """Channels to which the features at stride 4 are reduced (table 1 of the paper)."""
    separable: bool = True
    """Whether the 3x3 convolutions of ASPP and decoder are depthwise separable: about a seventh of the work."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Fraction of the fused ASPP features that are dropped in training."""
    normalization: Literal["dataset", "backbone"] = "dataset"
    """What the network does to pixels first: the dataset's mean and variance, or what published weights expect."""
    batch_norm_momentum: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Of the moving averages. The paper's 0.9997 needs tens of thousands of steps."""
    batch_norm_epsilon: float | None = Field(default=None, gt=0.0)
    """None takes the published values: 1e-3 (mobilenet_v2), 1.001e-5 (resnet50), 1e-5 in ASPP and decoder."""

    @model_validator(mode="after")
    def _width_exists(self) -> Self:
        least, greatest = WIDTHS[self.backbone]
        if not least <= self.width <= greatest:
            allowed = f"{least}" if least == greatest else f"{least} to {greatest}"
            raise ValueError(f"width {self.width} does not exist for backbone {self.backbone!r}; allowed: {allowed}")
        return self


class OptimizerConfig(Section):
    """How the weights are updated."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """SGD with momentum is the paper's; AdamW needs fewer steps from random weights."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The rate that the poly schedule starts from."""
    power: float = Field(default=0.9, ge=0)
    """Exponent of the poly schedule."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps during which the rate grows linearly from 0."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(default=4e-5, ge=0)
    """For SGD as in the paper's code: weight_decay / 2 * |w|^2 is added to the loss. For AdamW decoupled: each step
    takes the fraction learning rate * weight_decay off the weights. Kernels of convolutions decay; depthwise ones,
    biases and batch normalisation do not."""
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest global norm of the gradient; 0 is no limit."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which is then what is evaluated and exported; 0 is off."""


class TrainingConfig(OptimizerConfig):
    """How long, on what and how exactly the network is trained."""

    steps: int = Field(default=30_000, ge=1)
    """Updates of the weights."""
    batch_size: int = Field(default=16, ge=1)
    """Pictures in a step."""
    class_balance: Balance = "none"
    """How rare classes gain weight in the loss: "none", "log" or "median"."""
    class_balance_strength: float = Field(default=1.0, ge=0, le=1)
    """Exponent of these weights: 1 is the published formula, 0.5 its square root, 0 no effect."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of the computation; weights and logits are float32 in any case."""
    deterministic: bool = False
    """Whether a run and its repetition are equal, bit for bit, also when one was killed and resumed. Slower."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of initial weights, order, augmentation and dropout."""
    log_every: int = Field(default=20, ge=1)
    """Steps between updates of the progress and the curves."""
    eval_every: int = Field(default=500, ge=1)
    """Steps between evaluations on the validation split."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints. Each evaluation makes one, too."""
    patience: int = Field(default=0, ge=0)
    """Evaluations in a row without a new best after which training stops; 0 never stops early."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> "TrainingConfig":
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is larger than steps {self.steps}")
        return self
