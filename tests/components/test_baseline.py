"""ServedModel: none, one, or one that knows other classes."""

from pathlib import Path

import pytest
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from components.baseline import VERSION, ServedModel, is_present
from components.config import OnLabelChange
from components.serving_directory import model_fingerprint, publish
from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from tests.components.conftest import run_node

LABELS = LabelMap(classes=(ClassLabel(name="sky", values=(0,)), ClassLabel(name="road", values=(1,))))


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """A serving directory with two versions for `LABELS`."""
    (tmp_path / "model/variables").mkdir(parents=True)
    for weights in (b"old", b"new"):
        (tmp_path / "model/saved_model.pb").write_bytes(b"graph")
        (tmp_path / "model/variables/data").write_bytes(weights)
        publish(str(tmp_path / "model"), str(tmp_path / "serving"), list(LABELS.names), {})
    return tmp_path / "serving"


def baseline(serving: Path, labels: LabelMap, on_label_change: OnLabelChange, out: Path) -> Artifact:
    return run_node(ServedModel(str(serving), labels.model_dump_json(), on_label_change, "hash"), out)["model"]


def renamed(*names: str) -> LabelMap:
    return LabelMap(classes=tuple(ClassLabel(name=name) for name in names))


def test_without_a_served_model_the_baseline_is_absent(tmp_path: Path):
    assert not is_present(baseline(tmp_path / "serving", LABELS, "refuse", tmp_path / "out"))


def test_the_newest_version_is_copied_into_the_artifact(serving: Path, tmp_path: Path):
    model = baseline(serving, LABELS, "refuse", tmp_path / "out")

    assert is_present(model)
    assert model.get_int_custom_property(VERSION) == 2
    copied = path_utils.serving_model_dir(model.uri)
    assert Path(copied, "variables/data").read_bytes() == b"new"
    assert Path(copied, "saved_model.pb").read_bytes() == b"graph"
    assert model_fingerprint(copied) == model_fingerprint(str(serving / "2"))


def test_other_label_values_for_the_same_classes_are_comparable(serving: Path, tmp_path: Path):
    assert is_present(baseline(serving, renamed("sky", "road"), "refuse", tmp_path / "out"))


@pytest.mark.parametrize("names", [("road", "sky"), ("sky",), ("sky", "road", "car"), ("sky", "street")])
def test_other_classes_are_refused_with_what_to_do(serving: Path, tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(DataError) as caught:
        baseline(serving, renamed(*names), "refuse", tmp_path / "out")

    message = str(caught.value)
    assert message.startswith(f"{serving / '2'}: the served model knows the classes ['sky', 'road']")
    assert f"this run's label map has {list(names)}" in message
    assert "evaluation.on_label_change=floor" in message and "push.model_name" in message


def test_other_classes_leave_no_baseline_where_the_floor_alone_shall_judge(serving: Path, tmp_path: Path):
    assert not is_present(baseline(serving, renamed("sky", "car"), "floor", tmp_path / "out"))


def test_the_same_classes_are_compared_although_the_floor_would_do(serving: Path, tmp_path: Path):
    assert is_present(baseline(serving, LABELS, "floor", tmp_path / "out"))
