"""The serving directory is followed: what is loaded, when, and what is said of it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf import json_format
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus

from components.publishing.directory import ModelVersion, publish
from pipeline.serving import tf_serving, versions
from pipeline.serving.tensors import RequestError
from pipeline.serving.versions import Versions


class Loader:
    """Loads anything but what is named as broken; remembers what it was asked for."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.asked: list[int] = []
        self.results: list[bool] = []

    def __call__(self, published: ModelVersion) -> SimpleNamespace:
        self.asked.append(published.version)
        if published.version in self.broken:
            raise ValueError("no variables\nand a long story")
        return SimpleNamespace(version=published.version, published=published)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def push(tmp_path: Path) -> Callable[[], ModelVersion]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    return lambda: publish(str(tmp_path / "model"), str(tmp_path / "serving"), ["a"], extra={})


@pytest.fixture
def found(tmp_path: Path, loader: Loader) -> Versions:
    return Versions("tiny", str(tmp_path / "serving"), loader, 60, loader.results.append)


def served(found: Versions) -> int | None:
    return found.current.version if found.current else None


def states(found: Versions) -> dict[int, str]:
    return {status.version: status.state for status in found.statuses_of("tiny", None)}


def test_nothing_is_served_before_the_first_push(found: Versions, loader: Loader):
    found.poll()
    assert served(found) is None and loader.asked == []
    for version in (None, 1):
        with pytest.raises(RequestError, match="no version of model tiny is loaded yet") as caught:
            found.model("tiny", version)
        assert caught.value.status == 503
    with pytest.raises(
        RequestError, match=r"Servable not found for request: Latest\(other\); served is tiny"
    ) as caught:
        found.model("other", None)
    assert caught.value.status == 404
    with pytest.raises(RequestError, match="Could not find any versions of model tiny"):
        found.statuses_of("tiny", None)


def test_the_highest_version_is_loaded_once(found: Versions, loader: Loader, push: Callable[[], ModelVersion]):
    push(), push()
    found.poll(), found.poll()
    assert served(found) == 2 and loader.asked == [2] and loader.results == [True]
    push()
    found.poll()
    assert served(found) == 3 and states(found) == {3: "AVAILABLE"}


def test_other_models_and_versions_are_not_found(found: Versions, push: Callable[[], ModelVersion]):
    push(), push()
    found.poll()
    assert found.model("tiny", 2) is found.model("tiny", None) is found.current
    for name, version, asked in (("other", None, r"Latest\(other\)"), ("tiny", 1, r"Specific\(tiny, 1\)")):
        with pytest.raises(
            RequestError, match=f"Servable not found for request: {asked}; served is tiny, version 2"
        ) as e:
            found.model(name, version)
        assert e.value.status == 404
    with pytest.raises(RequestError, match="Could not find version 1 of model tiny"):
        found.statuses_of("tiny", 1)


def test_a_version_that_fails_to_load_is_left_out_and_shown(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion]
):
    push()
    found.poll()
    loader.broken = {push().version}
    found.poll(), found.poll()
    assert served(found) == 1 and loader.asked == [1, 2] and loader.results == [True, False]
    status = found.statuses_of("tiny", 2)[0]
    assert (status.state, status.error) == ("END", "no variables")
    push()
    found.poll()
    assert served(found) == 3


def test_at_the_start_an_older_version_stands_in_for_a_broken_one(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion]
):
    push(), push()
    loader.broken = {2}
    found.poll()
    assert served(found) == 1 and states(found) == {2: "END", 1: "AVAILABLE"}


def test_a_broken_version_is_tried_again_when_its_time_has_come(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion], monkeypatch: pytest.MonkeyPatch
):
    push()
    loader.broken = {1}
    found.poll()
    loader.broken = set()
    found.poll()
    assert served(found) is None
    now = versions.time.monotonic()
    monkeypatch.setattr(versions, "time", SimpleNamespace(monotonic=lambda: now + 61))
    found.poll()
    assert served(found) == 1 and states(found) == {1: "AVAILABLE"}


def test_a_version_that_vanished_is_forgotten_unless_nothing_takes_its_place(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion]
):
    first, second = push(), push()
    loader.broken = {2}
    found.poll()
    shutil.rmtree(second.path)
    found.poll()
    assert states(found) == {1: "AVAILABLE"}
    shutil.rmtree(first.path)
    found.poll()
    assert served(found) == 1 and loader.asked == [2, 1]


def test_a_version_that_was_replaced_under_its_number_is_loaded_anew(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion]
):
    first = push()
    found.poll()
    shutil.rmtree(first.path)
    push()
    found.poll()
    assert loader.asked == [1, 1]


@pytest.mark.parametrize("damaged", [1, 3])
def test_a_damaged_record_is_left_out_and_shown_while_the_others_are_followed(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion], damaged: int
):
    paths = {version.version: version.path for version in (push(), push(), push())}
    record = Path(paths[damaged], "PUBLISHED")
    whole = record.read_text()
    record.write_text(whole[:20])

    found.poll(), found.poll()

    newest = max({1, 2, 3} - {damaged})
    assert served(found) == newest and loader.asked == [newest]
    assert states(found) == {newest: "AVAILABLE", damaged: "END"}
    assert found.statuses_of("tiny", damaged)[0].error.startswith(f"{record}: damaged record of a published version")
    push()
    found.poll()
    assert states(found) == {4: "AVAILABLE", damaged: "END"} and loader.results == [False, True, True]
    record.write_text(whole)
    found.poll()
    assert states(found) == {4: "AVAILABLE"}


def test_a_version_in_use_stays_when_its_record_is_damaged(
    found: Versions, loader: Loader, push: Callable[[], ModelVersion]
):
    push()
    second = push()
    found.poll()
    Path(second.path, "PUBLISHED").write_text("{")
    found.poll()
    assert served(found) == 2 and loader.asked == [2] and states(found) == {2: "AVAILABLE"}


def test_a_version_whose_record_is_whole_again_is_loaded_at_once(found: Versions, push: Callable[[], ModelVersion]):
    record = Path(push().path, "PUBLISHED")
    whole = record.read_text()
    record.write_text("{")
    found.poll()
    assert served(found) is None and states(found) == {1: "END"}
    record.write_text(whole)
    found.poll()
    assert states(found) == {1: "AVAILABLE"}


def test_states_are_those_of_tensorflow_serving(found: Versions, loader: Loader, push: Callable[[], ModelVersion]):
    push()
    found.poll()
    loader.broken = {push().version}
    found.poll()

    body = tf_serving.status(found.statuses_of("tiny", None))

    response = json_format.Parse(body, GetModelStatusResponse())
    assert [(entry.version, entry.state) for entry in response.model_version_status] == [
        (2, ModelVersionStatus.END),
        (1, ModelVersionStatus.AVAILABLE),
    ]
    assert response.model_version_status[0].status.error_message == "no variables"
    assert json_format.MessageToDict(response, always_print_fields_with_no_presence=True)["model_version_status"][
        1
    ] == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
