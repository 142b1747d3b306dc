"""Names of classes from the file that lies beside the folders of images and masks, as tools and people write it."""

import csv
import re

from pydantic import ValidationError

from data.errors import DataError
from data.files import FileSystem, read_lines
from data.labels import Color, LabelMap

#: Files that name classes, in the order of preference.
NAMES = (
    *("classes.txt", "labels.txt", "class_names.txt", "labelmap.txt", "label_map.txt", "_classes.csv", "classes.csv"),
    *("labels.csv", "class_dict.csv", "codes.txt", "obj.names"),
)

#: Names, in lower case, of what is the ignore label and no class.
VOID = ("void", "ignore", "ignored")

_NUMBERED = re.compile(r"(\d+)\s*[\s:,;=]\s*(.+)")
_COLORED = re.compile(r"(.+?)\s*[:,;]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?")

#: The most lines that are read: more than there can be classes.
MOST_LINES = 10_000


def class_table(root: str, files: FileSystem) -> dict[int, str] | None:
    """Label value -> name of its class, from the file beside the folders; None if there is no such file.

    The file has a name a line, the first one that of the value 0; or lines such as `0 background`, `0: background` or
    `0,background`; or is a CSV with a heading such as `Pixel Value, Class`. A list of colours (`label:r,g,b`) counts
    its lines from 0; `color_table` gives its colours. Lines that begin with # are comments.

    Raises:
        DataError: a line cannot be understood, or a value or name occurs twice.
    """
    found = _entries(root, files)
    if found is None:
        return None
    place, lines = found
    colored = [_COLORED.fullmatch(text) for _, text in lines]
    if lines and all(colored):
        return _unique(place, [(i, match[1]) for i, match in enumerate(colored) if match])
    numbered = [_NUMBERED.fullmatch(text) for _, text in lines]
    if lines and all(numbered):
        return _unique(place, [(int(match[1]), match[2].strip().strip('"')) for match in numbered if match])
    if any(numbered):
        number, text = next(line for line, match in zip(lines, numbered, strict=True) if not match)
        raise DataError(f"malformed class list: {place}:{number}: {text!r}; the lines before have a value and a name")
    return _unique(place, list(enumerate(text for _, text in lines)))


def color_table(root: str, files: FileSystem) -> dict[Color, str] | None:
    """RGB colour -> name of its class, where the file beside the folders is a list of colours; None otherwise.

    Raises:
        DataError: a channel exceeds 255, or a colour or name occurs twice.
    """
    found = _entries(root, files)
    matches = [_COLORED.fullmatch(text) for _, text in found[1]] if found else []
    if not found or not matches or not all(matches):
        return None
    table: dict[Color, str] = {}
    for match in matches:
        if match is None:
            continue
        color = (int(match[2]), int(match[3]), int(match[4]))
        if max(color) > 255 or color in table or match[1] in table.values():
            raise DataError(
                f"malformed class list: {found[0]}: {match[0]!r}; each colour, of 0 to 255, and name stand once"
            )
        table[color] = match[1]
    return table


def table_label_map(root: str, files: FileSystem) -> LabelMap | None:
    """The label map that the file beside the folders states, colours included; None if there is no such file.

    Raises:
        DataError: the file cannot be understood.
    """
    names, colors = class_table(root, files), color_table(root, files) or {}
    if names is None:
        return None
    of_name = {name: color for color, name in colors.items()}
    void = [value for value, name in names.items() if name.lower() in VOID]
    classes = [
        {"name": name, "values": [value], "colors": [of_name[name]] if name in of_name else []}
        for value, name in names.items()
        if value not in void
    ]
    ignored = {"ignore_values": void, "ignore_colors": [of_name[names[v]] for v in void if names[v] in of_name]}
    try:
        return LabelMap.model_validate({"classes": classes, **ignored})
    except ValidationError as error:
        raise DataError(f"invalid label map: the class list in {root}: {error.errors()[0]['msg']}") from None


def _entries(root: str, files: FileSystem) -> tuple[str, list[tuple[int, str]]] | None:
    """The file and its (line number, text) without comments and heading."""
    for name in NAMES:
        path = files.join(root, name)
        if not files.exists(path):
            continue
        lines = [(number, text) for number, text in read_lines(path, files) if not text.startswith("#")]
        if len(lines) > MOST_LINES:
            raise DataError(f"malformed class list: {path} has {len(lines)} lines; at most {MOST_LINES} are read")
        if name.endswith(".csv"):
            lines = [(number, ",".join(next(csv.reader([text], skipinitialspace=True)))) for number, text in lines]
            # The heading, such as `Pixel Value, Class` or `name,r,g,b`: the one line without a number.
            lines = lines[1:] if lines and not re.search(r"\d", lines[0][1]) else lines
        return path, lines
    return None


def _unique(place: str, entries: list[tuple[int, str]]) -> dict[int, str]:
    table = dict(entries)
    if len(table) != len(entries) or len(set(table.values())) != len(entries):
        raise DataError(f"malformed class list: {place}: a value or a name occurs twice; each must occur once")
    return table
