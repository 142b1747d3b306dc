"""`schema`: the JSON schema of the configuration, for editors."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.application import quietly


def schema(
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("config.schema.json"),
) -> None:
    """Write a JSON schema of the configuration, for editors."""
    with quietly():
        from pipeline.config import Config

    out.write_text(json.dumps(Config.model_json_schema(), indent=2) + "\n", encoding="utf-8")
    Console().print(f"wrote {out}; in an editor: # yaml-language-server: $schema={out}")
