"""The configuration sections of network and training.

They are separate from the code that uses them so that a command line can check a configuration without importing
TensorFlow.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from data.config import LARGEST_SCALE
from data.section import LONGEST_SIDE, MOST, MOST_STEPS, Section

BackboneName = Literal[
    "mobilenet_v2",
    "mobilenet_v2_seg",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mobilenet_v3_small_seg",
    "mobilenet_v3_large_seg",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet50_beta",
    "resnet101_beta",
    "xception41",
    "xception65",
    "xception71",
    "convnext_tiny",
]
Head = Literal["v3plus", "v3", "lite", "lraspp"]
LiteVariant = Literal["float32", "float16", "dynamic", "int8"]
HubModule = Literal["segmenter", "feature_extractor"]
ClassBalance = Literal["none", "log", "median"]

#: Most channels of a layer of the heads.
MOST_CHANNELS = 4096

#: Least and greatest width multiplier of the backbones that have one; the others have width 1.
WIDTHS = {
    "mobilenet_v2": (0.35, 1.4),
    "mobilenet_v2_seg": (0.35, 1.4),
    "mobilenet_v3_small": (0.35, 1.4),
    "mobilenet_v3_large": (0.35, 1.4),
    "mobilenet_v3_small_seg": (0.35, 1.4),
    "mobilenet_v3_large_seg": (0.35, 1.4),
    "resnet18": (0.25, 1.0),
    "resnet34": (0.25, 1.0),
}


class ModelConfig(Section):
    """The network."""

    backbone: BackboneName = "mobilenet_v2"
    """Feature extractor. "_beta" is the ResNet of research/deeplab, with three 3x3 convolutions at its root; "_seg" are
    its MobileNets: V2 does not round channels to multiples of 8, V3 has half the channels in the last block."""
    head: Head = "v3plus"
    """"v3plus" has a decoder; "v3" has none; "lite" is v3 without the 3x3 branches of ASPP, as published for
    MobileNetV2; "lraspp" is the head of the MobileNetV3 paper."""
    width: float = 1.0
    """Multiplies the channels of the backbone: 0.35 to 1.4 for the MobileNets, 0.25 to 1.0 for ResNet-18
    and 34, 1.0 for the others."""
    output_stride: Literal[8, 16, 32] = 16
    """Ratio of the image's resolution to that of the last features. The same weights serve at each of them."""
    aspp_channels: int = Field(default=256, ge=8, le=MOST_CHANNELS)
    """Channels of each branch of ASPP and of their fusion."""
    decoder_channels: int = Field(default=256, ge=8, le=MOST_CHANNELS)
    """Channels of the two 3x3 convolutions of the decoder."""
    low_level_channels: int = Field(default=48, ge=1, le=MOST_CHANNELS)
    """Channels to which the features at stride 4 are reduced (table 1 of the paper)."""
    separable: bool = True
    """Whether the 3x3 convolutions of ASPP and decoder are depthwise separable: about a seventh of the work."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Fraction of the fused ASPP features that are dropped in training."""
    resize: Literal["half_pixel", "align_corners"] = "half_pixel"
    """Sampling points of every interpolation inside the network. Weights of research/deeplab want align_corners, and
    images whose sides are a multiple of the output stride plus 1."""
    normalization: Literal["dataset", "backbone"] = "dataset"
    """How the network normalises pixels: by the dataset's mean and variance, or as published weights expect."""
    batch_norm_momentum: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Momentum of the moving averages of batch normalisation. The paper's 0.9997 needs tens of thousands of steps."""
    batch_norm_epsilon: float | None = Field(default=None, gt=0.0, le=1.0)
    """Epsilon of batch normalisation; null takes the published values: 1e-3 (mobilenet_v2), 1.001e-5 (resnet50), 1e-5
    in ASPP and decoder."""

    @model_validator(mode="after")
    def _width_exists(self) -> Self:
        least, greatest = WIDTHS.get(self.backbone, (1.0, 1.0))
        if not least <= self.width <= greatest:
            allowed = f"{least}" if least == greatest else f"{least} to {greatest}"
            raise ValueError(f"width {self.width} does not exist for backbone {self.backbone!r}; allowed: {allowed}")
        return self


