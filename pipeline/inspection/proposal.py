"""Proposes a label map from the contents of the masks, which the user corrects and confirms."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import yaml

from data.dataset import DataConfig
from data.errors import ConfigError, DataError
from data.features import IGNORE_LABEL, MAX_CLASSES
from data.files import FileSystem
from data.images import Size
from data.labels import ClassLabel, Color, LabelMap
from data.layouts.base import Layout, Mask, MaskFile, PanopticFile, Sample, Shapes
from data.mask_files import MaskCodes, read_codes, unpacked
from data.masks import MOST_COLORS, value_ids
from pipeline.inspection.clusters import Clusters, CodeCounts, find_clusters

Code = int | str | Color
"""The code of a class in the masks: a label value, a class name of a shape, or an RGB colour."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BINARY: tuple[frozenset[Code], ...] = (frozenset({0, 255}), frozenset({0, 1}), frozenset({BLACK, WHITE}))
"""Codes of binary masks."""

#: Number of masks that must fit the label map that a layout states before it is trusted.
STATED_LOOKED_AT = 20

#: From so many values on that count from 1 in each mask they are taken for instance ids.
MOST_OBJECTS = 8


@dataclass(frozen=True)
class Answers:
    """What the user says of codes that only the author of the masks knows."""

    objects: frozenset[Code] = frozenset()
    """Codes that are classes."""
    ignored: frozenset[Code] = frozenset()
    """Codes that are the ignore label (void)."""
    soft_edges: Literal["nearest", "ignore"] | None = None
    """What pixels of smoothed edges become."""


def parse_answers(objects: Iterable[str], ignored: Iterable[str], soft_edges: str | None) -> Answers:
    """The answers as options of the command line state them: values, or colours as R,G,B.

    Raises:
        ConfigError: One is neither, or both an object and void.
    """

    def parse(option: str, text: str) -> Code:
        if re.fullmatch(r"\d+", text):
            return int(text)
        if re.fullmatch(r"\d+,\d+,\d+", text) and max(color := [int(part) for part in text.split(",")]) <= 255:
            return color[0], color[1], color[2]
        raise ConfigError(f"{option} {text!r}: neither a label value, such as 255, nor a colour, such as 224,224,192")

    classes, void = (
        frozenset(parse(option, text) for text in texts)
        for option, texts in (("--object", objects), ("--ignore", ignored))
    )
    if both := classes & void:
        raise ConfigError(f"--object and --ignore both name {', '.join(map(_spelled, both))}; give one of them")
    if soft_edges not in (None, "nearest", "ignore"):
        raise ConfigError(f"--soft-edges {soft_edges!r}; allowed: nearest, ignore")
    return Answers(classes, void, cast(Literal["nearest", "ignore"] | None, soft_edges))


@dataclass(frozen=True)
class Proposal:
    """A proposed label map, which the configuration does not state."""

    label_map: LabelMap
    masks: Mapping[Code, int]
    """Number of masks that contain each code."""
    place: str
    """The dataset and its layout, for messages."""
    doubts: tuple[str, ...] = ()
    """What is unusual about the masks, a sentence each."""
    question: str | None = None
    """What only the author of the masks knows and a run must not guess; None if there is nothing."""
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    """Values of section `data` with which the masks can be read."""

    @property
    def text(self) -> str:
        """The text that states the codes found, the proposal, and what the user has to do."""
        found = ", ".join(str(code) for code in _in_order(self.masks))
        only = "only " * _is_binary(self.masks)
        doubts = "".join(f" {doubt}" for doubt in (*self.doubts, *([self.question] if self.question else ())))
        return (
            f"label map to confirm: the masks of {self.place} hold {only}{found}, and no label map says what that "
            f"means.{doubts}\nProposed:\n\n{label_map_yaml(self.label_map, self.masks)}\n"
            "Write it to a file with --write-config FILE, correct it there, and look again with --config FILE."
        )


