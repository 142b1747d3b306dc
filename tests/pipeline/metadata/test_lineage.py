"""Lineage over hand-made runs: what stands behind a version, and which versions came from a file, on either backend."""

import hashlib
import io
import json
import time
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from components.publishing.directory import prune, publish
from data.errors import WorkspaceError
from data.manifest import ImageFile, image_file, pack_part, part_name
from pipeline.cli.lineage import lineage as lineage_command
from pipeline.metadata.backup import DamagedMetadata
from pipeline.metadata.data_lineage import FileUse, file_uses, with_restored
from pipeline.metadata.lineage import Lineage, find_push, lineage, pushes
from pipeline.metadata.outline import Outline, lineage_outline, uses_outline
from pipeline.metadata.provenance import REASONS, Provenance
from pipeline.metadata.store import PASSWORD as PASSWORD_VARIABLE
from pipeline.metadata.store import existing_store, metadata_config, open_store
from pipeline.retention import Superseded
from pipeline.rollback import roll_back
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.history import OUTPUTS, History
from tests.pipeline.mysql_server import PASSWORD, Server

ALL_BUT = {
    "evaluated": tuple(set(OUTPUTS) - {"ServedModel", "SegmentationEvaluator", "ModelPusher"}),
    "trained": ("ImageExampleGen", "StatisticsGen", "DataSchema", "StrictExampleValidator", "ImageTransform"),
}


