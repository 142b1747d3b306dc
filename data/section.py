"""The base of every configuration section, and what pydantic found wrong, in a line."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """One frozen, validated part of the configuration.

    Each section is defined beside the code that uses it and composed in `pipeline/config.py`. Its JSON
    (`model_dump_json`) is what travels through TFX, so that it is recorded in ML Metadata and part of the cache key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, after the key where it is."""
    problem = error.errors()[0]
    return ": ".join(part for part in (".".join(map(str, problem["loc"])), problem["msg"]) if part)
