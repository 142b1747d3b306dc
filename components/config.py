"""The configuration sections of the components.

They stand apart from the executors so that a command line can check a configuration without importing TFX.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.slicing import HAS, Buckets, check_value, split_slice
from data import features
from data.errors import ConfigError
from data.section import Section
from models.config import HubModule, LiteVariant

OnLabelChange = Literal["refuse", "floor"]


Fraction = Annotated[float, Field(ge=0, le=1)]


class DriftConfig(Section):
    """How far the newest span may be from those before it; a threshold of 1 is never passed."""

    class_frequencies: Fraction = 0.3
    """Largest difference of one class's share of the labelled pixels (L-infinity distance)."""
    image_size: Fraction = 0.5
    """Jensen-Shannon divergence of the distributions of heights, and of widths."""
    brightness: Fraction = 0.3
    """Jensen-Shannon divergence of mean brightness."""
    contrast: Fraction = 0.3
    """Jensen-Shannon divergence of contrast."""
    void_fraction: Fraction = 0.3
    """Jensen-Shannon divergence of the fraction of void pixels."""
    repeated: Fraction = 0.1
    """Share of the newest span's images that are in it twice or in another span too, byte for byte."""
    vanished_class: Fraction = 0.001
    """A class is missed if so few images would lack it by chance with less than this probability; 0 misses none."""
    min_images: int = Field(default=30, ge=1)
    """Distributions are compared where either side has this many images; those of fewer differ by chance."""


class ValidationConfig(Section):
    """What ExampleValidator holds the data to; an anomaly stops the run."""

    min_side: int = Field(default=16, ge=1)
    """Smallest allowed height or width, in pixels."""
    max_side: int = Field(default=16384, ge=1)
    """Largest allowed height or width, in pixels."""
    max_void_fraction: float = Field(default=1.0, ge=0, le=1)
    """Largest allowed fraction of void pixels in one mask."""
    on_drift: Literal["stop", "warn"] = "stop"
    """What a newest span that differs too much from those before it does to a run."""
    drift: DriftConfig = DriftConfig()
    """How much is too much."""

    def without_drift(self) -> Self:
        """What each example must hold to, whatever is said of spans."""
        return self.model_copy(update={"on_drift": "stop", "drift": DriftConfig()})


class ClassThreshold(Section):
    """What one class must reach."""

    min_iou: Fraction = 0.0
    """Absolute floor of its IoU on the test split."""
    max_drop: Fraction | None = None
    """By how much its IoU may fall behind the served model's; null: it is not compared."""


class SliceThreshold(Section):
    """What must be reached on one slice."""

    min_mean_iou: Fraction = 0.0
    """Absolute floor of mean IoU on the slice."""
    max_drop: Fraction | None = None
    """By how much mean IoU may fall behind the served model's; null: it is not compared."""


class IntervalConfig(Section):
    """Confidence intervals of mean IoU, by bootstrap over the test images."""

    resamples: int = Field(default=1000, ge=100)
    """How often as many images as there are are drawn with replacement."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Probability with which an interval holds the true value."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""


class EvaluationConfig(Section):
    """What a model must reach to be blessed, and what is told about it.

    A model is blessed if it passes every threshold. A class without a labelled pixel and a slice without an image in
    the test split cannot be judged: a threshold on one refuses the model.
    """

    min_mean_iou: Fraction = 0.0
    """Absolute floor of mean IoU on the test split."""
    max_drop: Fraction = 0.0
    """By how much mean IoU may fall behind the served model's on the same images; 0 = no worse."""
    on_label_change: OnLabelChange = "refuse"
    """When the served model knows other classes: "refuse" stops the run, "floor" judges by the floors alone."""
    classes: dict[str, ClassThreshold] = {}
    """Class name -> its thresholds."""
    slices: dict[str, SliceThreshold] = {}
    """Slice, as `source:dusk`, `size:<256` or `has:car` (see `components.slicing`) -> its thresholds."""
    slice_by: tuple[str, ...] = (features.SOURCE,)
    """Columns by whose values the scores are reported apart: source, height, width, size, brightness, contrast,
    void_fraction, has; or single slices of them, as `has:car`."""
    buckets: Buckets = Buckets()
    """How columns of numbers are cut into slices."""
    intervals: IntervalConfig = IntervalConfig()
    """How sure the scores are."""

    @model_validator(mode="after")
    def _slices_exist(self) -> Self:
        for name in (*self.slice_by, *self.slices):
            check_value(name, self.buckets)
        for name in self.slices:
            if not split_slice(name)[1]:
                raise ValueError(f"slices: {name!r} is no slice; it must look like column:value")
        return self


