"""The Pusher publishes a blessed model once, with requests that warm a server up."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types.artifact import Artifact

from components.artifacts import PUSHED, PUSHED_DESTINATION, PUSHED_VERSION, REASON
from components.config import PushConfig
from components.publishing.directory import model_fingerprint, published, served
from components.publishing.pins_and_blocklist import block, unblock
from data.errors import WorkspaceBusy, WorkspaceError
from data.labels import LabelMap
from models.export.saved_model import IMAGE_BYTES, MASK_BYTES, load_label_map
from pipeline.rollback import roll_back
from tests.components.conftest import columns, copy_model, read_split, run_pusher, saved_model
from tests.serving_changes import overtaken


@pytest.fixture
def push(model: Artifact, examples: Artifact, labels: LabelMap, tmp_path: Path):
    """Runs the Pusher's executor for the tiny model or another, with the given blessings."""

    def run(of: Artifact = model, config: PushConfig = PushConfig(model_name="tiny"), **settings: Any) -> Artifact:  # noqa: B008
        return run_pusher(of, examples, labels, tmp_path, config=config, **settings)

    return run


def properties(pushed: Artifact) -> tuple[int, str]:
    return pushed.get_int_custom_property(PUSHED), pushed.get_string_custom_property(REASON)


@pytest.mark.parametrize(
    ("blessed", "infra_reason", "reason"),
    [
        (False, "", "not blessed by the evaluation"),
        (True, "too slow", "the infra check failed: too slow"),
        (False, "too slow", "not blessed by the evaluation"),
    ],
)
def test_what_is_not_blessed_is_not_pushed(push, tmp_path: Path, blessed: bool, infra_reason: str, reason: str):
    assert properties(push(blessed=blessed, infra_reason=infra_reason)) == (0, reason)
    assert not (tmp_path / "serving").exists()


def test_a_blessed_model_is_served_with_its_label_map(push, model: Artifact, labels: LabelMap, tmp_path: Path):
    pushed = push()

    version = served(str(tmp_path / "serving/tiny"))
    assert version.version == 1
    assert properties(pushed) == (1, "")
    assert pushed.get_string_custom_property(PUSHED_DESTINATION) == version.path
    assert pushed.get_string_custom_property(PUSHED_VERSION) == "1"
    assert load_label_map(version.path) == labels
    assert version.record.class_names == list(labels.names)
    assert version.record.model_fingerprint == model_fingerprint(saved_model(model))


def test_a_model_that_is_served_already_is_not_pushed_again(push, tmp_path: Path):
    push()

    assert properties(push()) == (0, "already served as version 1")
    assert len(published(str(tmp_path / "serving/tiny"))) == 1


def test_the_warm_up_requests_are_real_images_that_the_model_answers(push, examples: Artifact, tmp_path: Path):
    push(config=PushConfig(model_name="tiny", warmup_requests=3))

    version = served(str(tmp_path / "serving/tiny"))
    file = Path(version.path, "assets.extra/tf_serving_warmup_requests")
    logs = [
        prediction_log_pb2.PredictionLog.FromString(r) for r in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]
    requests = [log.predict_log.request for log in logs]
    signatures = tf.saved_model.load(version.path).signatures
    images = [columns(record)["image"] for record in read_split(examples, "test")[:3]]
    assert [tf.make_ndarray(request.inputs[IMAGE_BYTES]).tolist() for request in requests] == [[i] for i in images]
    for request, image in zip(requests, images, strict=True):
        assert request.model_spec.name == "tiny"
        answer = signatures[request.model_spec.signature_name](
            **{name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        )
        mask = tf.io.decode_png(answer[MASK_BYTES][0])
        assert mask.shape[:2] == tf.io.decode_image(image).shape[:2]


def test_only_the_newest_versions_are_kept(push, model: Artifact, tmp_path: Path):
    for number in range(4):
        other = copy_model(model, tmp_path / f"model{number}")
        Path(saved_model(other), "assets/note.txt").write_text(str(number))
        assert properties(push(other, config=PushConfig(model_name="tiny", keep=2, warmup_requests=0)))[0] == 1

    assert [version.version for version in published(str(tmp_path / "serving/tiny"))] == [3, 4]


def test_an_older_model_may_be_pushed_again_where_another_is_served(push, model: Artifact, tmp_path: Path):
    push()
    other = copy_model(model, tmp_path / "other")
    Path(saved_model(other), "assets/note.txt").write_text("changed")
    push(other)

    assert properties(push()) == (1, "")
    assert served(str(tmp_path / "serving/tiny")).version == 3


def test_a_model_that_was_compared_with_what_is_served_no_more_is_not_pushed(push, model: Artifact, tmp_path: Path):
    """As where a person rolls back while a run is under way."""
    push()
    other = other_model(model, tmp_path / "other")
    with pytest.raises(WorkspaceBusy, match=r"version 1 is served now, but .* when nothing was; run again"):
        push(other, compared_with=0)
    shutil.rmtree(tmp_path / "serving")
    with pytest.raises(WorkspaceBusy, match=r"nothing is served now, but .* when version 1 was; run again"):
        push(other, compared_with=1)
    assert published(str(tmp_path / "serving/tiny")) == []


def test_a_rollback_at_the_last_moment_stays(push, model: Artifact, tmp_path: Path):
    """The pusher has looked at what is served and is about to publish when a person rolls back."""
    serving = str(tmp_path / "serving/tiny")
    push()
    push(other_model(model, tmp_path / "second"))
    third = other_model(model, tmp_path / "third", "changed again")

    with pytest.raises(WorkspaceBusy, match="version 3 is served now"):
        overtaken(lambda: push(third), serving, lambda: roll_back(serving, to=1))

    assert [version.version for version in published(serving)] == [1, 2, 3]
    assert served(serving).record.restored_from == 1


def test_numbers_go_on_where_the_serving_directory_was_removed(push, tmp_path: Path):
    assert push(highest=5).get_string_custom_property(PUSHED_VERSION) == "6"
    shutil.rmtree(tmp_path / "serving")

    assert push(highest=6).get_string_custom_property(PUSHED_VERSION) == "7"


def other_model(model: Artifact, folder: Path, note: str = "changed") -> Artifact:
    other = copy_model(model, folder)
    Path(saved_model(other), "assets/note.txt").write_text(note)
    return other


def test_a_model_that_was_rolled_back_is_not_pushed_again_until_it_is_unblocked(push, model: Artifact, tmp_path: Path):
    serving = str(tmp_path / "serving/tiny")
    push()
    other = other_model(model, tmp_path / "other")
    push(other)
    fingerprint = served(serving).record.model_fingerprint
    block(serving, fingerprint, 2, "blurred edges")
    push()

    pushed, reason = properties(push(other))

    assert pushed == 0
    assert reason.startswith("version 2, which is this model, was rolled back on 20")
    assert reason.endswith(" UTC (blurred edges)")
    assert served(serving).version == 3
    unblock(serving, fingerprint)
    assert properties(push(other)) == (1, "")


@pytest.mark.parametrize("name", ["pins.json", "withdrawn.json"])
def test_nothing_is_pushed_where_marks_are_damaged(push, model: Artifact, tmp_path: Path, name: str):
    push()
    (tmp_path / "serving/tiny" / name).write_text("{")

    with pytest.raises(WorkspaceError, match=f"{name}: damaged"):
        push(other_model(model, tmp_path / "other"), config=PushConfig(model_name="tiny", keep=1))

    assert [version.version for version in published(str(tmp_path / "serving/tiny"))] == [1]
