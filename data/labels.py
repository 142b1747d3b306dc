"""The label map: from the values or colours of masks to class ids."""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Annotated

from pydantic import Field, ValidationError, field_validator, model_validator

from data.errors import DataError
from data.features import MAX_CLASSES
from data.section import Section

Channel = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Channel, Channel, Channel]
LabelValue = Annotated[int, Field(ge=-(2**31), lt=2**63)]

#: Unicode's control characters, and the separators of lines and paragraphs. Files name one class a line.
_LINE_BREAKING = frozenset({"Cc", "Zl", "Zp"})


def _refuse_repeats(what: str, items: Sequence[Hashable]) -> None:
    for item, count in Counter(items).items():
        if count > 1:
            raise ValueError(f"{what} {item!r} occurs {count} times in the label map; each may occur once")


class ClassLabel(Section):
    """One class: its name, and the values and colours that mean it in the masks."""

    name: str = Field(min_length=1)
    """Name of the class in reports, legends and thresholds: one line of text."""
    values: tuple[LabelValue, ...] = ()
    """Label values of the masks (or category ids of the annotation file) that mean this class."""
    colors: tuple[Color, ...] = ()
    """RGB colours of the masks that mean this class."""
    names: tuple[str, ...] = ()
    """Names that files of the dataset (categories of COCO, `labels.txt`, ...) have for this class besides `name`:
    several of them merge classes."""

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if not name.strip():
            raise ValueError(f"class name {name!r} is blank; allowed: a line of text")
        if any(unicodedata.category(letter) in _LINE_BREAKING for letter in name):
            raise ValueError(f"class name {name!r} holds a control character or a line break; allowed: a line of text")
        return name


class LabelMap(Section):
    """The classes in the order of their ids 0, 1, 2, ..., and what means the ignore label (void).

    A value or colour that the map does not contain is an error in the data; it is never ignored silently.
    """

    classes: tuple[ClassLabel, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    """The classes; the first one has id 0."""
    ignore_values: tuple[LabelValue, ...] = ()
    """Label values of the masks that mean the ignore label (void): such pixels are neither trained on nor evaluated."""
    ignore_colors: tuple[Color, ...] = ()
    """RGB colours of the masks that mean the ignore label (void)."""

    @model_validator(mode="after")
    def _each_once(self) -> "LabelMap":
        names = [name for label in self.classes for name in (label.name, *label.names)]
        values = [v for label in self.classes for v in label.values] + list(self.ignore_values)
        colors = [c for label in self.classes for c in label.colors] + list(self.ignore_colors)
        _refuse_repeats("class name", names)
        _refuse_repeats("label value", values)
        _refuse_repeats("colour", colors)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(label.name for label in self.classes)

    @property
    def num_classes(self) -> int:
        """Number of classes, the ignore label not counted."""
        return len(self.classes)


def label_map_of(
    place: str, classes: Iterable[tuple[str, tuple[int, ...]]], ignore_values: Iterable[int] = ()
) -> LabelMap:
    """The label map from the name and the label values of each class, as a dataset states them.

    Raises:
        DataError: the classes are not a valid label map; `place` is the file that states them.
    """
    try:
        labels = tuple(ClassLabel(name=name, values=values) for name, values in classes)
        return LabelMap(classes=labels, ignore_values=tuple(ignore_values))
    except ValidationError as error:
        raise DataError(f"invalid label map: {place}: {error.errors()[0]['msg']}") from None
