"""The base of every configuration section."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One frozen, validated part of the configuration.

    Each section is defined beside the code that uses it and composed in `pipeline/config.py`. Its JSON
    (`model_dump_json`) is what travels through TFX, so that it is recorded in ML Metadata and part of the cache key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
