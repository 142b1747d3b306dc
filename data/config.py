"""The configuration sections of preprocessing, augmentation and input.

They stand apart from the code that uses them so that a command line can check a configuration without importing
TensorFlow.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from data.section import Section

Pixels = Annotated[int, Field(ge=1)]


class PreprocessConfig(Section):
    """What happens to an image before the network sees it, in training and in serving alike."""

    max_side: int = Field(default=0, ge=0)
    """Images whose longer side exceeds this many pixels are shrunk to it; 0 leaves every image at its own size."""


class CropConfig(Section):
    """What part of a training picture the network sees, and how large."""

    crop: Pixels | tuple[Pixels, Pixels] = 256
    """Side of the square crop, or its (height, width), in pixels."""
    scale_min: float = Field(default=0.5, gt=0)
    """Smallest factor by which a picture is scaled before it is cropped."""
    scale_max: float = Field(default=2.0, gt=0)
    """Largest factor by which a picture is scaled before it is cropped."""
    scale_step: float = Field(default=0.0, ge=0)
    """Scale factors are `scale_min`, `scale_min + scale_step`, ... up to `scale_max`; 0 draws any between them."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is larger than scale_max {self.scale_max}")
        return self

    @property
    def crop_size(self) -> tuple[int, int]:
        """(height, width) of the crop, in pixels."""
        return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)


class ProgressiveResizingConfig(CropConfig):
    """The view of the last part of a training: small pictures at first, which are quick, and large ones in the end.

    Known as progressive resizing; EfficientNetV2 (arXiv 2104.00298, section 4) trains so.
    """

    after: float = Field(gt=0, lt=1)
    """Fraction of the steps after which this view takes the place of the first one."""


class AugmentConfig(CropConfig):
    """How a training picture is varied. Colour jitters of 0 are off."""

    flip: bool = True
    """Mirror every other picture, left to right."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Largest shift of all channels, as a fraction of 255."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Differences from the mean colour are multiplied by a factor in 1 - contrast ... 1 + contrast."""
    saturation: float = Field(default=0.0, ge=0, lt=1)
    """Differences from gray are multiplied by a factor in 1 - saturation ... 1 + saturation."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest rotation of the hue, in turns."""
    max_class_fraction: float = Field(default=1.0, gt=0, le=1)
    """Another crop is tried, up to 10 in all, while one class or void covers more than this fraction of it."""
    progressive_resizing: ProgressiveResizingConfig | None = None
    """Crop and scale of the last part of the training, in place of those above; null keeps those above throughout."""

    former_names: ClassVar[Mapping[str, str]] = {"finish": "progressive_resizing"}

    @property
    def jitters_color(self) -> bool:
        """Whether any of the colour changes is on."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def stages(self, start: int, steps: int) -> Iterator[tuple[int, int, "AugmentConfig"]]:
        """(first step, step after the last, what holds in between) of a training of so many steps, from `start` on."""
        last = self.progressive_resizing
        turn = round(last.after * steps) if last else steps
        if start < turn:
            yield start, turn, self.model_copy(update={"progressive_resizing": None})
        if last and max(start, turn) < steps:
            view = {**last.model_dump(exclude={"after"}), "progressive_resizing": None}
            yield max(start, turn), steps, self.model_copy(update=view)


class InputConfig(Section):
    """How records reach the training loop."""

    cache_bytes: int = Field(default=2 * 2**30, ge=0)
    """A training set whose decoded pixels fit in this many bytes is kept in memory; reading it takes twice as many."""
    shuffle_buffer: int = Field(default=512, ge=1)
    """Records shuffled at a time where the set is not kept in memory; the files are shuffled too."""
    prefetch: int = Field(default=2, ge=1)
    """Batches prepared ahead of the training step."""
