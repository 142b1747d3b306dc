"""The wiring: which stages there are, and that each can be found by its name."""

from pathlib import Path

from components.storage.file_systems import file_system
from components.training.trainer import TrainerConfig
from pipeline.config import Config, load_config, resolve
from pipeline.pipeline import PipelinePaths, create_pipeline, trainer_config
from pipeline.stages import Stage

PATHS = PipelinePaths("/artifacts", serving="/serving", checkpoints="/checkpoints", ingested="/ingested")

EVERYTHING = (
    "training.warm_start=true",
    "tuning.trials=1",
    "tuning.space={training.learning_rate: {choices: [0.01, 0.1]}}",
    "lite.variants=[float16]",
    "hub.modules=[segmenter]",
)


def stages(path: str | Path, dataset: Path, *overrides: str) -> dict[str, list[str]]:
    """Each stage of a pipeline, with the stages that it waits for."""
    config = load_config([], [f"data.path={dataset}", *overrides])
    config = resolve(config, file_system(str(dataset)))
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(path)})})
    pipeline = create_pipeline(config, PATHS)
    return {node.id: sorted(upstream.id for upstream in node.upstream_nodes) for node in pipeline.components}


def test_every_stage_has_its_name_and_waits_for_earlier_ones_alone(tiny_dataset: Path):
    waits_for = stages("/data/span-{SPAN}", tiny_dataset, *EVERYTHING)
    order = [*Stage]
    assert waits_for.keys() == set(order) - {Stage.RUN_REPORTER}
    for stage, earlier in waits_for.items():
        assert all(order.index(Stage(name)) < order.index(Stage(stage)) for name in earlier), (stage, earlier)


def test_a_stage_that_nothing_asks_for_is_absent(tiny_dataset: Path):
    optional = {Stage.DRIFT, Stage.WARM_START, Stage.TUNER, Stage.LITE, Stage.HUB}
    assert stages(tiny_dataset, tiny_dataset).keys() == set(Stage) - optional - {Stage.RUN_REPORTER}


def test_nothing_is_transformed_before_it_is_validated(tiny_dataset: Path):
    assert Stage.VALIDATOR in stages(tiny_dataset, tiny_dataset)[Stage.TRANSFORM]


def training(name: str = "streets", model_name: str = "segmentation") -> TrainerConfig:
    """What the Trainer of a pipeline is given."""
    data = {"path": "none", "label_map": {"classes": [{"name": "sky"}, {"name": "road"}]}}
    config = Config.model_validate({"name": name, "data": data, "push": {"model_name": model_name}})
    return trainer_config(config, PATHS.checkpoints)


def test_pipelines_that_share_a_volume_share_no_folder_of_checkpoints():
    streets, fields = (Path(training(name).checkpoints) for name in ("streets", "fields"))
    assert streets.parent == fields.parent == Path("/checkpoints")
    assert streets != fields


def test_a_model_that_is_published_under_another_name_is_not_trained_anew():
    assert training(model_name="a") == training(model_name="b")
