"""The configuration of a dataset, and its label map."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data.errors import DataError
from data.files import FileSystem
from data.images import LARGEST_IMAGE
from data.label_table import match_by_name
from data.labels import LabelMap
from data.layouts import LAYOUTS, open_layout
from data.layouts.base import Layout, Sample
from data.layouts.pairing import PathPattern, images_pattern, masks_pattern
from data.masks import MaskRules
from data.section import Section
from data.spans import SpansConfig, has_pattern, parse_pattern


def _known_layout(name: str) -> str:
    if name not in ("auto", *LAYOUTS):
        raise ValueError(f"unknown layout {name!r}; allowed: auto, {', '.join(LAYOUTS)}")
    return name


def _pattern(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


def _path_pattern(made: Callable[[str], PathPattern]) -> AfterValidator:
    def check(text: str | None) -> str | None:
        return text if text is None else made(text).text

    return AfterValidator(check)


class DataConfig(Section):
    """The labelled images, the meaning of their masks, and their splits."""

    path: str = Field(min_length=1)
    """Folder or URI (gs://, s3://) of the dataset, or a pattern of folders, see `data.spans`."""
    spans: SpansConfig = SpansConfig()
    """Which spans a run takes if `path` is a pattern."""
    test_set: str = "fixed"
    """Which images are the test set if `path` is a pattern: 'fixed', the test images of the first span, as they were
    at the first run; 'window', those of the window; or the path of a separate dataset of the same layout: its test
    split, or all of it if it is not divided. Test images that are not in the test set are not trained on either."""
    layout: Annotated[str, AfterValidator(_known_layout)] = "auto"
    """Layout of the dataset: its name, or 'auto' to recognise it."""
    images: Annotated[str | None, _path_pattern(images_pattern)] = None
    """Layout `folder`: pattern of the images' paths, such as `{split}/photos/{stem}.jpg`. `{stem}` is the part of the
    name that image and mask share, `{split}` a split's name, `{dir}` and `{subdir}` are any folders, `{ext}` is any
    ending of an image. null finds the pattern from the names."""
    masks: Annotated[str | None, _path_pattern(masks_pattern)] = None
    """Layout `folder`: pattern of the masks' paths, such as `{split}/labels/{stem}_gt.png`; null finds it."""
    label_map: LabelMap | None = None
    """The classes; null takes those of the layout."""
    question: str | None = None
    """What only the author of the masks knows, as `inspect` wrote it: whether 255 is an object or void, say. A run
    refuses to begin until the label map answers it and the key is deleted."""
    group_pattern: Annotated[str | None, AfterValidator(_pattern)] = None
    """Regular expression on the path of an image: its first group (or whole match) names the group of the image. Images
    of one group stay in one split."""
    source_pattern: Annotated[str | None, AfterValidator(_pattern)] = None
    """Regular expression on the path of an image: its first group (or whole match) names the source of the image, by
    which scores are sliced; null takes the layout's own (Cityscapes: the city, CamVid: the sequence)."""
    val_fraction: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the training images that becomes val where the dataset has no val split."""
    test_fraction: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the images that becomes test where the dataset has no official splits."""
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1)
    """Largest share of the images that may be quarantined; with more the run stops."""
    color_tolerance: int = Field(default=0, ge=0, le=255)
    """Largest difference, in any channel, between a pixel of an RGB or 8-bit gray mask and the nearest colour or value
    of the label map at which the pixel takes that class, as masks saved as JPEG need it; 0 takes exact ones alone."""
    soft_edges: Literal["refuse", "nearest", "ignore"] = "refuse"
    """Pixels farther than `color_tolerance` from each colour or value, such as the smoothed edges of masks that were
    scaled: 'refuse' quarantines the mask, 'nearest' takes the nearest colour or value, 'ignore' the ignore label."""
    max_soft_edges: float = Field(default=0.1, ge=0, le=1)
    """Largest share of a mask's pixels that `soft_edges` may settle; a mask with more is quarantined."""
    resize_masks: Literal["nearest"] | None = None
    """'nearest' scales a mask of another size, but of the same aspect within a pixel, to its image by the nearest
    neighbour; null quarantines it."""
    license: str = ""
    """Licence of the images and labels, for the model card."""
    max_pixels: int = Field(default=50_000_000, ge=1, le=LARGEST_IMAGE)
    """Images with more pixels than this are quarantined without being decoded."""

    former_names: ClassVar[Mapping[str, str]] = {"evaluation": "test_set"}

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave nothing to train on; "
                "their sum must be below 1"
            )
        return self

    @model_validator(mode="after")
    def _pairs_make_sense(self) -> Self:
        if (self.images or self.masks) and self.layout not in ("auto", "folder"):
            raise ValueError(
                f"images and masks are patterns of the layout folder, but layout is {self.layout!r}; remove them"
            )
        if self.images and self.masks:
            missing = set(re.findall(r"\{(\w+)\}", self.masks)) - set(re.findall(r"\{(\w+)\}", self.images)) - {"ext"}
            if missing:
                raise ValueError(
                    f"masks {self.masks!r} has {{{min(missing)}}}, which images {self.images!r} has not: a mask is "
                    "found from the path of its image"
                )
        return self

    @model_validator(mode="after")
    def _pattern_makes_sense(self) -> Self:
        if self.has_spans:
            pattern = parse_pattern(self.path)
            if isinstance(self.spans.span, date) and not pattern.dated:
                raise ValueError(f"spans.span {self.spans.span} is a date, but the spans of {self.path!r} have numbers")
            if isinstance(self.spans.span, int) and pattern.dated:
                raise ValueError(f"spans.span {self.spans.span} is a number, but the spans of {self.path!r} are days")
        elif self.spans != SpansConfig() or self.test_set != "fixed":
            raise ValueError(
                f"spans and test_set need a pattern in path, such as span-{{SPAN}}, but it is {self.path!r}"
            )
        return self

    @property
    def mask_rules(self) -> MaskRules:
        """How strictly masks are read."""
        return MaskRules(self.color_tolerance, self.soft_edges, self.max_soft_edges, self.resize_masks)

    @property
    def has_spans(self) -> bool:
        """Whether `path` is a pattern of folders."""
        return has_pattern(self.path)


