"""The section `tuning`: what a search may vary, and that no value which a section refuses reaches a trial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.training.search_space import FIELDS, chosen_values, with_values
from components.training.tuning import Dimension, TuningConfig
from data.errors import ConfigError
from pipeline.config import Config, load_config

RATE = "training.learning_rate: {min: 1e-4, max: 1e-2, sampling: log}"


def load(tuning: str) -> TuningConfig:
    """The section from its YAML."""
    return load_config([], ["data.path=x", f"tuning={tuning}"]).tuning


def test_there_is_no_search_unless_it_is_asked_for() -> None:
    assert Config(data={"path": "x"}).tuning.trials == 0


def test_ranges_and_lists_of_each_kind_of_field_load_and_survive_the_way_through_json() -> None:
    tuning = load(
        f"{{trials: 3, space: {{{RATE}, model.width: {{choices: [0.5, 1]}}, augment.flip: {{choices: [true, false]}},"
        " training.loss.dice: {min: 0, max: 1, step: 0.25}, training.optimizer: {choices: [adamw, sgd]},"
        " training.weight_decay: {choices: [1e-5, 1e-4]}, augment.crop: {min: 64, max: 128, step: 32}}}"
    )
    assert tuning.space["training.learning_rate"] == Dimension(min=1e-4, max=1e-2, sampling="log")
    assert tuning.space["training.weight_decay"].choices == (1e-5, 1e-4)
    assert tuning.space["augment.flip"].choices == (True, False)
    assert TuningConfig.model_validate_json(tuning.model_dump_json()) == tuning


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ("{trials: 3}", "tuning.space names no field to search over"),
        ("{trials: -1}", "tuning.trials=-1"),
        (f"{{trials: 3, algorithm: hyperband, space: {{{RATE}}}}}", "too few for hyperband, at least 4"),
        (
            "{space: {model.widht: {choices: [0.5, 1.0]}}}",
            "model.widht='model.widht': no such field; did you mean model.width?",
        ),
        ("{space: {data.path: {choices: [a, b]}}}", "data.path='data.path': no such field"),
        ("{space: {training.steps: {min: 1, max: 9}}}", "tuning.steps says how long a trial trains"),
        ("{space: {training.strategy: {choices: [tpu, mirrored]}}}", "it says where a training runs"),
        ("{space: {training.optimizer: {min: 1, max: 9}}}", "training.optimizer takes no range, only choices"),
        ("{space: {model.output_stride: {min: 8, max: 32}}}", "model.output_stride takes no range, only choices"),
        ("{space: {model.dropout: {}}}", "give either choices, or min and max"),
        ("{space: {model.dropout: {min: 0, max: 0.5, choices: [0, 1]}}}", "give either choices, or min and max"),
        ("{space: {model.dropout: {min: 0.1}}}", "min 0.1 must be less than max None"),
        ("{space: {model.dropout: {min: 0.5, max: 0.1}}}", "min 0.5 must be less than max 0.1"),
        (
            "{space: {model.dropout: {min: 0, max: 0.1, sampling: log}}}",
            "min 0 must be greater than 0 with sampling log",
        ),
        ("{space: {model.dropout: {min: 0.1, max: 0.2, sampling: log, step: 0.1}}}", "step 0.1 must be greater than 1"),
        ("{space: {model.dropout: {choices: [0.1]}}}", "choices [0.1] must be at least two, and all different"),
        ("{space: {model.dropout: {choices: [0.1, none]}}}", "choices [0.1, 'none'] are of different kinds"),
        ("{space: {augment.crop: {min: 64, max: 128, step: 0.5}}}", "a whole number, and so must be its step, 0.5"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_when_it_is_loaded(tuning: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tuning)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{training.learning_rate: {min: 0, max: 1}}", "tuning.space allows training.learning_rate=0.0: training.lear"),
        ("{training.global_batch_size: {min: 2, max: 4.5}}", "training.global_batch_size=4.5"),
        ("{model.width: {choices: [0.5, 0.75, 2.0]}}", "width 2.0 does not exist for backbone 'mobilenet_v2'"),
        ("{model.output_stride: {choices: [16, 12]}}", "model.output_stride: Input should be 8, 16 or 32"),
        ("{training.loss.dice: {choices: [1, -1]}}", "training.loss.dice: Input should be greater than or equal to 0"),
        ("{augment.scale_max: {min: 0.25, max: 2.0}}", "scale_min 0.5 is larger than scale_max 0.25"),
    ],
)
def test_a_value_that_its_section_refuses_is_found_when_the_config_is_loaded(space: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(f"{{trials: 2, space: {space}}}")
    assert message in str(error.value)


def test_a_search_over_several_workers_is_refused() -> None:
    overrides = ["data.path=x", f"tuning={{trials: 2, space: {{{RATE}}}}}", "training.strategy=multi_worker"]
    with pytest.raises(ConfigError, match="tuning.trials=2 does not go with training.strategy 'multi_worker'"):
        load_config([], overrides)


def test_values_that_are_refused_only_together_are_found_too() -> None:
    backbones = "model.backbone: {choices: [mobilenet_v2, resnet50]}"
    assert load(f"{{trials: 2, space: {{{backbones}}}}}").space
    with pytest.raises(ConfigError, match="model.width=0.5, .*width 0.5 does not exist for backbone 'resnet50'"):
        load(f"{{trials: 2, space: {{{RATE}, model.width: {{choices: [1.0, 0.5]}}, {backbones}}}}}")


def test_best_values_take_the_place_of_the_configurations_own() -> None:
    tree = {"training": {"learning_rate": 0.1, "loss": {"dice": 0.0}}, "model": {"width": 1.0}, "code_hash": "a"}
    best = {"training.loss.dice": 0.5, "model.width": 0.35, "tuner/epochs": 3}
    assert with_values(tree, chosen_values(best)) == {
        "training": {"learning_rate": 0.1, "loss": {"dice": 0.5}},
        "model": {"width": 0.35},
        "code_hash": "a",
    }
    assert tree["model"] == {"width": 1.0}


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.integers(0, 9)))
def test_every_field_can_be_given_a_value_and_only_it_changes(values: dict[str, int]) -> None:
    config = Config(data={"path": "x"}).model_dump(mode="json")
    changed = with_values(config, values)
    restored = {}
    for field in values:
        node = config
        for part in field.split("."):
            node = node[part]
        restored[field] = node
    assert with_values(changed, restored) == config
    assert chosen_values(values) == values
