"""Configuration as text: YAML 1.2 with its core schema, of bounded size. What is written reads back as the same value.

PyYAML by itself reads YAML 1.1, where `no` is false, `0100` is 64, `2:30` is 150, and the last of two equal keys wins
in silence. JSON is read as JSON, since PyYAML misreads surrogate pairs and line separators in its strings.
Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

import json
import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

from data.errors import ConfigError, shortened

#: Largest size of a text, in bytes. PyYAML reads some 100 kB in a second.
LARGEST_TEXT = 1 << 20
#: Deepest nesting of mappings and lists, one inside the other.
DEEPEST = 32
#: Largest number of values in a text, where an alias counts for all the values that it repeats.
MOST_VALUES = 100_000
#: Longest string, in characters.
LONGEST_STRING = 10_000

#: Type of a plain scalar -> its pattern, and the characters that it may begin with.
_CORE = {
    "null": (r"null|Null|NULL|~|", "nN~"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_TAG = "tag:yaml.org,2002:"

#: Characters that end a line in YAML 1.1 and not in 1.2, and how a quoted string spells them.
_FORMER_BREAKS = {"\x85": r"\N", "\u2028": r"\L", "\u2029": r"\P"}


class _Loader(yaml.BaseLoader):
    """Recognises scalars as the core schema does, and refuses deep nesting before it is recursed into."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes the next node."""
        if self._depth > DEEPEST:
            problem = f"nested deeper than {DEEPEST} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Quotes each string that YAML 1.1 or 1.2 would read as something else when it is plain."""


def _represent_string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(character in text for character in ("\n", *_FORMER_BREAKS)) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


Dumper.add_representer(str, _represent_string)
for _name, (_pattern, _first) in _CORE.items():
    for _resolver in (_Loader, Dumper):
        _resolver.add_implicit_resolver(
            _TAG + _name, re.compile(rf"(?:{_pattern})\Z"), [*_first, *[""][: _name == "null"]]
        )


def dump(value: Any) -> str:
    """A value as YAML, each string on one line; `parse` reads the same value."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=LARGEST_TEXT)


def parse(text: str, place: str) -> Any:
    """Reads one YAML or JSON document.

    Args:
        text: The document.
        place: The file or option that it stands in, for errors.

    Returns:
        None, a bool, int, float, str, or a list or dict of such values. A key is the text that stands there: `1` is
        "1".

    Raises:
        ConfigError: The text is not valid or too large, a key stands twice in one mapping, or a tag asks for
            another type than these.
    """
    if len(text) > LARGEST_TEXT:
        raise ConfigError(f"{place}: larger than {LARGEST_TEXT} bytes, which is the most that is read")
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except (ValueError, RecursionError):
        value = _Document(text, place).value()
    _check(value, place, ())
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key stands twice")  # _Document names it, and its line
    return mapping


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class _Document:
    """A YAML document, and the number of values that were taken from it."""

    def __init__(self, text: str, place: str):
        self._text = text
        self._place = place
        self._count = 0

    def value(self) -> Any:
        """The value of the whole document."""
        for character, escape in _FORMER_BREAKS.items():
            if character in self._text:
                line = self._text[: self._text.index(character)].count("\n")
                raise self._error(
                    line, f'holds U+{ord(character):04X}, which not all readers take alike; write it as "{escape}"'
                )
        try:
            node = _Loader(self._text).get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            raise self._error(mark.line if mark else None, f"cannot be read as YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{self._place}: cannot be read as YAML: {str(error).splitlines()[0]}") from None
        return None if node is None else self._value(node, ())

    def _error(self, line: int | None, problem: str) -> ConfigError:
        where = f", line {line + 1}" if line is not None and "\n" in self._text else ""
        return ConfigError(f"{self._place}{where}: {shortened(problem, 300)}")

    def _value(self, node: yaml.Node, key: tuple[str, ...]) -> Any:
        line, name = node.start_mark.line, node.tag.removeprefix(_TAG)
        self._count += 1
        if self._count > MOST_VALUES:
            raise self._error(line, f"more than {MOST_VALUES} values, those that aliases repeat included")
        if len(key) > DEEPEST:  # An alias may stand inside of what it repeats.
            raise self._error(line, f"nested deeper than {DEEPEST} levels")
        if isinstance(node, yaml.MappingNode) and name == "map":
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and name == "seq":
            return [self._value(item, (*key, str(index))) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and name in (*_CORE, "str"):
            try:
                return _scalar(name, node.value)
            except ValueError:
                raise self._error(line, f"{dotted(key)}: {shortened(node.value)} is no {name}") from None
        raise self._error(line, f"{dotted(key)}: the tag {node.tag} is not read; allowed: values without a tag")

    def _mapping(self, node: yaml.MappingNode, key: tuple[str, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name_node, value_node in node.value:
            line, name = name_node.start_mark.line, name_node.value
            if not isinstance(name, str):
                raise self._error(line, f"{dotted(key)}: a list or mapping stands where a key is due; allowed: text")
            if name in lines:
                raise self._error(
                    line,
                    f"{dotted((*key, name))} stands here a second time, after line {lines[name] + 1}; keep one of the "
                    "two, or write them to two files and give both with --config",
                )
            lines[name] = line
            mapping[name] = self._value(value_node, (*key, name))
        return mapping


def _scalar(name: str, text: str) -> bool | int | float | str | None:
    """The value of a scalar of a type of the core schema; ValueError if the text is not of that type."""
    if name == "str":
        return text
    if not re.fullmatch(_CORE[name][0], text):
        raise ValueError(text)
    if name == "null":
        return None
    if name == "bool":
        return text.lower() == "true"
    if name == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text.replace(".", "") if text[-1].isalpha() else text)


def _check(value: Any, place: str, key: tuple[str, ...]) -> None:
    """Raises ConfigError for what no section can hold: nesting and strings without end, half a character."""
    if isinstance(value, str):
        if len(value) > LONGEST_STRING:
            raise ConfigError(f"{place}: {dotted(key)}: longer than {LONGEST_STRING} characters")
        if re.search(r"[\ud800-\udfff]", value):
            raise ConfigError(f"{place}: {dotted(key)}: {shortened(ascii(value))} is not Unicode text")
    elif isinstance(value, list | dict):
        if len(key) >= DEEPEST:
            raise ConfigError(f"{place}: nested deeper than {DEEPEST} levels")
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _check(str(name), place, key)
            _check(part, place, (*key, str(name)))


def dotted(key: tuple[Hashable, ...]) -> str:
    """A key for an error: its parts joined by dots, each shortened."""
    return ".".join(shortened(str(part)) for part in key) or "the value"
