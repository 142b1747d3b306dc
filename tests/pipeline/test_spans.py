"""Data that come in spans: which stages the pipeline then has, and what the configuration and the plan make of it."""

from pathlib import Path

import pytest

from components.code_hash import source_files
from data.errors import DataError
from data.files import LocalFiles
from data.synthetic import write_dataset
from pipeline.config import Config, load_config, resolve
from pipeline.dry_run import plan
from pipeline.local import compile_pipeline
from pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two spans of the sample dataset."""
    folder = tmp_path_factory.mktemp("spans")
    for number in (1, 2):
        write_dataset(folder / f"span-{number}", num_train=2, num_val=1, num_test=1, seed=number)
    return folder


def config_of(path: str, **settings: str) -> Config:
    overrides = [f"data.path={path}", *(f"{key.replace('__', '.')}={value}" for key, value in settings.items())]
    return resolve(load_config([], overrides), LocalFiles())


def stages(config: Config, workspace: Path) -> dict[str, set[str]]:
    """Stage -> stages that come before it."""
    compiled = compile_pipeline(config, Workspace(workspace), "run")
    return {node.pipeline_node.node_info.id: set(node.pipeline_node.upstream_nodes) for node in compiled.nodes}


def test_layout_and_labels_are_those_of_the_first_span(data: Path):
    config = config_of(f"{data}/span-{{SPAN}}")

    assert config.data.layout == "voc"
    assert config.data.path == f"{data}/span-{{SPAN}}"
    assert config.labels.num_classes == config_of(f"{data}/span-1").labels.num_classes
    with pytest.raises(DataError, match="no span: nothing in"):
        config_of(f"{data}/day-{{SPAN}}")


def test_spans_add_a_stage_that_nothing_is_trained_without(data: Path, tmp_path: Path):
    plain = stages(config_of(f"{data}/span-1"), tmp_path)
    spanned = stages(config_of(f"{data}/span-{{SPAN}}"), tmp_path)

    assert set(spanned) == {*plain, "SpanDrift"}
    assert spanned["SpanDrift"] == {"ImageExampleGen"}
    assert spanned["StrictExampleValidator"] == {*plain["StrictExampleValidator"], "SpanDrift"}
    assert "StrictExampleValidator" in spanned["ImageTransform"]
    assert {name: before for name, before in spanned.items() if name in plain and name != "StrictExampleValidator"} == {
        name: before for name, before in plain.items() if name != "StrictExampleValidator"
    }


def test_a_dry_run_counts_the_window_and_writes_nothing(data: Path, tmp_path: Path):
    planned = plan(config_of(f"{data}/span-{{SPAN}}", data__spans__window="2"), Workspace(tmp_path / "workspace"))

    assert planned.data_bytes == sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    assert all(stage.runs for stage in planned.stages)
    assert not (tmp_path / "workspace").exists()


def test_an_edit_of_the_comparison_does_not_ingest_anew():
    ingesting = {path.name for path in source_files("components.spans.example_gen")}

    assert {"example_gen.py", "ingest.py", "merge.py", "spans.py"} <= ingesting
    assert "drift.py" not in ingesting
