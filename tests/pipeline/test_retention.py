"""What goes once it is old, and what stays because something depends on it; by hand-made runs and by TFX's cache."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as proto
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable.runtime_parameter_utils import substitute_runtime_parameter

from components.config import ValidationConfig
from components.publishing.directory import prune, publish, published
from components.publishing.pins_and_blocklist import pin
from components.training.trainer import CHECKPOINTS, FINISHED, TENSORBOARD
from components.validation.schema import DataSchema
from data.errors import WorkspaceError
from data.labels import ClassLabel, LabelMap
from pipeline.config import Config
from pipeline.local import run_pipeline
from pipeline.metadata.lineage import find_push, lineage, pushes
from pipeline.metadata.store import metadata_config, open_store
from pipeline.records.executions import read_run
from pipeline.records.summary import SUMMARY_FILE, RunSummary
from pipeline.retention import superseded
from pipeline.rollback import roll_back
from pipeline.run import LOG_FILE, clean_up
from pipeline.sections.workspace import MetadataConfig, RetentionConfig
from pipeline.workspace import Workspace
from tests.pipeline.history import OUTPUTS, History

DATA = ("ImageExampleGen", "StatisticsGen", "DataSchema", "StrictExampleValidator", "ImageTransform")


class Story:
    """Runs in a workspace, with artifacts on disk as TFX lays them out."""

    def __init__(self, root: Path):
        self.workspace = Workspace(root)
        self.workspace.root.mkdir(exist_ok=True)
        self.store = open_store(metadata_config(self.workspace, MetadataConfig()))
        self.history = History(self.store, str(self.workspace.serving))
        self._runs = 0

    def run(
        self, *cached: str, version: int | None = None, served: int | None = None, status: str = "succeeded"
    ) -> str:
        """A run that took `cached` stages over, found a version served, and pushed one; its id."""
        self._runs += 1
        run_id = f"run-{self._runs:03}"
        executions = len(self.store.get_executions())
        values: dict[str, dict[str, Any]] = {}
        for number, (stage, outputs) in enumerate(OUTPUTS.items(), start=executions + 1):
            for key in outputs if stage not in cached else ():
                folder = self.workspace.artifacts / stage / key / str(number)
                folder.mkdir(parents=True)
                (folder / "content").write_text(run_id)
                values[f"{stage}__{key}"] = {"uri": str(folder)}
        if version is not None:
            values["ModelPusher__pushed_model"] |= {
                "pushed": 1,
                "pushed_version": str(version),
                "pushed_destination": f"{self.workspace.serving}/tiny/{version}",
            }
            self._publish(version)
        if served is not None:
            values["ServedModel__model"] |= {"present": 1, "version": served}
        self.history.run(run_id, cached, **values)
        folder = self.workspace.start_run(run_id)
        summary = RunSummary.model_validate({"run_id": run_id, "status": status, "config": {}})
        (folder / SUMMARY_FILE).write_text(summary.model_dump_json())
        return run_id

    def _publish(self, version: int) -> None:
        model = self.workspace.root / "model"
        model.mkdir(exist_ok=True)
        (model / "saved_model.pb").write_text(str(version))
        assert publish(str(model), str(self.workspace.serving / "tiny"), ["sky"], {}).version == version

    def clean(self, **config: float) -> None:
        superseded(self.workspace, self.store, RetentionConfig.model_validate(config)).remove(self.store)

    @property
    def runs(self) -> list[str]:
        return sorted(path.name for path in self.workspace.runs.iterdir() if not path.is_symlink())

    def makers(self, stage: str) -> list[str]:
        """The runs whose outputs of a stage are still there."""
        return sorted(path.read_text() for path in (self.workspace.artifacts / stage).glob("*/*/content"))

    def artifact(self, stage: str, key: str, execution: int) -> proto.Artifact:
        uri = str(self.workspace.artifacts / stage / key / str(execution))
        (found,) = self.store.get_artifacts_by_uri(uri)
        return found


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path / "workspace")


def test_the_newest_runs_stay_with_what_they_made(story: Story):
    for _ in range(4):
        story.run()

    story.clean(keep_runs=2)

    assert story.runs == ["run-003", "run-004"]
    assert story.makers("Trainer") == ["run-003"] * 2 + ["run-004"] * 2
    states = {artifact.state for artifact in story.store.get_artifacts() if not os.path.exists(artifact.uri)}
    assert states == {proto.Artifact.DELETED}
    live = [artifact for artifact in story.store.get_artifacts() if artifact.state != proto.Artifact.DELETED]
    assert len(live) == 2 * sum(map(len, OUTPUTS.values()))
    assert all(os.path.exists(artifact.uri) for artifact in live)


def test_what_the_newest_runs_took_from_the_cache_stays(story: Story):
    story.run()
    for _ in range(3):
        story.run(*DATA)

    story.clean(keep_runs=1)

    assert story.runs == ["run-004"]
    assert story.makers("ImageTransform") == ["run-001"] * 2
    assert story.makers("Trainer") == ["run-004"] * 2
    assert story.artifact("ImageExampleGen", "examples", 2).state != proto.Artifact.DELETED


def test_the_newest_run_that_succeeded_stays_however_many_failed_since(story: Story):
    story.run()
    story.run()
    for _ in range(3):
        story.run(status="failed")

    story.clean(keep_runs=1)

    assert story.runs == ["run-002", "run-005"]


def test_what_stands_behind_versions_that_are_served_kept_or_pinned_stays(story: Story):
    serving = str(story.workspace.serving / "tiny")
    for version in range(1, 6):
        story.run(version=version)
    pin(serving, 2)
    assert prune(serving, 2) == [1, 3]
    story.run()

    story.clean(keep_runs=1)

    assert story.runs == ["run-002", "run-004", "run-005", "run-006"]
    for version in (2, 4, 5):
        push = find_push(pushes(story.store), version, "tiny", story.workspace.serving)
        for stage in lineage(story.store, push).stages:
            for number in (number for side in (stage.inputs, stage.outputs) for ids in side.values() for number in ids):
                (artifact,) = story.store.get_artifacts_by_id([number])
                assert artifact.state != proto.Artifact.DELETED
                assert os.path.exists(artifact.uri), artifact.uri
    assert "run-003" not in story.makers("Trainer")


def test_what_stands_behind_a_version_that_a_rollback_restored_stays(story: Story):
    serving = str(story.workspace.serving / "tiny")
    story.run(version=1)
    story.run(version=2)
    roll_back(serving, None)
    assert prune(serving, 1) == [1, 2]
    story.run()

    story.clean(keep_runs=1)

    assert [version.version for version in published(serving)] == [3]
    assert story.runs == ["run-001", "run-003"]
    assert story.makers("Trainer") == ["run-001"] * 2 + ["run-003"] * 2


def test_a_copy_of_a_version_goes_with_the_version(story: Story):
    serving = str(story.workspace.serving / "tiny")
    story.run(version=1)
    story.run(version=2, served=1)
    story.clean(keep_runs=2)
    assert story.makers("ServedModel") == ["run-001", "run-002"]

    assert prune(serving, 1) == [1]
    story.clean(keep_runs=2)

    assert story.runs == ["run-001", "run-002"]
    assert story.makers("ServedModel") == ["run-001"]
    push = find_push(pushes(story.store), 2, "tiny", story.workspace.serving)
    assert "ServedModel" in {stage.name for stage in lineage(story.store, push).stages}


def test_old_runs_go_by_age_too_but_never_the_newest(story: Story):
    for age in (9, 3, 1, 5):
        folder = story.workspace.runs / story.run()
        os.utime(folder, (time.time() - age * 86400,) * 2)

    story.clean(keep_runs=10, keep_days=4)

    assert story.runs == ["run-002", "run-003", "run-004"]
    story.clean(keep_runs=10, keep_days=0.01)
    assert story.runs == ["run-004"]


def test_a_clock_that_jumped_back_does_not_make_the_newest_run_the_oldest(story: Story):
    for _ in range(3):
        story.run()
    renamed = story.workspace.runs / "19800101-000000-000"
    context = story.store.get_context_by_type_and_name("pipeline_run", "run-003")
    context.name = renamed.name
    story.store.put_contexts([context])
    (story.workspace.runs / "run-003").rename(renamed)

    story.clean(keep_runs=1)

    assert story.runs == ["19800101-000000-000"]


def test_the_listing_changes_nothing(story: Story):
    for _ in range(3):
        story.run()
    before = sorted(story.workspace.root.rglob("*"))

    found = superseded(story.workspace, story.store, RetentionConfig(keep_runs=1))

    assert [run.name for run in found.runs] == ["run-002", "run-001"]
    assert len(found.artifacts) == len(found.folders) == 2 * sum(map(len, OUTPUTS.values()))
    assert sorted(story.workspace.root.rglob("*")) == before
    assert story.makers("Trainer") == ["run-001"] * 2 + ["run-002"] * 2 + ["run-003"] * 2


def test_what_killed_runs_left_behind_goes(story: Story):
    story.run()
    artifacts = story.workspace.artifacts
    type_id = story.store.put_execution_type(proto.ExecutionType(name="components.Trainer"))
    (killed,) = story.store.put_executions([proto.Execution(type_id=type_id, last_known_state=proto.Execution.RUNNING)])
    half_written = artifacts / "Trainer/model" / str(killed)
    working = artifacts / "Trainer/.system/executor_execution" / str(killed)
    for folder in (half_written, working):
        folder.mkdir(parents=True)

    story.clean(keep_runs=5)

    assert not half_written.exists()
    assert not working.exists()
    assert story.makers("Trainer") == ["run-001"] * 2


def test_what_a_lost_database_knew_is_left_alone(story: Story):
    story.run()
    unknown = story.workspace.artifacts / "Trainer/model/4711"
    unknown.mkdir()

    story.clean(keep_runs=1)

    assert unknown.exists()


def add_training(story: Story, name: str, days: float, *, finished: bool = False) -> None:
    """Checkpoints of a training that was last written to so many days ago."""
    folder = story.workspace.checkpoints / name
    files = [folder / CHECKPOINTS / "state/step-3.index", folder / TENSORBOARD / "events"]
    files += [folder / FINISHED] if finished else []
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - days * 86400,) * 2)


def trainings(story: Story) -> list[str]:
    """What is left of them."""
    folders = {path.parents[2] for path in story.workspace.checkpoints.rglob("step-3.index")}
    return sorted(str(folder.relative_to(story.workspace.checkpoints)) for folder in folders)


def test_unfinished_trainings_go_by_count_and_age_but_the_newest_stays(story: Story):
    for name, days in (("streets/a", 1), ("fields/b", 2), ("streets/c", 3), ("streets/d", 40)):
        add_training(story, name, days)

    story.clean(keep_days=30)
    assert trainings(story) == ["fields/b", "streets/a", "streets/c"]
    story.clean(keep_runs=2)
    assert trainings(story) == ["fields/b", "streets/a"]
    story.clean(keep_days=0.5)
    assert trainings(story) == ["streets/a"]


def test_of_finished_trainings_the_newest_of_each_pipeline_stays(story: Story):
    """From it a change of section `inference` exports anew."""
    for name, days in (("streets/a", 2), ("streets/b", 3), ("streets/c", 4), ("fields/d", 5), ("fields/e", 6)):
        add_training(story, name, days, finished=True)
    for name, days in (("streets/f", 1), ("streets/g", 7)):
        add_training(story, name, days)

    story.clean()
    assert trainings(story) == ["fields/d", "streets/a", "streets/f", "streets/g"]
    story.clean(keep_runs=3)
    assert trainings(story) == ["fields/d", "streets/a", "streets/f"]
    story.clean(keep_runs=1)
    assert trainings(story) == ["streets/f"]


def test_a_search_counts_as_one_training_however_many_trials_it_has(story: Story):
    for number in range(3):
        add_training(story, f"streets/search/trial-{number}", days=2)
    add_training(story, "streets/a", days=1)

    story.clean(keep_runs=2)

    assert trainings(story) == ["streets/a", *(f"streets/search/trial-{number}" for number in range(3))]


def test_trainings_that_lie_as_earlier_versions_laid_them_stay_by_the_same_rules(story: Story):
    for name, days in (("0123456789abcdef", 2), ("streets/a", 1), ("fedcba9876543210", 3)):
        add_training(story, name, days)

    story.clean()
    assert trainings(story) == ["0123456789abcdef", "fedcba9876543210", "streets/a"]
    story.clean(keep_runs=2)
    assert trainings(story) == ["0123456789abcdef", "streets/a"]


def test_files_beside_the_trainings_stay_and_stop_nothing(story: Story):
    story.run()
    folder = story.workspace.checkpoints
    for name in ("streets/old", "streets/new"):
        add_training(story, name, days=name.count("old"))
    strange = [folder / "notes.txt", folder / "streets" / "notes.txt"]
    strange.append(story.workspace.artifacts / "Trainer/.system/executor_execution/notes.txt")
    strange[-1].parent.mkdir(parents=True)
    for file in strange:
        file.touch()

    story.clean(keep_runs=1)

    assert trainings(story) == ["streets/new"]
    assert all(file.exists() for file in strange)


def test_damaged_records_or_an_empty_workspace_remove_nothing(story: Story):
    story.clean(keep_runs=1)
    for version in (1, 2):
        story.run(version=version)
    (story.workspace.serving / "tiny/1/PUBLISHED").write_text("{")

    with pytest.raises(WorkspaceError, match="damaged record"):
        story.clean(keep_runs=1)

    assert story.runs == ["run-001", "run-002"]
    assert story.makers("Trainer") == ["run-001"] * 2 + ["run-002"] * 2


def test_what_keeps_old_runs_from_being_removed_keeps_neither_index_nor_backup(story: Story):
    for version in (1, 2):
        run_id = story.run(version=version)
    (story.workspace.serving / "tiny/1/PUBLISHED").write_text("{")
    config = Config.model_validate({"data": {"path": "none"}, "retention": {"keep_runs": 1}})
    folder = story.workspace.run_folder(run_id)

    clean_up(config, story.workspace, folder, succeeded=True)

    log = (folder / LOG_FILE).read_text()
    assert log.startswith("old runs were not removed:\n") and "damaged record" in log and "not written" not in log
    assert story.runs == ["index.html", "run-001", "run-002"]
    assert [path.name for path in story.workspace.backups.iterdir()] == ["metadata-000001.sqlite"]


def test_an_interrupted_removal_is_finished_the_next_time(story: Story, monkeypatch: pytest.MonkeyPatch):
    for _ in range(3):
        story.run()
    removed: list[Path] = []
    remove = shutil.rmtree

    def full(folder: Path) -> None:
        if len(removed) == 5:
            raise OSError("killed")
        removed.append(folder)
        remove(folder)

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.retention.shutil.rmtree", full)
        with pytest.raises(OSError, match="killed"):
            story.clean(keep_runs=1)
    assert len(story.runs) == 3

    story.clean(keep_runs=1)

    assert story.runs == ["run-003"]
    assert set(story.makers("Trainer")) == {"run-003"}


def execute(workspace: Workspace, run_id: str, min_side: int) -> str:
    """Runs a pipeline of one stage; whether it ran or came from the cache."""
    connection = metadata_config(workspace, MetadataConfig())
    labels = LabelMap(classes=(ClassLabel(name="sky"),)).model_dump_json()
    stage = DataSchema(validation=ValidationConfig(min_side=min_side), label_map=labels)
    pipeline = Pipeline("tiny", str(workspace.artifacts), connection, components=[stage], enable_cache=True)
    compiled = Compiler().compile(pipeline)
    substitute_runtime_parameter(compiled, {PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    workspace.start_run(run_id)
    run_pipeline(compiled, None, lambda _: None)
    return read_run(connection, "tiny", run_id)["DataSchema"].state


def test_tfx_takes_nothing_from_the_cache_that_was_removed(tmp_path: Path):
    workspace = Workspace(tmp_path)
    store = open_store(metadata_config(workspace, MetadataConfig()))

    assert execute(workspace, "run-1", 1) == "ran"
    assert execute(workspace, "run-2", 1) == "cached"
    assert execute(workspace, "run-3", 2) == "ran"
    superseded(workspace, store, RetentionConfig(keep_runs=1)).remove(store)

    assert execute(workspace, "run-4", 2) == "cached"
    assert execute(workspace, "run-5", 1) == "ran"
    assert execute(workspace, "run-6", 1) == "cached"
