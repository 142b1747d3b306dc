"""docs/configuration.md lists every key of the configuration with its type, default and meaning."""

import runpy
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from data.section import Section
from pipeline.config import Config

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[1] / "scripts" / "configuration_reference.py"))
SCHEMA = Config.model_json_schema()


class Limit(Section):
    """What one class must reach.

    More of it.
    """

    floor: float = Field(default=0.5, gt=0, le=1)
    """Smallest value,
    as a fraction; a | b."""


class Check(Section):
    """What is checked."""

    limit: Limit = Limit()
    by_class: dict[str, Limit] = Field(default={})
    """Class -> its limit."""


class Settings(Section):
    """All of it."""

    path: str = Field(min_length=1)
    """Where the images are."""
    mode: Literal["fast", "exact"] = "fast"
    """How."""
    size: int | tuple[int, int] | None = None
    """Side in pixels."""
    names: tuple[str, ...] = ("a", "b")
    """Names."""
    note: str = Field(default="", pattern="^(x|y)?$")
    """A note."""
    check: Check = Check()


SETTINGS = r"""
| key | type | default | meaning |
| --- | --- | --- | --- |
| `path` | string, length ≥ 1 | required | Where the images are. |
| `mode` | `fast`, `exact` | `fast` | How. |
| `size` | integer or list of 2: integer or `null` | `null` | Side in pixels. |
| `names` | list of string | `["a", "b"]` | Names. |
| `note` | string, matches `^(x\|y)?$` | `""` | A note. |
| `check` | [check](#check) | see there | What is checked. |

## check

What is checked.

| key | type | default | meaning |
| --- | --- | --- | --- |
| `limit` | [check.limit](#checklimit) | see there | What one class must reach. |
| `by_class` | mapping to [check.limit](#checklimit) | `{}` | Class -> its limit. |

### check.limit

What one class must reach.

More of it.

| key | type | default | meaning |
| --- | --- | --- | --- |
| `floor` | number, > 0, ≤ 1 | `0.5` | Smallest value, as a fraction; a \| b. |
"""


def test_the_page_holds_what_the_sections_say_now():
    assert SCRIPT["PAGE"].read_text(encoding="utf-8") == SCRIPT["reference"](Config), "run `make docs`"


def test_keys_become_rows_and_nested_sections_headings():
    page = SCRIPT["reference"](Settings)

    assert page.startswith("# Configuration\n")
    assert page.endswith(SETTINGS)


@pytest.mark.parametrize("section", [SCHEMA, *SCHEMA["$defs"].values()], ids=lambda section: section["title"])
def test_a_section_inside_another_has_its_own_defaults(section: dict[str, Any]):
    for field in section["properties"].values():
        if "$ref" in field and "default" in field:
            nested = SCHEMA["$defs"][field["$ref"].rpartition("/")[2]]["properties"]
            assert field["default"] == {key: part.get("default", {}) for key, part in nested.items()}


@pytest.mark.parametrize("section", [SCHEMA, *SCHEMA["$defs"].values()], ids=lambda section: section["title"])
def test_every_key_has_a_meaning(section: dict[str, Any]):
    assert section["description"]
    assert [key for key, field in section["properties"].items() if not {"description", "$ref"} & field.keys()] == []
