"""Imports point one way: data <- models <- components <- pipeline <- runners, and one way between the rooms inside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("data", "models", "components", "pipeline")
RUNNERS = ("local_runner", "kubeflow_runner")

#: The rooms of each layer, packages and modules, from the lowest to the highest: each may import those before it.
ROOMS = {
    "models": ("config", "metrics", "network", "training", "export", "weights"),
    "components": (
        *("artifacts", "slicing", "config", "code_hash", "drivers", "function_component", "storage"),
        *("ingest", "spans", "validation", "transform", "targets", "publishing", "training", "evaluation"),
        "beam_workers",
    ),
    "pipeline": (
        *(
            "stages",
            "cron",
            "tokens",
            "hardware",
            "workspace",
            "sections",
            "yaml_text",
            "config",
            "metadata",
            "records",
            "report",
        ),
        *("pipeline", "local", "training_time", "dry_run", "retention", "rollback", "run"),
        *("inspection", "prediction", "serving", "schedule", "kubeflow", "doctor", "cli"),
    ),
}

TFX_FAMILY = {
    "apache_beam",
    "kfp",
    "ml_metadata",
    "tensorflow_data_validation",
    "tensorflow_metadata",
    "tensorflow_model_analysis",
    "tensorflow_transform",
    "tfx",
    "tfx_bsl",
}
#: The modules of data/ that are about tf.data and preprocessing; the others do without TensorFlow.
DATA_WITH_TENSORFLOW = {"data.preprocess", "data.augment", "data.input"}
#: The network itself is Keras 3 alone.
NETWORK = ("models.network.deeplab", "models.network.heads", "models.network.backbones")


def module_name(path: Path, root: Path) -> str:
    """Dotted name of a source file: `data/layouts/__init__.py` -> `data.layouts`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of each import in a source file, wherever it stands; relative ones made absolute."""
    package = module_name(path.parent / "__init__.py", root).split(".")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "import_module"}:
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def is_in(module: str, *packages: str) -> bool:
    """Whether a module is one of the packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def broken_rule(module: str, imported: str) -> str | None:
    """The rule that an import breaks, if any."""
    layer, target = module.partition(".")[0], imported.partition(".")[0]
    if target in RUNNERS:
        return "nothing imports a runner"
    if layer in LAYERS and target in LAYERS[LAYERS.index(layer) + 1 :]:
        return "imports point one way: data <- models <- components <- pipeline <- runners"
    if layer == target and (rooms := ROOMS.get(layer)):
        room, target_room = (name.split(".")[1] if "." in name else "" for name in (module, imported))
        if {room, target_room} <= set(rooms) and rooms.index(target_room) > rooms.index(room):
            return f"rooms of {layer}/ import one way: {' <- '.join(rooms)}"
    if layer in ("data", "models") and target in TFX_FAMILY:
        return "data and models import nothing of TFX, Beam or KFP"
    if target == "kfp" and not module.startswith("pipeline.kubeflow"):
        return "only pipeline's Kubeflow part imports kfp"
    if layer == "data" and target == "tensorflow" and module not in DATA_WITH_TENSORFLOW:
        return f"in data/ only {', '.join(sorted(DATA_WITH_TENSORFLOW))} import tensorflow"
    if is_in(module, *NETWORK) and target == "tensorflow":
        return "the network is Keras 3 alone"
    return None


def violations(root: Path) -> list[str]:
    """Every import below `root` that breaks a rule: `path:line: module imports module: rule`."""
    sources = [path for layer in LAYERS for path in sorted((root / layer).rglob("*.py"))]
    sources += [path for runner in RUNNERS if (path := root / f"{runner}.py").exists()]
    found = []
    for path in sources:
        module = module_name(path, root)
        for line, imported in imported_modules(path, root):
            if rule := broken_rule(module, imported):
                found.append(f"{path.relative_to(root)}:{line}: {module} imports {imported}: {rule}")
    return found


def test_the_project_keeps_the_import_rules():
    assert violations(ROOT) == []


@pytest.mark.parametrize("layer", ROOMS)
def test_every_room_has_its_place_in_the_order(layer: str):
    found = {path.stem for path in (ROOT / layer).glob("*.py")} - {"__init__"}
    found |= {path.parent.name for path in (ROOT / layer).glob("*/__init__.py")}
    assert found == set(ROOMS[layer])


def test_every_layer_is_looked_at():
    assert all(list((ROOT / layer).rglob("*.py")) for layer in LAYERS)


def write(root: Path, path: str, source: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    return file


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("data/masks.py", "import models.network.deeplab", "one way"),
        ("data/masks.py", "from models import deeplab", "one way"),
        ("models/training/losses.py", "def f():\n    from components.training.trainer import run", "one way"),
        ("components/training/trainer.py", "import pipeline", "one way"),
        ("components/training/trainer.py", "import importlib\nimportlib.import_module('pipeline.config')", "one way"),
        ("data/masks.py", "import apache_beam as beam", "nothing of TFX, Beam or KFP"),
        ("models/training/loop.py", "from tfx.v1 import dsl", "nothing of TFX, Beam or KFP"),
        ("models/network/heads.py", "from models.training.losses import dice", "rooms of models/ import one way"),
        ("components/storage/atomic.py", "import components.publishing.pusher", "rooms of components/ import one way"),
        ("pipeline/run.py", "from pipeline.cli import run", "rooms of pipeline/ import one way"),
        ("pipeline/metadata/store.py", "from pipeline import run", "rooms of pipeline/ import one way"),
        (
            "models/metrics/confusion.py",
            "try:\n    import tensorflow_model_analysis\nexcept ImportError: ...",
            "nothing of TFX",
        ),
        ("components/training/trainer.py", "from kfp import dsl", "Kubeflow part"),
        ("local_runner.py", "import kfp", "Kubeflow part"),
        ("pipeline/report.py", "import local_runner", "nothing imports a runner"),
        ("kubeflow_runner.py", "from local_runner import app", "nothing imports a runner"),
        ("data/masks.py", "import tensorflow as tf", "import tensorflow"),
        ("models/network/backbones/resnet.py", "from tensorflow import nn", "Keras 3 alone"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, path: str, source: str, rule: str):
    write(tmp_path, path, source)

    (violation,) = violations(tmp_path)

    assert rule in violation


def test_a_violation_is_reported_with_its_file_and_line(tmp_path: Path):
    write(tmp_path, "data/layouts/coco.py", "import json\n\nfrom ..labels import LabelMap\nfrom kfp import dsl\n")

    assert violations(tmp_path) == [
        "data/layouts/coco.py:4: data.layouts.coco imports kfp.dsl: data and models import nothing of TFX, Beam or KFP"
    ]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/training/losses.py", "from data.features import IGNORE_LABEL"),
        ("components/training/trainer.py", "import apache_beam, tfx.v1, models.training.loop, data.input"),
        ("pipeline/kubeflow.py", "import kfp"),
        ("pipeline/report/page.py", "from pipeline.metadata.lineage import lineage"),
        ("components/targets/lite.py", "from components.targets.record import TargetRecord"),
        ("pipeline/local.py", "from tfx.orchestration.local.local_dag_runner import LocalDagRunner"),
        ("local_runner.py", "from pipeline import config"),
        ("data/preprocess.py", "import tensorflow as tf"),
        ("data/layouts/voc.py", "from . import base\nfrom ..labels import LabelMap\nfrom .base import Layout"),
        ("data/database.py", "import models_of_something_else"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, path: str, source: str):
    write(tmp_path, path, source)

    assert violations(tmp_path) == []
