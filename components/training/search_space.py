"""The fields that a hyperparameter search may vary, and how the values found enter the configuration.

A field is named by its dotted path below `model`, `training` or `augment`: `training.loss.dice`.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from data.config import AugmentConfig
from data.section import Section
from models.config import ModelConfig, TrainingConfig

SECTIONS: dict[str, type[Section]] = {"model": ModelConfig, "training": TrainingConfig, "augment": AugmentConfig}

Value = bool | int | float | str


def _types(section: type[Section], prefix: str) -> Iterator[tuple[str, set[Any]]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _types(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", {getattr(part, "__origin__", part) for part in (kind, *get_args(kind))}


#: Field -> what it may hold: types and, for a `Literal`, values.
FIELDS = {path: kinds for name, section in SECTIONS.items() for path, kinds in _types(section, f"{name}.")}


def is_integer(field: str) -> bool:
    """Whether a field holds a whole number."""
    return int in FIELDS[field]


def is_number(field: str) -> bool:
    """Whether a field holds a number, so that a search may give it a range."""
    return bool({int, float} & FIELDS[field])


def with_values(tree: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A copy of a tree of sections in which some fields, named by their paths, have other values."""
    changed = copy.deepcopy(dict(tree))
    for path, value in values.items():
        *parents, last = path.split(".")
        node = changed
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed


def chosen_values(hyperparameters: Mapping[str, Any]) -> dict[str, Value]:
    """Field -> value of KerasTuner's hyperparameters, without the entries that its algorithms add."""
    return {name: value for name, value in hyperparameters.items() if name in FIELDS}


def short(value: Value) -> str:
    """A value as text for people: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