def check_classes(config: EvaluationConfig, class_names: Sequence[str]) -> None:
    """Raises ConfigError if a threshold or a slice names a class that is not in the label map."""
    by_key = [(f"evaluation.classes.{name}", name) for name in config.classes]
    for key, names in (("slice_by", config.slice_by), ("slices", config.slices)):
        parts = [(name, *split_slice(name)) for name in names]
        by_key += [(f"evaluation.{key}: {name}", value) for name, column, value in parts if column == HAS and value]
    for key, name in by_key:
        if name not in class_names:
            near = get_close_matches(name, class_names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(class_names)}"
            raise ConfigError(f"{key}: the label map has no class {name!r}; {hint}")


class InfraConfig(Section):
    """Limits for a model in service, checked before it is pushed."""

    requests: int = Field(default=4, ge=1)
    """Test images that are sent to each signature."""
    load_seconds: float = Field(default=180.0, gt=0)
    """Longest time for loading the model and answering all requests, start of the process included."""
    image_seconds: float = Field(default=10.0, gt=0)
    """Longest time for one image, after a first request has warmed the model up."""


class PushConfig(Section):
    """Where and how a model is published."""

    model_name: str = Field(default="segmentation", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Folder below `serving/`; the name under which a server knows the model."""
    keep: int = Field(default=5, ge=1)
    """Versions that stay in the serving directory: the newest ones, and those that are pinned beside them."""
    warmup_requests: int = Field(default=2, ge=0)
    """Requests that TensorFlow Serving replays when it loads the model, so that the first user need not wait."""


class LiteConfig(Section):
    """LiteRT (TensorFlow Lite) models for phones and browsers, made of the trained model and pushed with it."""

    variants: tuple[LiteVariant, ...] = ()
    """Number formats; none makes no such model. "float32" is the network as it is, "float16" halves the weights,
    "dynamic" makes them 8-bit and computes partly in 8 bits, "int8" does everything in 8 bits, as accelerators without
    floats need."""
    height: int = Field(default=256, ge=16)
    """Height in pixels that every image is resized to: such a model takes one size only."""
    width: int = Field(default=256, ge=16)
    """As `height`; the shape of an image is not kept where theirs differs."""
    max_drop: float = Field(default=0.01, ge=0, le=1)
    """By how much mean IoU may fall behind that of the SavedModel at the same size; a variant below is left out."""
    images: int = Field(default=100, ge=1)
    """Images of the test split, the first ones, by which variants are judged."""
    calibration_images: int = Field(default=64, ge=1)
    """Images of the training split, the first ones, from which "int8" takes the ranges of its numbers."""
    threads: int = Field(default=2, ge=1)
    """Of the interpreter while its latency is measured."""


class HubConfig(Section):
    """TensorFlow Hub modules for use inside other programs, made of the trained model and pushed with it."""

    modules: tuple[HubModule, ...] = ()
    """"segmenter" gives the logits of the classes, "feature_extractor" what the backbone says; none makes none."""
    max_drop: float = Field(default=0.01, ge=0, le=1)
    """By how much mean IoU may fall behind that of the SavedModel at the same size; a module below is left out."""
    images: int = Field(default=100, ge=1)
    """Images of the test split, the first ones, by which modules are judged."""