class InferenceConfig(Section):
    """How an image becomes a prediction: the same in evaluation, in `predict` and in the exported model."""

    output_stride: Literal[8, 16, 32] | None = None
    """Output stride of the network when it predicts; null keeps that of training. The paper trains at 16 and predicts
    at 8."""
    window: int = Field(default=0, ge=0, le=LONGEST_SIDE)
    """Side in pixels of the square windows that slide over a larger image; 0 predicts every image whole."""
    overlap: float = Field(default=0.25, ge=0, lt=1)
    """Least overlap of neighbouring windows, as a fraction of their side; probabilities are averaged there."""
    scales: tuple[Annotated[float, Field(gt=0, le=LARGEST_SCALE)], ...] = Field(default=(1.0,), min_length=1)
    """Scales at which each image is predicted; the probabilities are averaged."""
    flip: bool = False
    """Whether the mirrored image is predicted too, at each scale."""


class OptimizerConfig(Section):
    """How the weights are updated."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The paper uses SGD with momentum; AdamW needs fewer steps from random weights."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate at which the poly schedule starts."""
    power: float = Field(default=0.9, ge=0)
    """Exponent of the poly schedule."""
    warmup_steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    """Steps over which the learning rate grows linearly from 0."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=4e-5, ge=0)
    """Weight decay. SGD follows the paper's code: the gradient of weight_decay / 2 * |w|^2 is added, after clipping.
    AdamW decays decoupled: each step takes the fraction learning rate * weight_decay off the weights. Kernels of
    convolutions decay; depthwise ones, biases and batch normalisation do not."""
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest global norm of the gradient; 0 sets no limit."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which is evaluated and exported in place of the weights; 0 keeps no
    average."""
    backbone_rate_factor: float = Field(default=1.0, ge=0)
    """Factor of the learning rate for the backbone's weights: below 1 to fine-tune them, 0 to freeze them."""
    batch_norm: Literal["train", "freeze_backbone", "freeze"] = "train"
    """Which batch normalisations keep the statistics and scales that they start with: none, those of the backbone, or
    all. Freeze them with initial weights and fewer than about 12 images in a step."""


class LossConfig(Section):
    """What training minimises: cross-entropy over the labelled pixels, plus other losses."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Probability that the target of a pixel spreads evenly over all classes."""
    ohem_fraction: float = Field(default=1.0, gt=0, le=1)
    """Online hard example mining: the cross-entropy averages this fraction of the labelled pixels, those with the
    largest loss; 1 averages all of them."""
    ohem_ramp_steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    """Steps over which that fraction falls linearly from 1."""
    dice: float = Field(default=0.0, ge=0)
    """Weight of the soft Dice loss that is added."""
    lovasz: float = Field(default=0.0, ge=0)
    """Weight of the Lovasz-softmax loss that is added (arXiv 1705.08790)."""

    former_names: ClassVar[Mapping[str, str]] = {
        "top_k_fraction": "ohem_fraction",
        "top_k_ramp_steps": "ohem_ramp_steps",
    }


