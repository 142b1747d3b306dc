"""The configuration sections of preprocessing, augmentation and input.

They are separate from the code that uses them so that a command line can check a configuration without importing
TensorFlow.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from data.section import LONGEST_SIDE, MOST, Section

Pixels = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]

#: Largest factor by which an image may be scaled.
LARGEST_SCALE = 16


class PreprocessConfig(Section):
    """How images are preprocessed, in training and in serving alike."""

    max_side: int = Field(default=0, ge=0, le=LONGEST_SIDE)
    """Images whose longer side exceeds this number of pixels are shrunk to it; 0 keeps every image at its own size."""


class CropConfig(Section):
    """How training images are scaled and cropped."""

    crop: Pixels | tuple[Pixels, Pixels] = 256
    """Side of the square crop, or its (height, width), in pixels."""
    scale_min: float = Field(default=0.5, gt=0, le=LARGEST_SCALE)
    """Smallest factor by which an image is scaled before it is cropped."""
    scale_max: float = Field(default=2.0, gt=0, le=LARGEST_SCALE)
    """Largest factor by which an image is scaled before it is cropped."""
    scale_step: float = Field(default=0.0, ge=0, le=LARGEST_SCALE)
    """Scale factors are `scale_min`, `scale_min + scale_step`, ... up to `scale_max`; 0 draws any factor in between."""

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
    """Progressive resizing: training begins with small images, which are quick, and ends with large ones.

    EfficientNetV2 (arXiv 2104.00298, section 4) trains in this way.
    """

    after: float = Field(gt=0, lt=1)
    """Fraction of the steps after which this crop and these scales take the place of the first ones."""


class AugmentConfig(CropConfig):
    """How training images are augmented. Colour jitters of 0 are off."""

    flip: bool = True
    """Whether images are mirrored left to right, with a probability of one half."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Largest shift of all channels, as a fraction of 255."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Differences from the mean colour are multiplied by a factor from 1 - contrast to 1 + contrast."""
    saturation: float = Field(default=0.0, ge=0, lt=1)
    """Differences from gray are multiplied by a factor from 1 - saturation to 1 + saturation."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest rotation of the hue, in turns."""
    max_class_fraction: float = Field(default=1.0, gt=0, le=1)
    """Another crop is tried, up to 10 in all, while one class or the ignore label (void) covers more than this fraction
    of it."""
    progressive_resizing: ProgressiveResizingConfig | None = None
    """Crop and scale of the last part of the training, in place of those above; null keeps those above throughout."""

    former_names: ClassVar[Mapping[str, str]] = {"finish": "progressive_resizing"}

    @property
    def jitters_color(self) -> bool:
        """Whether any of the colour changes is on."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def stages(self, start: int, steps: int) -> Iterator[tuple[int, int, "AugmentConfig"]]:
        """(first step, step after the last, section) of each stage of a training of `steps` steps, from `start` on."""
        last = self.progressive_resizing
        turn = round(last.after * steps) if last else steps
        if start < turn:
            yield start, turn, self.model_copy(update={"progressive_resizing": None})
        if last and max(start, turn) < steps:
            view = {**last.model_dump(exclude={"after"}), "progressive_resizing": None}
            yield max(start, turn), steps, self.model_copy(update=view)


class InputConfig(Section):
    """How the training loop reads its records."""

    cache_bytes: int = Field(default=2 * 2**30, ge=0, le=2**50)
    """A training set whose decoded pixels fit in this number of bytes is kept in memory; reading it takes twice as
    many."""
    shuffle_buffer: int = Field(default=512, ge=1, le=MOST)
    """Number of records that are shuffled at a time where the set is not kept in memory; files are shuffled too."""
    prefetch: int = Field(default=2, ge=1, le=1000)
    """Number of batches that are prepared ahead of the training step."""
