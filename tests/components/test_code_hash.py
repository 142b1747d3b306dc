from pathlib import Path

import pytest

from components.code_hash import code_hash, source_files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "data/__init__.py": "",
        "data/masks.py": "VOID = 255\n",
        "data/unused.py": "",
        "models/__init__.py": "",
        "models/net.py": "def build():\n    from data import masks\n    return masks\n",
        "components/__init__.py": "import os\n",
        "components/training/__init__.py": "",
        "components/publishing/__init__.py": "",
        "components/training/trainer.py": "import models.net\n",
        "components/publishing/pusher.py": "import json\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def changed_by(project: Path, edited: str) -> list[str]:
    modules = ["components.training.trainer", "components.publishing.pusher"]
    source_files.cache_clear()
    before = {module: code_hash(module, project) for module in modules}
    with (project / edited).open("a") as file:
        file.write("# edited\n")
    source_files.cache_clear()
    return [module for module in modules if code_hash(module, project) != before[module]]


def test_follows_imports_into_functions_and_packages(project: Path) -> None:
    found = {path.relative_to(project).as_posix() for path in source_files("components.training.trainer", project)}
    assert found == {
        "components/__init__.py",
        "components/training/__init__.py",
        "components/training/trainer.py",
        "models/__init__.py",
        "models/net.py",
        "data/__init__.py",
        "data/masks.py",
    }


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("data/masks.py", ["components.training.trainer"]),
        ("models/net.py", ["components.training.trainer"]),
        ("components/publishing/pusher.py", ["components.publishing.pusher"]),
        ("components/__init__.py", ["components.training.trainer", "components.publishing.pusher"]),
        ("data/unused.py", []),
    ],
)
def test_an_edit_changes_the_hash_of_what_imports_it_and_of_nothing_else(
    project: Path, edited: str, stages: list[str]
) -> None:
    assert changed_by(project, edited) == stages


def test_an_edit_of_the_network_reaches_the_trainer_but_not_example_gen() -> None:
    def names(module: str) -> set[str]:
        return {path.name for path in source_files(module)}

    assert "deeplab.py" in names("components.training.trainer")
    assert "deeplab.py" not in names("components.ingest.example_gen")
    assert "preprocess.py" in names("components.transform") & names("components.training.trainer")
