"""ServedModel: none, one, or one that has other classes; and when it looks again."""

import shutil
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as proto
from tfx.orchestration.metadata import Metadata
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from components.artifacts import COPIED_VERSION, HIGHEST_PUSHED, PUSHED, PUSHED_DESTINATION, SERVED_VERSION
from components.config import OnLabelChange
from components.publishing.directory import model_fingerprint, publish
from components.publishing.served_model import FINGERPRINT, Driver, ServedModel, is_present
from data.errors import DataError, WorkspaceError
from data.labels import ClassLabel, LabelMap
from tests.components.conftest import artifact, run_node

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


def copy_served(serving: Path, labels: LabelMap, on_label_change: OnLabelChange, out: Path) -> Artifact:
    return run_node(ServedModel(str(serving), labels, on_label_change), out)["model"]


def renamed(*names: str) -> LabelMap:
    return LabelMap(classes=tuple(ClassLabel(name=name) for name in names))


def test_without_a_served_model_the_copy_is_absent(tmp_path: Path):
    assert not is_present(copy_served(tmp_path / "serving", LABELS, "refuse", tmp_path / "out"))


def test_the_newest_version_is_copied_into_the_artifact(serving: Path, tmp_path: Path):
    model = copy_served(serving, LABELS, "refuse", tmp_path / "out")

    assert is_present(model)
    assert model.get_int_custom_property(COPIED_VERSION) == 2
    copied = path_utils.serving_model_dir(model.uri)
    assert Path(copied, "variables/data").read_bytes() == b"new"
    assert Path(copied, "saved_model.pb").read_bytes() == b"graph"
    assert model_fingerprint(copied) == model_fingerprint(str(serving / "2"))


def test_a_served_model_that_is_not_what_was_published_is_named_before_anything_is_compared(
    serving: Path, tmp_path: Path
):
    (serving / "2/variables/data").write_bytes(b"ne")
    with pytest.raises(WorkspaceError, match="2: the files of served version 2 are not those that were published"):
        copy_served(serving, LABELS, "refuse", tmp_path / "out")


def test_what_was_served_is_recorded_even_where_it_cannot_be_compared(serving: Path, tmp_path: Path):
    assert (
        copy_served(serving, renamed("sky", "car"), "floor", tmp_path / "a").get_int_custom_property(SERVED_VERSION)
        == 2
    )
    assert copy_served(tmp_path / "none", LABELS, "floor", tmp_path / "b").get_int_custom_property(SERVED_VERSION) == 0


def test_other_label_values_for_the_same_classes_are_comparable(serving: Path, tmp_path: Path):
    assert is_present(copy_served(serving, renamed("sky", "road"), "refuse", tmp_path / "out"))


@pytest.mark.parametrize("names", [("road", "sky"), ("sky",), ("sky", "road", "car"), ("sky", "street")])
def test_other_classes_are_refused_with_what_to_do(serving: Path, tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(DataError) as caught:
        copy_served(serving, renamed(*names), "refuse", tmp_path / "out")

    message = str(caught.value)
    assert message.startswith(f"{serving / '2'}: the served model has the classes ['sky', 'road']")
    assert f"this run's label map has {list(names)}" in message
    assert "evaluation.on_label_change=floor" in message and "push.model_name" in message


def test_other_classes_leave_nothing_to_compare_with_where_the_floors_alone_decide(serving: Path, tmp_path: Path):
    assert not is_present(copy_served(serving, renamed("sky", "car"), "floor", tmp_path / "out"))


def test_the_same_classes_are_compared_although_the_floors_would_do(serving: Path, tmp_path: Path):
    assert is_present(copy_served(serving, LABELS, "floor", tmp_path / "out"))


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    """ML Metadata without anything in it."""
    sqlite = proto.SqliteMetadataSourceConfig(
        filename_uri=str(tmp_path / "metadata.sqlite"),
        connection_mode=proto.SqliteMetadataSourceConfig.READWRITE_OPENCREATE,
    )
    return Metadata(proto.ConnectionConfig(sqlite=sqlite))


def note_push(metadata: Metadata, path: Path, pushed: int = 1) -> None:
    """Writes down what the ModelPusher does."""
    with metadata as handle:
        artifact = proto.Artifact(type_id=handle.store.put_artifact_type(proto.ArtifactType(name="PushedModel")))
        artifact.custom_properties[PUSHED].int_value = pushed
        artifact.custom_properties[PUSHED_DESTINATION].string_value = str(path)
        handle.store.put_artifacts([artifact])


def looked_up(serving: Path, metadata: Metadata | None) -> str:
    return Driver(metadata).state({"serving_dir": str(serving)})[FINGERPRINT]


def test_each_loss_of_what_was_pushed_is_a_state_that_never_was(serving: Path, metadata: Metadata, tmp_path: Path):
    aside = shutil.copytree(serving, tmp_path / "aside")
    shutil.rmtree(serving)
    states = [looked_up(serving, metadata)]
    for _ in range(2):
        for version in ("1", "2"):
            shutil.copytree(aside / version, serving / version)
            note_push(metadata, serving / version)
            states.append(looked_up(serving, metadata))
        shutil.rmtree(serving / "2")
        states.append(looked_up(serving, metadata))
        shutil.rmtree(serving)
        states.append(looked_up(serving, metadata))

    assert states[0] == "none"
    assert len(set(states)) == len(states) == 9
    assert looked_up(serving, metadata) == states[-1]


def test_what_was_not_pushed_or_pushed_elsewhere_changes_no_state(serving: Path, metadata: Metadata, tmp_path: Path):
    before = looked_up(serving, metadata)
    note_push(metadata, serving / "2", pushed=0)
    note_push(metadata, tmp_path / "other/2")

    assert looked_up(serving, metadata) == before == looked_up(serving, None)


def test_the_highest_version_that_ever_was_is_known_after_the_serving_directory_went(
    serving: Path, metadata: Metadata, tmp_path: Path
):
    note_push(metadata, serving / "9")
    note_push(metadata, serving / "10", pushed=0)  # Found to be served: the run that had pushed it was killed.
    note_push(metadata, tmp_path / "other/12")
    shutil.rmtree(serving)

    state = Driver(metadata).state({"serving_dir": str(serving)})

    assert state[HIGHEST_PUSHED] == "10"
    assert Driver(None).state({"serving_dir": str(serving)})[HIGHEST_PUSHED] == "0"
    node = ServedModel(str(serving), LABELS, "refuse")
    model = artifact(standard_artifacts.Model, tmp_path / "model")
    node.EXECUTOR_SPEC.executor_class().Do({}, {"model": [model]}, node.exec_properties | state)
    assert model.get_int_custom_property(HIGHEST_PUSHED) == 10