@pytest.fixture(params=["sqlite", "mysql"])
def history(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """An empty store."""
    config = MetadataConfig()
    if request.param == "mysql":
        server: Server = request.getfixturevalue("mysql")
        monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
        monkeypatch.setenv("MYSQL_PWD", "")  # restored afterwards
        config = server.database(f"lineage_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}")
    workspace = Workspace(tmp_path)
    return History(open_store(metadata_config(workspace, config)), str(workspace.serving))


def trace(history: History, version: int, model: str | None = None) -> Lineage:
    return lineage(history.store, find_push(pushes(history.store), version, model, Path(history.serving)))


def write_manifest(folder: Path, *entries: ImageFile) -> None:
    """A manifest as ExampleGen leaves it."""
    for digit in {entry.sha256[0] for entry in entries}:
        path = folder / part_name(digit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack_part(entry for entry in entries if entry.sha256[0] == digit))


def printed(outline: Outline) -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(outline.tree())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_walk_names_everything_behind_the_first_version(history: History) -> None:
    history.push(
        "run-1",
        "cars",
        1,
        ImageExampleGen__examples={"input_fingerprint": "files:3", "spans": '["span-1", "span-2"]', "uri": "/e/1"},
        SegmentationEvaluator__evaluation={"uri": "/evaluation", REASONS: json.dumps(["mean IoU 0.9 reaches 0.5"])},
    )
    found = trace(history, 1)
    assert (found.model, found.version, found.run_id) == ("cars", 1, "run-1")
    assert found.path == f"{history.serving}/cars/1"
    assert (found.data[0].spans, found.data[0].fingerprint) == (["span-1", "span-2"], "files:3")
    assert (found.data[0].config["path"], found.data[0].examples.uri) == ("/data", "/e/1")
    kinds = (found.statistics, found.anomalies, found.data_schema, found.transform_graph, found.trained_model)
    assert [[a.type for a in artifacts] for artifacts in kinds] == [
        ["ExampleStatistics"],
        ["ExampleAnomalies"],
        ["Schema"],
        ["TransformGraph"],
        ["Model"],
    ]
    assert found.hyperparameters == {"training": {"steps": 6}}
    assert found.evaluation.blessed
    assert found.evaluation.infra_blessed
    assert found.evaluation.reasons == ["mean IoU 0.9 reaches 0.5"]
    assert found.evaluation.baseline_version is None
    assert found.evaluation.config == {"min_mean_iou": 0.5}
    assert found.evaluation.evaluation is not None
    assert found.evaluation.evaluation.uri == "/evaluation"
    assert {stage.name: stage.code_hash for stage in found.stages} == {
        name: None if name == "StatisticsGen" else f"hash of {name}" for name in OUTPUTS
    }


def test_the_version_that_training_started_from_and_the_images_replayed_are_named(history: History) -> None:
    history.push("run-1", "cars", 1)
    history.push(
        "run-2",
        "cars",
        2,
        ServedModel__model={"present": 1, "version": 1},
        WarmStart__model={"present": 1, "version": 1},
        ImageExampleGen__examples={"spans": '["span-4"]', "replayed": '{"span-3": 7}'},
    )
    assert (trace(history, 1).started_from, trace(history, 1).data[0].replayed) == (None, {})
    assert (trace(history, 2).started_from, trace(history, 2).data[0].replayed) == (1, {"span-3": 7})
    text = printed(lineage_outline(trace(history, 2)))
    assert "training started from served version 1" in text
    assert 'replayed: {"span-3": 7}' in text


def test_cached_stages_are_shown_with_the_run_in_which_they_really_ran(history: History) -> None:
    history.push("run-1", "cars", 1)
    history.push("run-2", "cars", 2, *ALL_BUT["trained"], ServedModel__model={"present": 1, "version": 1})
    history.run("run-3", ALL_BUT["evaluated"], ModelPusher__pushed_model={"pushed": 0, "reason": "not blessed"})
    found = trace(history, 2)
    assert found.evaluation.baseline_version == 1
    runs = {stage.name: stage.run_id for stage in found.stages}
    assert {name for name, run in runs.items() if run == "run-1"} == set(ALL_BUT["trained"])
    assert {name for name, run in runs.items() if run == "run-2"} == set(OUTPUTS) - set(ALL_BUT["trained"])
    assert found.statistics[0].id == trace(history, 1).statistics[0].id


def test_the_walk_does_not_grow_with_the_runs_that_changed_nothing(history: History) -> None:
    history.push("run-1", "cars", 1)
    before = len(Provenance(history.store, [pushes(history.store)[0].artifact_id]).steps)
    for number in range(2, 8):
        history.run(f"run-{number}", tuple(OUTPUTS))
    assert len(Provenance(history.store, [pushes(history.store)[0].artifact_id]).steps) == before


def test_a_push_whose_run_was_killed_is_known_by_the_run_that_found_its_model_served(history: History) -> None:
    history.push("run-2", "cars", 1, pushed=0)
    history.push("run-3", "cars", 1, *ALL_BUT["evaluated"], pushed=0)
    assert trace(history, 1).run_id == "run-2"
    history.push("run-4", "cars", 2, *ALL_BUT["trained"])
    history.push("run-5", "cars", 2, *ALL_BUT["evaluated"], pushed=0)
    assert trace(history, 2).run_id == "run-4", "who pushed comes first"


def test_of_two_pushes_of_one_version_the_last_one_counts(history: History) -> None:
    history.push("run-1", "cars", 1)
    history.push("run-2", "cars", 1, pushed=0)
    history.push("run-3", "cars", 1)
    history.push("run-4", "cars", 1, pushed=0)
    assert [trace(history, push.version).run_id for push in pushes(history.store)] == ["run-3"]


def test_an_unknown_version_is_an_error_that_names_the_known_ones(history: History) -> None:
    history.push("run-1", "cars", 1)
    with pytest.raises(WorkspaceError, match="no record of version 7; the versions pushed are: cars/1"):
        trace(history, 7)
    with pytest.raises(WorkspaceError, match="no record of version 1 of model boats"):
        trace(history, 1, "boats")


def test_a_version_of_several_models_wants_a_name(history: History) -> None:
    history.push("run-1", "cars", 1)
    history.push("run-2", "boats", 1)
    with pytest.raises(WorkspaceError, match="several models have a version 1; name one with --model: boats, cars"):
        trace(history, 1)
    assert trace(history, 1, "boats").run_id == "run-2"


def test_of_two_workspaces_in_one_store_each_finds_its_own(history: History) -> None:
    history.push("run-1", "cars", 1)
    other = History(history.store, "/elsewhere/serving")
    other.push("run-2", "cars", 1)
    assert (trace(history, 1).run_id, trace(other, 1).run_id) == ("run-1", "run-2")


def test_a_file_is_found_under_another_name_by_its_content(history: History, tmp_path: Path) -> None:
    (tmp_path / "renamed.jpg").write_bytes(b"image")
    write_manifest(tmp_path / "e", image_file(b"image", "a.jpg", "train"), image_file(b"other", "b.jpg", "test"))
    history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    history.push("run-2", "cars", 2, *ALL_BUT["trained"])
    write_manifest(tmp_path / "f", image_file(b"other", "b.jpg", "train"))
    history.push("run-3", "cars", 3, ImageExampleGen__examples={"uri": str(tmp_path / "f")})
    found = file_uses(history.store, tmp_path / "renamed.jpg")
    use = FileUse(model="cars", version=1, split="train", key="a.jpg", matched_by="content")
    assert found.uses == [use, use.model_copy(update={"version": 2})]
    assert found.unknown == []


def test_a_version_that_started_from_another_one_has_learned_from_its_files(
    sqlite_history: History, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    write_manifest(tmp_path / "e", image_file(b"image", "a.jpg", "train"))
    write_manifest(tmp_path / "f", image_file(b"other", "b.jpg", "train"))
    start = [{"present": 1, "version": version} for version in (1, 2)]
    history = sqlite_history
    history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    for version in (2, 3):
        examples = {"uri": str(tmp_path / "f")}
        history.push("run", "cars", version, ImageExampleGen__examples=examples, WarmStart__model=start[version - 2])
    history.push("run-4", "cars", 4, ImageExampleGen__examples={"uri": str(tmp_path / "f")})
    found = file_uses(history.store, tmp_path / "a.jpg")
    assert [(use.version, use.through) for use in found.uses] == [(1, None), (2, 1), (3, 2)]
    assert "cars version 3: started from version 2, which was trained on it (split train" in printed(
        uses_outline(found)
    )


def test_a_version_that_was_evaluated_on_a_file_may_have_learned_from_it_too(
    sqlite_history: History, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    write_manifest(tmp_path / "e", image_file(b"image", "a.jpg", "train"))
    write_manifest(tmp_path / "f", image_file(b"image", "a.jpg", "test"))
    history, start = sqlite_history, {"present": 1, "version": 1}
    history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    history.push("run-2", "cars", 2, ImageExampleGen__examples={"uri": str(tmp_path / "f")}, WarmStart__model=start)
    found = file_uses(history.store, tmp_path / "a.jpg")
    assert [(use.version, use.split, use.through) for use in found.uses] == [
        (1, "train", None),
        (2, "test", None),
        (2, "train", 1),
    ]


@pytest.mark.parametrize("pattern", ["", "span-{SPAN}"])
def test_a_changed_file_is_found_by_its_path_and_said_to_have_changed(
    tmp_path: Path, pattern: str, sqlite_history: History
) -> None:
    key = "span-1/images/a.png"
    sqlite_history.data = str(tmp_path / "data" / pattern)
    (tmp_path / "data/span-1/images").mkdir(parents=True)
    (tmp_path / "data" / key).write_bytes(b"new content")
    write_manifest(tmp_path / "e", image_file(b"old content", key, "val"))
    sqlite_history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    found = file_uses(sqlite_history.store, tmp_path / "data" / key)
    assert found.uses == [FileUse(model="cars", version=1, split="val", key=key, matched_by="path")]
    assert "selected by it (split val" in printed(uses_outline(found))
    (tmp_path / "data" / key).unlink()
    assert file_uses(sqlite_history.store, tmp_path / "data" / key).uses == found.uses, "a deleted file, too"


@pytest.fixture
def sqlite_history(tmp_path: Path) -> History:
    return History(open_store(metadata_config(Workspace(tmp_path), MetadataConfig())), str(tmp_path / "serving"))


def test_a_converted_image_is_found_by_the_file_that_it_came_from(sqlite_history: History, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    image.save(tmp_path / "a.bmp")
    stored = io.BytesIO()
    image.save(stored, "PNG")
    write_manifest(tmp_path / "e", image_file(stored.getvalue(), "a.bmp", "train"))
    sqlite_history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    (use,) = file_uses(sqlite_history.store, tmp_path / "a.bmp").uses
    assert use.matched_by == "content"


def publish_file(content: str, serving: str, folder: Path) -> None:
    """Publishes what stands for a model."""
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_text(content)
    publish(str(folder), serving, ["sky"], {})


def test_what_cannot_be_answered_is_an_error(sqlite_history: History, tmp_path: Path) -> None:
    write_manifest(tmp_path / "e", image_file(b"image", "a.jpg", "train"))
    sqlite_history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    with pytest.raises(WorkspaceError, match=r"b\.jpg: no such file, and no version used this path$"):
        file_uses(sqlite_history.store, tmp_path / "b.jpg")
    with pytest.raises(WorkspaceError, match="e: is a folder; name one image"):
        file_uses(sqlite_history.store, tmp_path / "e")
    (tmp_path / "mask.png").write_bytes(b"mask")
    text = printed(uses_outline(file_uses(sqlite_history.store, tmp_path / "mask.png")))
    assert "no pushed version came from it" in text
    assert "only images are searched: for a mask or an annotation, ask for its image" in text


def test_a_version_that_started_from_a_restored_one_has_learned_from_its_files(
    sqlite_history: History, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    write_manifest(tmp_path / "e", image_file(b"image", "a.jpg", "train"))
    write_manifest(tmp_path / "f", image_file(b"other", "b.jpg", "train"))
    sqlite_history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "e")})
    restored = {"present": 1, "version": 3, "first_version": 1}
    examples = {"uri": str(tmp_path / "f")}
    sqlite_history.push("run-4", "cars", 4, ImageExampleGen__examples=examples, WarmStart__model=restored)
    found = file_uses(sqlite_history.store, tmp_path / "a.jpg")
    assert [(use.version, use.through) for use in found.uses] == [(1, None), (4, 3)]


def test_versions_of_two_workspaces_with_one_number_are_distinguished(sqlite_history: History, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    other = History(sqlite_history.store, "/elsewhere/serving")
    for history, folder, content in ((sqlite_history, "e", b"image"), (other, "f", b"other")):
        write_manifest(tmp_path / folder, image_file(content, "b.jpg", "train"))
        history.push("run", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / folder)})
    assert len(file_uses(sqlite_history.store, tmp_path / "a.jpg").uses) == 1


def test_a_version_that_a_rollback_published_is_shown_with_what_was_rolled_back_and_why(
    sqlite_history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    serving = f"{sqlite_history.serving}/cars"
    for version in (1, 2, 3):
        publish_file(f"model {version}", serving, tmp_path / "model")
        sqlite_history.push(f"run-{version}", "cars", version)
    roll_back(serving, 2, "misses [kerbs]")
    shown = {as_json: io.StringIO() for as_json in (True, False)}
    for as_json, output in shown.items():
        with redirect_stdout(output):
            lineage_command(4, model="cars", workspace=tmp_path, json_=as_json)
    found = json.loads(shown[True].getvalue())
    assert (found["version"], found["run_id"]) == (2, "run-2")
    restoration = found["restoration"]
    assert (restoration["version"], restoration["restored_from"], restoration["rollback_of"]) == (4, 2, 3)
    assert restoration["reason"] == "misses [kerbs]"
    text = shown[False].getvalue()
    assert text.startswith("cars version 4, which is version 2 again: ")
    assert "by the rollback of version 3 (misses [kerbs])" in text
    assert trace(sqlite_history, 2).restoration is None


def test_versions_whose_examples_are_gone_are_said_to_be_unknown(sqlite_history: History, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    publish_file("model 1", f"{sqlite_history.serving}/cars", tmp_path / "model")
    sqlite_history.push("run-1", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "gone")})
    found = file_uses(sqlite_history.store, tmp_path / "a.jpg")
    assert (found.uses, found.unknown, found.removed) == ([], ["cars/1"], [])
    assert "cars/1: not known" in printed(uses_outline(found))
    assert "no other pushed version came from it" in printed(uses_outline(found))
    with pytest.raises(WorkspaceError, match="no version used this path; not known for: cars/1"):
        file_uses(sqlite_history.store, tmp_path / "absent.jpg")


def test_removed_versions_of_which_nothing_is_known_leave_the_answer_clear(
    sqlite_history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    push_with_examples(sqlite_history, tmp_path, known={3})
    prune(f"{sqlite_history.serving}/cars", 1)

    shown = {as_json: io.StringIO() for as_json in (True, False)}
    for as_json, output in shown.items():
        with redirect_stdout(output):
            lineage_command(data=tmp_path / "a.jpg", model="cars", workspace=tmp_path, json_=as_json)

    found = json.loads(shown[True].getvalue())
    assert (found["uses"], found["unknown"], found["removed"]) == ([], ["cars/1", "cars/2"], ["cars/1", "cars/2"])
    lines = [line.lstrip("├─└ ").rstrip() for line in shown[False].getvalue().splitlines()]
    assert lines[1:] == [
        "no pushed version that is still there came from it",
        "only images are searched: for a mask or an annotation, ask for its image",
        "not known for versions that are removed: cars/1, cars/2",
    ]


def test_a_version_that_started_from_an_unknown_one_is_unknown_too(sqlite_history: History, tmp_path: Path) -> None:
    push_with_examples(sqlite_history, tmp_path, known={2, 3}, starts={2: 1})
    prune(f"{sqlite_history.serving}/cars", 2)
    found = file_uses(sqlite_history.store, tmp_path / "a.jpg")
    assert (found.unknown, found.removed) == (["cars/1", "cars/2"], ["cars/1"])
    text = printed(uses_outline(found))
    assert "no other pushed version came from it" in text
    assert "cars/2: not known; its examples, or those of a version that it started from" in text
    assert "not known for versions that are removed: cars/1\n" in text


def test_what_a_rollback_published_of_an_unknown_version_is_unknown_too(
    sqlite_history: History, tmp_path: Path
) -> None:
    push_with_examples(sqlite_history, tmp_path, known={2, 3})
    serving = f"{sqlite_history.serving}/cars"
    roll_back(serving, 1, "")
    prune(serving, 1)
    found = with_restored(file_uses(sqlite_history.store, tmp_path / "a.jpg"), Path(sqlite_history.serving))
    assert (found.unknown, found.removed) == (["cars/1", "cars/4"], ["cars/1"])


def test_a_version_that_is_gone_hides_none_of_its_name_in_another_workspace(
    sqlite_history: History, tmp_path: Path
) -> None:
    push_with_examples(sqlite_history, tmp_path, known=set())
    other = History(sqlite_history.store, "/elsewhere/serving")
    other.push("run", "cars", 1, ImageExampleGen__examples={"uri": str(tmp_path / "gone")})
    found = file_uses(sqlite_history.store, tmp_path / "a.jpg")
    assert (found.unknown, found.removed) == (["cars/1", "cars/2", "cars/3", "cars/1"], [])


def push_with_examples(
    history: History, folder: Path, *, known: Collection[int], starts: Mapping[int, int] | None = None
) -> None:
    """Publishes versions 1 to 3, none of which came from `a.jpg`.

    Args:
        history: Gets their runs.
        folder: Gets the image and the examples.
        known: The versions whose examples are still there.
        starts: Version -> the version that its training started from.
    """
    (folder / "a.jpg").write_bytes(b"image")
    for version in (1, 2, 3):
        publish_file(f"model {version}", f"{history.serving}/cars", folder / "model")
        examples = folder / f"examples-{version}"
        if version in known:
            write_manifest(examples, image_file(b"other", "b.jpg", "train"))
        start = (starts or {}).get(version)
        copy = {"present": 0} if start is None else {"present": 1, "version": start}
        history.push(
            f"run-{version}", "cars", version, ImageExampleGen__examples={"uri": str(examples)}, WarmStart__model=copy
        )


def test_the_tree_reads_from_the_version_down_to_the_stages(sqlite_history: History) -> None:
    spans = {"spans": '["span-4"]', "uri": "/e/[1]"}
    sqlite_history.push("run-1", "cars", 1, ImageExampleGen__examples=spans)
    text = printed(lineage_outline(trace(sqlite_history, 1)))
    for line in ("cars version 1", "span-4", "/e/[1]", "training: steps=6", "blessed", "Trainer: code hash of Trainer"):
        assert line in text


def test_what_retention_removed_is_said_to_be_gone_and_changes_no_time(sqlite_history: History, tmp_path: Path) -> None:
    for version in (1, 2):
        publish_file(f"model {version}", f"{sqlite_history.serving}/cars", tmp_path / "model")
        sqlite_history.push(f"run-{version}", "cars", version)
    before = trace(sqlite_history, 1)
    assert not before.removed and "(removed)" not in printed(lineage_outline(before))

    time.sleep(0.01)  # ML Metadata count milliseconds.
    prune(f"{sqlite_history.serving}/cars", 1)
    gone = sqlite_history.store.get_artifacts_by_id(
        [before.trained_model[0].id, pushes(sqlite_history.store)[0].artifact_id]
    )
    Superseded([], gone, []).remove(sqlite_history.store)
    after = trace(sqlite_history, 1)

    assert after.pushed_at == before.pushed_at
    assert after.removed and after.trained_model[0].removed and not after.data[0].examples.removed
    lines = [line for line in printed(lineage_outline(after)).splitlines() if line.endswith("(removed)")]
    assert [line.split(": ")[0].lstrip("├─ ") for line in lines] == ["cars version 1", "trained model"]
    assert not trace(sqlite_history, 2).removed


def test_a_workspace_in_which_nothing_ran_has_no_lineage(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="nothing has run in this workspace yet"):
        existing_store(Workspace(tmp_path), MetadataConfig())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups/metadata-000001.sqlite").touch()
    with pytest.raises(DamagedMetadata, match=r"metadata\.sqlite is gone; .*doctor --restore"):
        existing_store(Workspace(tmp_path), MetadataConfig())
    assert not (tmp_path / "metadata.sqlite").exists()


def test_a_version_that_a_rollback_published_has_the_files_of_the_one_that_it_restored(
    sqlite_history: History, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    for version, content in enumerate((b"image", b"other"), start=1):
        publish_file(f"model {version}", f"{sqlite_history.serving}/cars", tmp_path / "model")
        write_manifest(tmp_path / str(version), image_file(content, "a.jpg", "train"))
        examples = {"uri": str(tmp_path / str(version))}
        sqlite_history.push(f"run-{version}", "cars", version, ImageExampleGen__examples=examples)
    roll_back(f"{sqlite_history.serving}/cars", 1, "")

    found = with_restored(file_uses(sqlite_history.store, tmp_path / "a.jpg"), Path(sqlite_history.serving))

    assert [(use.version, use.restored_from) for use in found.uses] == [(1, None), (3, 1)]
    assert "cars version 3: is version 1 again, which was trained on it (split train" in printed(uses_outline(found))
