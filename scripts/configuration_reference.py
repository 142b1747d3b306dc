"""Writes docs/configuration.md: every key of the configuration with its type, default and meaning. Run by `make docs`.

Everything on the page is read from the JSON schema of the configuration, which pydantic makes from the sections
(`pipeline.config.Config`): the docstring of a section introduces it, the docstring of a field is its meaning.
"""

import json
import re
from pathlib import Path
from typing import Any

from data.section import Section
from pipeline.config import Config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

`make docs` writes this page from the docstrings of the configuration's sections; do not edit it.

A YAML file holds the differences from the defaults, and `--set section.key=value` overrides one of them. `--config` may
be given several times: the later files win, key by key; a list or a label map is replaced whole. An unknown key is an
error that names the nearest known one, and a key that stands twice in a file is an error that names the line.

Files and `--set` are read as YAML 1.2: `true` and `false` are the only booleans, so `no`, `on` and `2:30` are text, and
`0100` is 100. Nothing is converted: a number in quotes is text. Numbers are finite. A file has at most 1 MiB, 32 levels
and 100,000 values.

`python local_runner.py schema` writes a JSON schema, from which editors
complete and check such files. Complete examples are in [pipeline/configs/](../pipeline/configs)."""
#: JSON Schema's keyword -> how a bound reads after the type.
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "pattern": "matches `{}`",
}

Schema = dict[str, Any]


def sections_of(field: Schema) -> list[str]:
    """Names of the sections that a field's type refers to."""
    return re.findall(r'"#/\$defs/(\w+)"', json.dumps(field))


def find_places(section: Schema, path: str, definitions: Schema, places: dict[str, str]) -> None:
    """Records the first key of each section, followed by the sections nested in it."""
    for key, field in section["properties"].items():
        for name in sections_of(field):
            if name not in places:
                places[name] = f"{path}{key}"
                find_places(definitions[name], f"{path}{key}.", definitions, places)


def value_text(value: Any) -> str:
    """A value in YAML, formatted as code."""
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def type_text(schema: Schema, places: dict[str, str]) -> str:
    """A type with its allowed values or range; a section is a link to where it is described."""
    if "$ref" in schema:
        (name,) = sections_of(schema)
        return f"[{places[name]}](#{places[name].replace('.', '')})"
    if "anyOf" in schema:
        return " or ".join(type_text(part, places) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(value_text, schema.get("enum", [schema.get("const")])))
    if schema["type"] == "null":
        return "`null`"
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {type_text(schema['prefixItems'][0], places)}"
    if schema["type"] == "array":
        return f"list of {type_text(schema['items'], places)}"
    if schema["type"] == "object":
        (values,) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).values()
        return f"mapping to {type_text(values, places)}"
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    return ", ".join([schema.get("format", schema["type"]), *bounds])


def table(section: Schema, definitions: Schema, places: dict[str, str]) -> str:
    """The keys of a section, one per row."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in section["properties"].items():
        nested = [definitions[name] for name in sections_of(field)]
        meaning = field.get("description") or (nested[0]["description"].split("\n\n")[0] if nested else "")
        if key in section.get("required", ()):
            default = "required"
        elif "$ref" in field:
            default = "see there"
        else:
            default = value_text(field.get("default", {}))
        cells = f"`{key}`", type_text(field, places), default, meaning
        rows.append("| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def reference(config: type[Section]) -> str:
    """The page, as Markdown. A section that stands in several places is described at the first of them."""
    schema = config.model_json_schema()
    definitions, places = schema["$defs"], {}
    find_places(schema, "", definitions, places)
    parts = [HEAD, table(schema, definitions, places)]
    for name, place in places.items():
        section = definitions[name]
        parts += [
            "#" * (place.count(".") + 2) + f" {place}",
            section["description"],
            table(section, definitions, places),
        ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(Config), encoding="utf-8")