def example_folder(config: DataConfig, files: FileSystem) -> str:
    """A folder of labelled images: the path or, where it is a pattern, the first span.

    The first span and not the newest one defines what the labels mean, so that new data cannot change it.

    Raises:
        DataError: there is no span.
    """
    return parse_pattern(config.path).list(files)[0].folder if config.has_spans else config.path


def open_dataset(config: DataConfig, files: FileSystem, folder: str | None = None) -> Layout:
    """The layout of the configured dataset, or of one of its spans.

    Raises:
        DataError: the folder is missing, or no layout recognises it.
    """
    return open_layout(config.layout, folder or config.path, files, config.group_pattern, config.images, config.masks)


def source_of(config: DataConfig, sample: Sample) -> str:
    """The source of an image: by `source_pattern`, or else by the layout."""
    match = re.search(config.source_pattern, sample.key) if config.source_pattern else None
    if match is None:
        return sample.source
    return (match.group(1) if match.groups() else match.group(0)) or sample.source


def resolve_label_map(config: DataConfig, layout: Layout) -> LabelMap:
    """The label map of the configuration, or else that of the layout.

    Where files of the dataset name the classes, values and colours of the configured label map are matched with theirs
    by name (`data.label_table`). A label map is never guessed from masks: 255 may be an object or the ignore label
    (void), 1 may be a class or an instance.

    Raises:
        DataError: neither of them has a label map, a question about the masks is open, or the names do not correspond.
    """
    if config.question:
        raise DataError(
            f"data.question: {config.question} Correct data.label_map if need be, and delete data.question."
        )
    label_map = config.label_map or layout.label_map()
    if label_map is None:
        raise DataError(
            f"label map missing: the {layout.name} layout of {config.path} does not say what the masks' values mean; "
            f"set data.label_map, which `python local_runner.py inspect {config.path} --write-config FILE` proposes"
        )
    table = layout.stated_label_map() if config.label_map else None
    return match_by_name(label_map, table, layout.root) if table else label_map
