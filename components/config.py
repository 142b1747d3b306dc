"""The configuration sections of the components.

They stand apart from the executors so that a command line can check a configuration without importing TFX.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.slicing import HAS, Buckets, check_value, split_slice
from data import features
from data.errors import ConfigError, shortened
from data.section import LONGEST_SECONDS, LONGEST_SIDE, MOST, Section
from models.config import HubModule, LiteVariant

OnLabelChange = Literal["refuse", "floor"]

Fraction = Annotated[float, Field(ge=0, le=1)]


class DriftConfig(Section):
    """How much the newest span may differ from those before it; a threshold of 1 is never exceeded."""

    class_frequencies: Fraction = 0.3
    """Largest difference of one class's share of the labelled pixels (L-infinity distance)."""
    image_size: Fraction = 0.5
    """Largest Jensen-Shannon divergence of the distributions of heights, and of widths."""
    brightness: Fraction = 0.3
    """Largest Jensen-Shannon divergence of the distributions of mean brightness."""
    contrast: Fraction = 0.3
    """Largest Jensen-Shannon divergence of the distributions of contrast."""
    void_fraction: Fraction = 0.3
    """Largest Jensen-Shannon divergence of the distributions of the fraction of ignored (void) pixels."""
    repeated: Fraction = 0.1
    """Largest share of the newest span's images that are in it twice or in another span too, byte for byte."""
    vanished_class: Fraction = 0.001
    """A class counts as vanished if the probability that all images lack it by chance is less than this; 0 never."""
    min_images: int = Field(default=30, ge=1, le=MOST)
    """Distributions are compared if both sides have at least this many images; those of fewer differ by chance."""


class ValidationConfig(Section):
    """The checks of the data before training; an anomaly stops the run."""

    min_side: int = Field(default=16, ge=1, le=LONGEST_SIDE)
    """Smallest allowed height or width, in pixels."""
    max_side: int = Field(default=16384, ge=1, le=LONGEST_SIDE)
    """Largest allowed height or width, in pixels."""
    max_void_fraction: float = Field(default=1.0, ge=0, le=1)
    """Largest allowed fraction of ignored (void) pixels in one mask."""
    on_drift: Literal["stop", "warn"] = "stop"
    """What happens if the newest span differs too much from those before it: the run stops, or warns and continues."""
    drift: DriftConfig = DriftConfig()
    """How much the newest span may differ."""

    def without_drift(self) -> Self:
        """The checks of single examples, which do not depend on how spans are compared."""
        return self.model_copy(update={"on_drift": "stop", "drift": DriftConfig()})


class ClassThreshold(Section):
    """Thresholds of one class."""

    min_iou: Fraction = 0.0
    """Least IoU of the class on the test split."""
    max_drop: Fraction | None = None
    """By how much the IoU of the class may fall behind the served model's; null: it is not compared."""


class SliceThreshold(Section):
    """Thresholds of one slice."""

    min_mean_iou: Fraction = 0.0
    """Least mean IoU on the slice."""
    max_drop: Fraction | None = None
    """By how much mean IoU may fall behind the served model's; null: it is not compared."""


class IntervalConfig(Section):
    """Confidence intervals of mean IoU, by bootstrap over the test images."""

    resamples: int = Field(default=1000, ge=100, le=MOST)
    """Number of bootstrap resamples, each of which draws as many images as there are, with replacement."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Probability with which an interval holds the true value."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the bootstrap."""


class EvaluationConfig(Section):
    """The thresholds that a model must pass to be blessed, and what is reported about it.

    A model is blessed if it passes every threshold, and if its mean IoU on the test split is above the one that always
    predicting the commonest class reaches. A class without a labelled pixel or a slice without an image in the test
    split cannot be evaluated: a model does not pass a threshold on one.
    """

    min_mean_iou: Fraction = 0.0
    """Least mean IoU on the test split, in addition to what always predicting its commonest class reaches."""
    allow_degenerate: bool = False
    """Whether data from which nothing can be learned (a split with the labels of one class only, or nearly without
    labelled pixels) are trained on, and a model that is no better than a constant prediction may be blessed."""
    max_drop: Fraction = 0.0
    """By how much mean IoU may fall behind the served model's on the same images; 0: it may not be lower."""
    on_label_change: OnLabelChange = "refuse"
    """If the served model has other classes, "refuse" stops the run, "floor" evaluates by the least scores alone."""
    classes: dict[str, ClassThreshold] = {}
    """Class name -> its thresholds."""
    slices: dict[str, SliceThreshold] = {}
    """Slice, as `source:dusk`, `size:<256` or `has:car` (see `components.slicing`) -> its thresholds."""
    slice_by: tuple[str, ...] = (features.SOURCE,)
    """Columns for each of whose values the scores are reported separately: source, height, width, size, brightness,
    contrast, void_fraction, has; or single slices of them, as `has:car`."""
    buckets: Buckets = Buckets()
    """How columns of numbers are divided into slices."""
    intervals: IntervalConfig = IntervalConfig()
    """Confidence intervals of the scores."""

    @model_validator(mode="after")
    def _slices_exist(self) -> Self:
        for name in (*self.slice_by, *self.slices):
            check_value(name, self.buckets)
        for name in self.slices:
            if not split_slice(name)[1]:
                raise ValueError(f"slices: {name!r} is not a slice; it must look like column:value")
        return self