def propose(
    samples: Iterable[Sample],
    layout: Layout,
    config: DataConfig,
    answers: Answers = Answers(),  # noqa: B008
) -> Proposal | None:
    """Proposes a label map for a dataset whose configuration does not state one.

    A layout's own label map needs no confirmation, unless the masks hardly belong to it: because they are binary, or
    hold 255, of which it says nothing, or one value more than a list of names has.

    Returns:
        None if the layout states the label map.

    Raises:
        DataError: No mask can be read, or they contain too many codes to be label masks.
    """
    stated = layout.label_map()
    census = _Census(config)
    for looked_at, sample in enumerate(samples, start=1):
        census.add(sample.mask, layout.files)
        enough = looked_at >= STATED_LOOKED_AT or not isinstance(sample.mask, MaskFile)
        if stated is not None and enough and _fits(census.exact, stated):
            return None
    if stated is not None and _fits(census.exact, stated):
        return None
    place = f"{config.path} (layout {layout.name})"
    if not census.number:
        raise DataError(f"no readable mask among those looked at in {config.path}")
    masks, settings, soft = census.clustered()
    doubts = list(soft)
    questions = []
    if census.are_instances:
        label_map = _instances_map(masks)
        questions.append(
            f"Do the values, which count from 1 in each mask (up to {max(_values(masks))}), number instances of one "
            "class, as proposed, or classes?"
        )
    else:
        label_map = _map_of(masks, stated, answers)
        questions += [
            f"Is {_spelled(code)} an object or void? `inspect --object {_spelled(code)}` or "
            f"`inspect --ignore {_spelled(code)}` says so."
            for code in _ambiguous(masks)
            if code not in answers.objects | answers.ignored
        ]
        if stated is not None and _lacks_background(masks, stated):
            questions.append(
                f"The list names {stated.num_classes} classes, and the masks hold {stated.num_classes + 1} values: is "
                "0 the background, which the list leaves out, as proposed?"
            )
        if {254, 255} <= masks.keys():
            doubts.append("254 beside 255 is an object of its own, or 255 a little off (data.color_tolerance: 1).")
    if "soft_edges" in settings and answers.soft_edges:
        settings["soft_edges"] = answers.soft_edges
    elif "soft_edges" in settings:
        questions.append(
            "Do smoothed edges become the nearest class or void? `inspect --soft-edges nearest` or "
            "`inspect --soft-edges ignore` says so."
        )
    if unnamed := [label.name for label in label_map.classes if label.name.startswith(("class_", "color_"))]:
        doubts.append(f"Nobody has named the classes {', '.join(unnamed[:5])}{' ...' * (len(unnamed) > 5)}.")
    return Proposal(label_map, masks, place, tuple(doubts), " ".join(questions) or None, settings)


def codes_of(mask: Mask, files: FileSystem, max_pixels: int) -> set[Code] | MaskCodes:
    """The distinct codes of an annotation, or those of each pixel of a mask file.

    Raises:
        DataError: The mask cannot be read.
    """
    if isinstance(mask, Shapes):
        return _named(*(shape.label for shape in mask.shapes), mask.background)
    if isinstance(mask, PanopticFile):
        return _named(*mask.segments.values())

    def check_size(size: Size) -> None:
        if math.prod(size) > max_pixels:
            raise DataError(f"mask too large: {size[1]}x{size[0]}; data.max_pixels allows {max_pixels} pixels")

    return read_codes(mask.path, files, check_size)


def label_map_yaml(label_map: LabelMap, masks: Mapping[Code, int]) -> str:
    """A label map as YAML, one class per line, with the number of masks that contain its codes as a comment."""
    lines = ["label_map:", "  classes:"]
    for label in label_map.classes:
        parts = [f"name: {scalar_yaml(label.name)}"]
        parts += [f"values: {list(label.values)}"] * bool(label.values)
        parts += [f"colors: {[list(color) for color in label.colors]}"] * bool(label.colors)
        codes: list[Code] = [*label.values, *label.colors, label.name]
        counts = [masks[code] for code in codes if code in masks]
        lines.append(f"    - {{{', '.join(parts)}}}" + (f"  # in {max(counts)} masks" if counts else ""))
    lines.append(f"  ignore_values: {list(label_map.ignore_values)}")
    if label_map.ignore_colors or any(label.colors for label in label_map.classes):
        lines.append(f"  ignore_colors: {[list(color) for color in label_map.ignore_colors]}")
    return "".join(f"{line}\n" for line in lines)


