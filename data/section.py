"""The base of every configuration section, fields that were renamed, and what pydantic found wrong, in a line."""

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from data.errors import ConfigError

#: Bounds that no real use exceeds: longest time in seconds (a year), most steps of a training, longest side in pixels,
#: most of anything that a person counts (images, runs, requests).
LONGEST_SECONDS = 31_536_000
MOST_STEPS = 100_000_000
LONGEST_SIDE = 65_536
MOST = 1_000_000


class Section(BaseModel):
    """One frozen, validated part of the configuration.

    Each section is defined beside the code that uses it and composed in `pipeline/config.py`. Its JSON
    (`model_dump_json`) is what travels through TFX, so that it is recorded in ML Metadata and part of the cache key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Name that a field had in the version before -> its name now. Both are read; `pipeline.config` warns of the former
    ones that a person wrote, and recorded configurations may keep them."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Any) -> Any:
        return with_current_names(cls, values)[0] if isinstance(values, Mapping) else values


def with_current_names(
    section: type[Section], values: Mapping[str, Any], above: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Gives the fields of a section and of the sections in it the names that they have now.

    Args:
        section: the section that the values are of.
        values: a tree of values that need not be valid; keys that are not fields stay.
        above: key of the section, followed by a dot, for the error.

    Returns:
        The tree with current names, and former key -> current key, as dotted paths, of each field that was renamed.

    Raises:
        ConfigError: a field has a value under both names.
    """
    tree: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for key, value in values.items():
        name = section.former_names.get(key, key)
        if name != key:
            if name in values:
                raise ConfigError(
                    f"{above}{key} is the former name of {above}{name}, and both are given; remove {above}{key}"
                )
            renamed[f"{above}{key}"] = f"{above}{name}"
        tree[name] = value
        part = subsection(section, name)
        if part and isinstance(value, Mapping):
            tree[name], below = with_current_names(part, value, f"{above}{name}.")
            renamed |= below
    return tree, renamed


def current_path(section: type[Section], path: Iterable[str]) -> tuple[str, ...]:
    """The path of a field as it is named now; parts below what is not a section stay as they are."""
    part: type[Section] | None = section
    names = []
    for key in path:
        names.append(part.former_names.get(key, key) if part else key)
        part = subsection(part, names[-1]) if part else None
    return tuple(names)


def subsection(section: type[Section], name: str) -> type[Section] | None:
    """The section that a field holds, or may hold; None for any other field."""
    annotation = section.model_fields[name].annotation if name in section.model_fields else None
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, after the key where it is."""
    problem = error.errors()[0]
    return ": ".join(part for part in (".".join(map(str, problem["loc"])), problem["msg"]) if part)
