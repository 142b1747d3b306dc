"""The configuration sections of the components.

They stand apart from the executors so that a command line can check a configuration without importing TFX.
"""

from typing import Annotated, Literal

from pydantic import Field

from data import features
from data.section import Section

OnLabelChange = Literal["refuse", "floor"]


Distance = Annotated[float, Field(ge=0, le=1)]


class DriftConfig(Section):
    """How far the newest span may be from those before it; a threshold of 1 is never passed."""

    class_frequencies: Distance = 0.3
    """Largest difference of one class's share of the labelled pixels (L-infinity distance)."""
    image_size: Distance = 0.5
    """Jensen-Shannon divergence of the distributions of heights, and of widths."""
    brightness: Distance = 0.3
    """Jensen-Shannon divergence of mean brightness."""
    contrast: Distance = 0.3
    """Jensen-Shannon divergence of contrast."""
    void_fraction: Distance = 0.3
    """Jensen-Shannon divergence of the fraction of void pixels."""
    repeated: Distance = 0.1
    """Share of the newest span's images that are in it twice or in another span too, byte for byte."""
    vanished_class: Distance = 0.001
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


class EvaluationConfig(Section):
    """What a model must reach to be blessed."""

    min_mean_iou: float = Field(default=0.0, ge=0, le=1)
    """Absolute floor of mean IoU on the test split."""
    max_drop: float = Field(default=0.0, ge=0, le=1)
    """By how much mean IoU may fall behind the served model's on the same images; 0 = no worse."""
    on_label_change: OnLabelChange = "refuse"
    """When the served model knows other classes: "refuse" stops the run, "floor" judges by `min_mean_iou` alone."""
    slice_by: tuple[str, ...] = (features.SOURCE,)
    """Columns of the examples by whose values the scores are reported apart."""


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
    """Versions that stay in the serving directory, the newest ones."""
    warmup_requests: int = Field(default=2, ge=0)
    """Requests that TensorFlow Serving replays when it loads the model, so that the first user need not wait."""