def scalar_yaml(text: str) -> str:
    """Any string as YAML on one line."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**20).strip()


class _Census:
    """Counts the codes of masks, one mask after the other."""

    def __init__(self, config: DataConfig):
        self._config = config
        self.number = 0
        """Masks that could be read."""
        self.exact: Counter[Code] = Counter()
        """Number of masks with each code that means what it says: values and names; and gray, as long as it is."""
        self._continuous: dict[str, CodeCounts] = {}
        self._lengths: set[int] = set()
        self._consecutive = True

    def add(self, mask: Mask | None, files: FileSystem) -> None:
        """Adds a mask; one that cannot be read is passed over, since it is reported when the pair is read."""
        try:
            codes = set[Code]() if mask is None else codes_of(mask, files, self._config.max_pixels)
        except DataError:
            return
        self.number += mask is not None
        if not isinstance(codes, MaskCodes):
            self.exact.update(codes)
            return
        counts = CodeCounts.of(codes.codes)
        kind = "colors" if codes.are_colors else "gray" if codes.continuous else None
        if kind:
            before = self._continuous.get(kind)
            self._continuous[kind] = merged = before.merged(counts) if before else counts
            if len(merged.codes) > MOST_COLORS:
                raise self._too_many
        present = counts.codes.tolist()
        if not codes.are_colors:
            self._note_values(present)
        if kind is None or len(present) <= MAX_CLASSES + 1:
            self.exact.update(map(unpacked, present) if codes.are_colors else present)

    @property
    def are_instances(self) -> bool:
        """Whether the values count from 1 in each mask, up to numbers that differ."""
        return self._consecutive and len(self._lengths) > 1 and max(self._lengths) >= MOST_OBJECTS

    def clustered(self) -> tuple[dict[Code, int], dict[str, int | float | str], list[str]]:
        """Code -> number of masks; the settings with which soft masks can be read; and what is to be said of those.

        Raises:
            DataError: There are too many codes to be classes.
        """
        masks, settings, said = dict(self.exact), dict[str, int | float | str](), list[str]()
        for kind, counts in self._continuous.items():
            are_colors = kind == "colors"
            found = None if self.are_instances else find_clusters(counts, are_colors)
            if found is None:
                if len(counts.codes) > MAX_CLASSES and not self.are_instances:
                    raise self._too_many
                continue
            codes = [unpacked(code) if are_colors else code for code in counts.codes.tolist()]
            for code in codes:
                masks.pop(code, None)
            masks |= {
                unpacked(code) if are_colors else code: number
                for code, number in zip(found.codes, found.masks, strict=True)
            }
            settings |= _settings(found, settings)
            said.append(
                f"{len(codes)} different {'colours' if are_colors else 'values'} are {len(found.codes)} that are up to "
                f"{found.tolerance} off (data.color_tolerance)"
                + (f", and {found.edges:.1%} of the pixels smoothed edges (data.soft_edges)" if found.edges else "")
                + "."
            )
        if len(masks) > MAX_CLASSES and not self.are_instances:
            raise self._too_many
        return masks, settings, said

    @property
    def _too_many(self) -> DataError:
        return DataError(
            f"too many labels: the masks of {self._config.path} hold over {MAX_CLASSES} different values or colours; "
            "they look like photos, or like label images that were smoothed or saved as JPEG so strongly that their "
            "classes cannot be told apart"
        )

    def _note_values(self, present: list[int]) -> None:
        numbers = [value for value in present if value]
        if numbers and numbers != list(range(1, len(numbers) + 1)):
            self._consecutive = False
        self._lengths.add(len(numbers))


def _settings(found: Clusters, before: Mapping[str, int | float | str]) -> dict[str, int | float | str]:
    settings: dict[str, int | float | str] = {}
    tolerance = max(found.tolerance, int(before.get("color_tolerance", 0)))
    if tolerance:
        settings["color_tolerance"] = tolerance
    if found.edges:
        settings["soft_edges"] = "ignore"
        if (share := math.ceil(found.edges * 200) / 100) > DataConfig.model_fields["max_soft_edges"].default:
            settings["max_soft_edges"] = min(share, 1.0)
    return settings


def _named(*codes: Code | None) -> set[Code]:
    """The codes without None, which stands for the ignore label (void)."""
    return {code for code in codes if code is not None}


def _is_binary(masks: Mapping[Code, int]) -> bool:
    return any(masks.keys() <= codes for codes in BINARY)


def _fits(masks: Mapping[Code, int], stated: LabelMap) -> bool:
    """Whether the masks seem to match the label map that the layout states."""
    if IGNORE_LABEL in masks and IGNORE_LABEL not in value_ids(stated):
        return False
    if _lacks_background(masks, stated):
        return False
    return not _is_binary(masks) or (255 not in masks and (1 not in masks or stated.num_classes <= 2))


def _lacks_background(masks: Mapping[Code, int], stated: LabelMap) -> bool:
    """Whether masks hold one value more than there are names, which count from 0: 0 is the background then."""
    values = {value: label.name for label in stated.classes for value in label.values}
    found = set(_values(masks)) - {IGNORE_LABEL}
    return set(values) == set(range(len(values))) and found == set(range(len(values) + 1)) and len(values) > 1


def _ambiguous(masks: Mapping[Code, int]) -> list[Code]:
    """The codes of which only their author knows whether they are an object or the ignore label (void)."""
    return [code for code in (255, WHITE) if code in masks and (code == 255 or _is_binary(masks))]


def _map_of(masks: Mapping[Code, int], stated: LabelMap | None, answers: Answers) -> LabelMap:
    """A class for each code except void ones; 255 is proposed as void where the other values count classes from 1."""
    ignored = set(answers.ignored)
    if IGNORE_LABEL in masks and 1 in masks and IGNORE_LABEL not in answers.objects:
        ignored.add(IGNORE_LABEL)
    codes = [code for code in _in_order(masks) if code not in ignored]
    binary = _is_binary(masks)
    names: dict[Code, str] = {}
    if binary:
        names = {code: "background" if code in (0, BLACK) else "foreground" for code in codes}
    if stated is not None:
        named = [code for code in codes if isinstance(code, int)]
        # Two stated names are those of binary masks whatever their values.
        by_rank = binary and stated.num_classes == 2
        names |= dict(zip(named, stated.names, strict=False)) if by_rank else {}
        if _lacks_background(masks, stated):
            shifted = (ClassLabel(name=label.name, values=(label.values[0] + 1,)) for label in stated.classes)
            return LabelMap(
                classes=(_label(0, "background"), *shifted),
                ignore_values=tuple(v for v in ignored if isinstance(v, int)),
            )
        if not binary:
            extra = [code for code in codes if isinstance(code, int) and code not in value_ids(stated)]
            return LabelMap(
                classes=(*stated.classes, *(_label(code, _name(code)) for code in extra)),
                ignore_values=(*stated.ignore_values, *(code for code in ignored if isinstance(code, int))),
                ignore_colors=stated.ignore_colors,
            )
    return LabelMap(
        classes=tuple(_label(code, names.get(code) or _name(code)) for code in codes),
        ignore_values=tuple(sorted(code for code in ignored if isinstance(code, int))),
        ignore_colors=tuple(sorted(code for code in ignored if isinstance(code, tuple))),
    )


def _instances_map(masks: Mapping[Code, int]) -> LabelMap:
    """One class for all instances; of 8 bits, for all that there can be."""
    largest = max(_values(masks))
    objects = range(1, max(largest, 255) + 1)
    return LabelMap(classes=(_label(0, "background"), ClassLabel(name="object", values=tuple(objects))))


def _values(masks: Mapping[Code, int]) -> list[int]:
    return [code for code in masks if isinstance(code, int)]


def _label(code: Code, name: str) -> ClassLabel:
    values = (code,) if isinstance(code, int) else ()
    return ClassLabel(name=name, values=values, colors=(code,) if isinstance(code, tuple) else ())


def _name(code: Code) -> str:
    if isinstance(code, int):
        return f"class_{code}"
    return code if isinstance(code, str) else "color_{:02x}{:02x}{:02x}".format(*code)


def _spelled(code: Code) -> str:
    """A code as `--object` and `--ignore` take it."""
    return ",".join(map(str, code)) if isinstance(code, tuple) else str(code)


def _in_order(codes: Iterable[Code]) -> list[Code]:
    """Values, then names, then colours, each sorted."""
    return sorted(codes, key=lambda code: (str(type(code)), code))