def check_classes(config: EvaluationConfig, class_names: Sequence[str]) -> None:
    """Checks that thresholds and slices name classes of the label map.

    Raises:
        ConfigError: One names a class that the label map lacks; suggests the nearest one.
    """
    by_key = [(f"evaluation.classes.{name}", name) for name in config.classes]
    for key, names in (("slice_by", config.slice_by), ("slices", config.slices)):
        parts = [(name, *split_slice(name)) for name in names]
        by_key += [(f"evaluation.{key}: {name}", value) for name, column, value in parts if column == HAS and value]
    for key, name in by_key:
        if name not in class_names:
            near = get_close_matches(name, class_names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {shortened(', '.join(class_names), 5000)}"
            raise ConfigError(f"{shortened(key)}: the label map has no class {shortened(name)!r}; {hint}")


class InfraConfig(Section):
    """Limits that a model must keep when it serves, checked before it is pushed."""

    requests: int = Field(default=4, ge=1, le=10_000)
    """Test images that are sent to each signature."""
    load_seconds: float = Field(default=180.0, gt=0, le=LONGEST_SECONDS)
    """Longest time in seconds for starting the process, loading the model and answering all requests."""
    image_seconds: float = Field(default=10.0, gt=0, le=LONGEST_SECONDS)
    """Longest time in seconds for one image, after a first request has warmed the model up."""


class PushConfig(Section):
    """Where and how a model is published."""

    model_name: str = Field(default="segmentation", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Folder below `serving/`, and the name by which a server offers the model."""
    keep: int = Field(default=5, ge=1, le=MOST)
    """How many of the newest versions stay in the serving directory; pinned ones stay, too."""
    warmup_requests: int = Field(default=2, ge=0, le=1000)
    """Number of requests that TensorFlow Serving replays when it loads the model, so that no user waits for it."""


class LiteConfig(Section):
    """LiteRT (TensorFlow Lite) models for phones and browsers, converted from the trained model and pushed with it."""

    variants: tuple[LiteVariant, ...] = ()
    """Number formats to convert to; without any, no LiteRT model is made. "float32" keeps the network as it is,
    "float16" halves the size of the weights, "dynamic" stores them in 8 bits and computes partly in 8 bits, "int8"
    does everything in 8 bits, as accelerators without floating point need."""
    height: int = Field(default=256, ge=16, le=LONGEST_SIDE)
    """Height in pixels that every image is resized to: a LiteRT model takes one size only."""
    width: int = Field(default=256, ge=16, le=LONGEST_SIDE)
    """Width in pixels that every image is resized to; the aspect ratio of an image is not kept."""
    max_drop: float = Field(default=0.01, ge=0, le=1)
    """By how much mean IoU may fall behind that of the SavedModel at the same size; a variant below is left out."""
    images: int = Field(default=100, ge=1, le=MOST)
    """Number of images on which variants are compared with the SavedModel: the first ones of the test split."""
    calibration_images: int = Field(default=64, ge=1, le=MOST)
    """Number of images from which "int8" takes the ranges of its numbers: the first ones of the training split."""
    threads: int = Field(default=2, ge=1, le=1024)
    """Number of interpreter threads during the latency measurement."""


class HubConfig(Section):
    """TensorFlow Hub modules for use inside other programs, made from the trained model and pushed with it."""

    modules: tuple[HubModule, ...] = ()
    """Modules to make: "segmenter" returns the logits of the classes, "feature_extractor" the backbone's features."""
    max_drop: float = Field(default=0.01, ge=0, le=1)
    """By how much mean IoU may fall behind that of the SavedModel at the same size; a module below is left out."""
    images: int = Field(default=100, ge=1, le=MOST)
    """Number of images on which modules are compared with the SavedModel: the first ones of the test split."""
