"""Every command, option, file and configuration key that the guides for operators name exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

import local_runner
from pipeline.config import Config

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "docs/runbook.md", ROOT / "docs/serving.md", ROOT / "docs/targets.md"]

#: Other names that look like keys.
FILES = {"hub.json", "hub.load", "input.json", "lite.json", "metadata.sqlite", "report.html", "serving.py"}

COMMANDS = typer.main.get_command(local_runner.app).commands  # type: ignore[attr-defined]


def commands(guide: Path) -> Iterator[list[str]]:
    """The words of each call of `local_runner.py` after it."""
    for line in re.findall(r"python local_runner\.py ([^`#\n]+)", guide.read_text()):
        yield shlex.split(line)


def keys(guide: Path) -> set[str]:
    """What looks like section.key of the configuration."""
    return set(re.findall(rf"\b(?:{'|'.join(Config.model_fields)})\.[a-z_]+(?:\.[a-z_]+)*", guide.read_text()))


def is_key(key: str) -> bool:
    section: type[BaseModel] = Config
    for part in key.split("."):
        if part not in section.model_fields:
            return False
        kind = section.model_fields[part].annotation
        section = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else BaseModel
    return True


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_commands_and_their_options_exist(guide: Path):
    found = list(commands(guide))

    assert found
    for name, *words in found:
        assert name in COMMANDS, f"{guide.name}: local_runner.py {name}"
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"{guide.name}: {name} {words}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_configuration_keys_exist(guide: Path):
    found = keys(guide)

    assert found
    assert {key for key in found if not is_key(key)} <= FILES


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_scripts_and_links_exist(guide: Path):
    text = guide.read_text()

    assert all((ROOT / script).is_file() for script in re.findall(r"\bscripts/[a-z_]+\.(?:sh|py)\b", text))
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in headings(text)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if path:
            assert (guide.parent / path).exists(), target
        elif anchor:
            assert anchor in anchors, target


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)