class TrainingConfig(OptimizerConfig):
    """How the network is trained."""

    initial_weights: str = "random"
    """"random"; "imagenet" for the backbone's published weights (keras.applications); a .weights.h5 file or SavedModel
    folder; or a TensorFlow Hub handle, as a path or URL. A SavedModel is a program; only its weights are read, and
    nothing of it runs."""
    warm_start: bool = False
    """Whether training starts from the model that is served; without one it starts from `initial_weights`."""
    warm_start_epochs: float = Field(default=0.0, ge=0, le=MOST)
    """Passes over the training images when training starts from the served model: it takes warm_start_epochs * images /
    global_batch_size steps, rounded up, not less than `warm_start_min_steps` nor more than `steps`; 0 takes `steps`."""
    warm_start_min_steps: int = Field(default=1, ge=1, le=MOST_STEPS)
    """Least number of steps that `warm_start_epochs` results in."""
    strategy: Literal["one_device", "mirrored", "multi_worker", "tpu"] = "one_device"
    """How tf.distribute spreads the work: one device, all GPUs of this machine, several machines (TF_CONFIG), a TPU."""
    steps: int = Field(default=30_000, ge=1, le=MOST_STEPS)
    """Number of updates of the weights."""
    global_batch_size: int = Field(default=16, ge=1, le=65_536)
    """Images in one update of the weights, over all replicas and accumulated parts together."""
    accumulation: int = Field(default=1, ge=1, le=65_536)
    """Number of parts in which a replica computes its share of an update, one after the other, to save memory."""
    loss: LossConfig = LossConfig()
    class_balance: ClassBalance = "none"
    """How rare classes gain weight in the loss: not ("none"), by 1 / ln(1.02 + frequency) ("log", ENet), or by the
    inverse frequency relative to the median ("median", SegNet)."""
    class_balance_strength: float = Field(default=1.0, ge=0, le=1)
    """Exponent of the class weights: 1 is the published formula, 0.5 its square root, 0 has no effect."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the computation; weights and logits are float32 in any case. float16 scales the loss dynamically."""
    jit_compile: bool = False
    """Whether XLA compiles the step; on a TPU it always does. On a CPU the compiled step was slower."""
    profile_step: int = Field(default=0, ge=0, le=MOST_STEPS)
    """First of the few steps that the TensorFlow profiler records for TensorBoard; 0 records none."""
    deterministic: bool = False
    """Whether a repeated training gives the same weights, bit for bit, even if it was killed and resumed. Slower."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of initial weights, order of the images, augmentation and dropout."""
    log_every: int = Field(default=20, ge=1, le=MOST_STEPS)
    """Steps between updates of the progress bar and the curves."""
    eval_every: int = Field(default=500, ge=1, le=MOST_STEPS)
    """Steps between evaluations on the validation split."""
    tensorboard_images: int = Field(default=4, ge=0, le=1000)
    """Number of validation images that TensorBoard shows with label and prediction at each new best; 0 keeps images out
    of its logs."""
    checkpoint_every: int = Field(default=500, ge=1, le=MOST_STEPS)
    """Steps between checkpoints. Each evaluation saves one, too."""
    patience: int = Field(default=0, ge=0, le=MOST)
    """Number of evaluations in a row without a new best after which training stops early; 0 never stops early."""

    former_names: ClassVar[Mapping[str, str]] = {"tensorboard_pictures": "tensorboard_images"}

    @model_validator(mode="after")
    def _warmup_ends(self) -> "TrainingConfig":
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is larger than steps {self.steps}")
        return self

    @model_validator(mode="after")
    def _parts_are_alike(self) -> "TrainingConfig":
        if self.global_batch_size % self.accumulation:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} does not split evenly over {self.accumulation} parts of "
                f"accumulation; allowed are multiples of {self.accumulation}"
            )
        return self

    @model_validator(mode="after")
    def _step_compiles(self) -> "TrainingConfig":
        if self.jit_compile and self.strategy in ("mirrored", "multi_worker"):
            raise ValueError(
                f"jit_compile does not go with strategy {self.strategy!r}: XLA cannot compile the communication of "
                "replicas within a step; allowed with 'one_device', and always on with 'tpu'"
            )
        return self

    @model_validator(mode="after")
    def _warm_start_is_on(self) -> "TrainingConfig":
        if self.warm_start_epochs and not self.warm_start:
            raise ValueError(f"warm_start_epochs {self.warm_start_epochs:g} needs warm_start to be true")
        return self

    def warm_start_steps(self, images: int) -> int:
        """Number of steps when training starts from the served model, for a number of training images."""
        if not self.warm_start_epochs:
            return self.steps
        steps = math.ceil(self.warm_start_epochs * images / self.global_batch_size)
        return min(max(steps, self.warm_start_min_steps), self.steps)
