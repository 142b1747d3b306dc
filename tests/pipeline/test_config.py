import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import EvaluationConfig
from data.errors import ConfigError
from data.files import LocalFiles
from pipeline.config import MOST_ERRORS, Config, load_config, load_section, resolve
from pipeline.sections.beam import BeamConfig
from pipeline.sections.serving import ServingConfig
from pipeline.yaml_text import dump

CONFIGS = Path(__file__).resolve().parents[2] / "pipeline" / "configs"
DATA = ["data.path=somewhere"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_each_config_of_the_project_loads_and_says_where_it_comes_from(path: Path) -> None:
    assert load_config([path], DATA).data.path == "somewhere"
    head = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    for word in ("source:", "command:", "time:", "score:"):
        assert any(word in line for line in head), f"{path.name} does not state its {word}"


def test_an_override_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("training: {steps: 7, global_batch_size: 3}\n")
    config = load_config([path], [*DATA, "training.steps=9"])
    assert (config.training.steps, config.training.global_batch_size) == (9, 3)
    assert config.training.seed == Config(data={"path": "x"}).training.seed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stepz=3", "unknown key training.stepz; did you mean steps?"),
        ("trainng.steps=3", "unknown key trainng; did you mean training?"),
        ("training.steps=-3", "training.steps=-3: Input should be greater than or equal to 1"),
        ("training.steps=many", "training.steps='many': Input should be a valid integer"),
        ("model.output_stride=12", "model.output_stride=12: Input should be 8, 16 or 32"),
        ("model.zzz=1", "unknown key model.zzz; allowed: backbone, "),
        ("training.initial_weights=imagenet", "does not go with model.normalization 'dataset'"),
        ("training.steps", "must look like section.key=value"),
        ("name.first=x", "name={'first': 'x'}: Input should be a valid string"),
        ("push.model_name=../escape", "push.model_name='../escape'"),
        ("augment.flip=yes", "augment.flip='yes': Input should be a valid boolean; allowed: true, false"),
        ("augment.flip=1", "augment.flip=1: Input should be a valid boolean; allowed: true, false"),
        ("training.steps=true", "training.steps=True: Input should be a valid integer"),
        ("training.steps=2:30", "training.steps='2:30': Input should be a valid integer"),
        ("training.steps='100'", "training.steps='100': Input should be a valid integer"),
        ("training.power=false", "training.power=False: Input should be a valid number"),
        ("training.initial_weights=0100", "training.initial_weights=100: Input should be a valid string; text that"),
        ("training.learning_rate=.nan", "training.learning_rate=nan: Input should be a finite number"),
        ("training.learning_rate=1e999", "training.learning_rate=inf: Input should be a finite number"),
        ("training.loss.dice=.inf", "training.loss.dice=inf: Input should be a finite number"),
        ("inference.scales=[1, .inf]", "inference.scales.1=inf: Input should be"),
        ("evaluation.buckets.size=[1, .nan]", "evaluation.buckets.size.1=nan: Input should be a finite number"),
        ("schedule.poll_seconds=1e12", "schedule.poll_seconds=1000000000000.0: Input should be less than or equal to"),
        (
            "training.global_batch_size=1000000000",
            "training.global_batch_size=1000000000: Input should be less than or",
        ),
        ("augment.crop=[100000, 8]", "augment.crop.tuple[constrained-int, constrained-int].0=100000: Input should be"),
        ("retention.keep_days=1e300", "retention.keep_days=1e+300: Input should be less than or equal to 36500"),
        ("training.steps={a: 1, a: 2}", "--set training.steps={a: 1, a: 2}: a stands here a second time"),
        (f"training.steps={'[' * 5000}", "nested deeper than 32 levels"),
        (f"data.layout={'x' * 9000}", "unknown layout 'xxxxx"),
        (f"training.{'x' * 9000}=3", f"unknown key training.{'x' * 100}... (9000 characters)"),
        (f"{'a.' * 5000}b=3", "nested deeper than 32 levels"),
        (
            "evaluation.slice_by=[colour]",
            "images cannot be sliced by 'colour'; allowed: source, height, width, size",
        ),
        ("evaluation.slices={'size:256': {}}", "'size:256': no such bucket; allowed: size:<256, size:256-1024, "),
        ("evaluation.slices={source: {}}", "'source' is not a slice; it must look like column:value"),
        ("evaluation.buckets.brightness=[0.5, 0.2]", "the edges must ascend"),
        ("evaluation.classes={car: {min_iuo: 0.5}}", "unknown key evaluation.classes.car.min_iuo"),
        ("data.label_map={classes: [{name: a, values: [0]}, {name: b, values: [0]}]}", "label value 0 occurs 2 times"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([], [*DATA, override])
    assert message in str(error.value)
    assert len(str(error.value)) < 1500


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        load_config([], [*DATA, "training.stepz=1", "model.widht=1"])
    assert "training.stepz" in str(error.value) and "model.widht" in str(error.value)
    with pytest.raises(ConfigError) as error:
        load_config([], [*DATA, *(f"training.key{number}=1" for number in range(50))])
    assert len(str(error.value).splitlines()) == MOST_ERRORS + 1
    assert str(error.value).endswith(f"and {50 - MOST_ERRORS} more")


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ConfigError, match="data is missing; say where the pictures are"):
        load_config()


def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path: Path) -> None:
    for content, message in (("[1, 2]", "mapping of sections"), ("a: [", "cannot be read as YAML")):
        path = tmp_path / "c.yaml"
        path.write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_config([path])
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_config([path])
    with pytest.raises(ConfigError, match="no such file"):
        load_config([tmp_path / "absent.yaml"])


def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {path: x}\ntraining: {steps: 0}\nschedule: {jitter_seconds: 1}")
    with pytest.raises(ConfigError) as caught:
        load_config([path], ["schedule.timezone=X", "training.sted=3", "nonsense.key=1", "tuning={trials: -1}"])
    lines = {line.partition(": ")[2].partition("=")[0]: line for line in str(caught.value).splitlines()}
    assert lines["schedule.timezone"].startswith("--set: schedule.timezone='X': ")
    assert lines["unknown key training.sted; did you mean seed?"].startswith("--set: ")
    assert lines["tuning.trials"].startswith("--set: tuning.trials=-1: ")
    assert lines["training.steps"].startswith(f"{path}: training.steps=0: ")
    assert any(line.startswith("--set: unknown key nonsense") for line in lines.values())


def test_a_section_is_loaded_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {spans: {window: 2}}\ntraining: {steps: 0}\nserving: {workers: 5}\n")

    serving = load_section([path], ["serving.queue=7", "tuning={trials: -1}"], ServingConfig)

    assert serving == ServingConfig(workers=5, queue=7)
    assert load_section([path], [], BeamConfig) == BeamConfig()
    assert load_section([], [], ServingConfig) == ServingConfig()


def test_mistakes_in_the_section_and_unknown_keys_anywhere_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("servin: {}\ntraining: {steps: 0, stepz: 3}\nserving: {workers: 0}\n")

    with pytest.raises(ConfigError) as caught:
        load_section([path], ["serving.queue=-1"], ServingConfig)

    assert str(caught.value).splitlines() == [
        f"{path}: unknown key training.stepz; did you mean steps?",
        f"{path}: serving.workers=0: Input should be greater than or equal to 1",
        "--set: serving.queue=-1: Input should be greater than or equal to 0",
        f"{path}: unknown key servin; did you mean serving?",
    ]
    with pytest.raises(ConfigError, match="serving=3: Input should be a valid dictionary or instance of ServingConfig"):
        load_section([], ["serving=3"], ServingConfig)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="the tag .* is not read"):
        load_config([path])


@given(st.integers(1, 10**6), st.floats(1e-6, 1.0), st.booleans())
def test_a_config_survives_its_json(steps: int, rate: float, deterministic: bool) -> None:
    training = {"steps": steps, "learning_rate": rate, "deterministic": deterministic}
    config = load_config([], [*DATA, *(f"training.{key}={value}" for key, value in training.items())])
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_resolving_fills_in_layout_and_label_map(tiny_dataset: Path) -> None:
    config = resolve(load_config([], [f"data.path={tiny_dataset}"]), LocalFiles())
    assert config.data.layout == "voc"
    assert config.labels.names == ("background", "rug", "ball", "bricks", "leaf", "star")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("classes={leave: {min_iou: 0.5}}", "evaluation.classes.leave: the label map has no class 'leave'; did you"),
        (
            "slices={'has:car': {max_drop: 0.1}}",
            "evaluation.slices: has:car: the label map has no class 'car'; allowed",
        ),
        ("slice_by=['has:balls']", "evaluation.slice_by: has:balls: the label map has no class 'balls'; did you mean"),
    ],
)
def test_a_class_that_the_label_map_lacks_is_refused_once_that_is_known(
    tiny_dataset: Path, override: str, message: str
) -> None:
    config = load_config([], [f"data.path={tiny_dataset}", f"evaluation.{override}"])
    with pytest.raises(ConfigError) as error:
        resolve(config, LocalFiles())
    assert message in str(error.value)


def test_thresholds_by_class_and_slice_are_taken(tiny_dataset: Path) -> None:
    thresholds = "{classes: {leaf: {min_iou: 0.3}}, slices: {'has:leaf': {}, 'size:<256': {max_drop: 0.1}}}"
    config = resolve(load_config([], [f"data.path={tiny_dataset}", f"evaluation={thresholds}"]), LocalFiles())
    assert config.evaluation.classes["leaf"].min_iou == 0.3
    assert config.evaluation.classes["leaf"].max_drop is None
    assert config.evaluation.slices["size:<256"].max_drop == 0.1


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pipeline.config"]


FORMER_NAMES = """
data: {path: "/data/span-{SPAN}", evaluation: window}
augment:
  finish: {after: 0.75, crop: 512}
training:
  tensorboard_pictures: 2
  loss: {top_k_fraction: 0.5, top_k_ramp_steps: 100}
"""


def test_former_names_of_keys_are_read_with_a_warning_that_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(FORMER_NAMES)
    config = load_config([path], ["augment.finish.after=0.5", "training.loss={top_k_fraction: 0.25}"])
    assert config.data.test_set == "window"
    assert config.augment.progressive_resizing is not None
    assert (config.augment.progressive_resizing.after, config.augment.progressive_resizing.crop) == (0.5, 512)
    assert (config.training.loss.ohem_fraction, config.training.loss.ohem_ramp_steps) == (0.25, 0)
    assert config.training.tensorboard_images == 2
    warnings = warnings_of(caplog)
    assert len(set(warnings)) == len(warnings)
    for former, current in (
        ("data.evaluation", "data.test_set"),
        ("augment.finish", "augment.progressive_resizing"),
        ("training.loss.top_k_fraction", "training.loss.ohem_fraction"),
        ("training.loss.top_k_ramp_steps", "training.loss.ohem_ramp_steps"),
        ("training.tensorboard_pictures", "training.tensorboard_images"),
    ):
        assert any(f"The key {former} is now called {current}. Please rename it" in text for text in warnings)


def test_current_names_are_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(load_config([], DATA).model_dump_json())
    load_config([path], ["augment.progressive_resizing={after: 0.5}"])
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("in_file", "override"), [("finish", "progressive_resizing"), ("progressive_resizing", "finish")]
)
def test_an_override_wins_by_either_name(tmp_path: Path, in_file: str, override: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"augment: {{{in_file}: {{after: 0.75}}}}\n")
    config = load_config([path], [*DATA, f"augment.{override}.after=0.5"])
    assert config.augment.progressive_resizing is not None
    assert config.augment.progressive_resizing.after == 0.5


def test_a_mistake_below_a_former_name_is_blamed_on_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("augment: {finish: {after: 0.75}}\n")
    with pytest.raises(ConfigError, match=r"^--set: augment\.progressive_resizing\.after=5: .*less than 1"):
        load_config([path], [*DATA, "augment.finish.after=5"])


def test_one_field_under_both_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("training: {loss: {top_k_fraction: 0.5, ohem_fraction: 0.5}}\n")
    with pytest.raises(
        ConfigError, match=r"training\.loss\.top_k_fraction is the former name of training\.loss\.ohem_"
    ):
        load_config([path], DATA)


def test_a_search_takes_former_names_of_fields() -> None:
    config = load_config([], [*DATA, "tuning.space={training.loss.top_k_fraction: {min: 0.25, max: 1.0}}"])
    assert list(config.tuning.space) == ["training.loss.ohem_fraction"]


def test_a_recorded_configuration_with_former_names_is_read_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    recorded = load_config([], DATA).model_dump(mode="json")
    recorded["data"]["evaluation"] = recorded["data"].pop("test_set")
    recorded["training"]["loss"]["top_k_fraction"] = recorded["training"]["loss"].pop("ohem_fraction")
    assert Config.model_validate(recorded) == load_config([], DATA)
    assert warnings_of(caplog) == []


def test_a_key_that_stands_twice_is_an_error_with_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {path: x}\nevaluation: {min_mean_iou: 0.6}\ntraining: {}\nevaluation: {max_drop: 0.1}\n")
    with pytest.raises(ConfigError) as error:
        load_config([path])
    assert str(error.value).startswith(f"{path}, line 4: evaluation stands here a second time, after line 2")


def test_of_several_files_the_later_ones_win_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("""
        data:
          path: x
          label_map: {classes: [{name: cat, values: [0]}], ignore_values: [255]}
        augment: {finish: {after: 0.75, crop: 512}}
        evaluation: {min_mean_iou: 0.6, slice_by: [height, width], classes: {cat: {min_iou: 0.3}, dog: {min_iou: 0.2}}}
        kubeflow: {stages: {Trainer: {cpu: "8"}}}
    """)
    second.write_text("""
        data: {label_map: {classes: [{name: no, values: [1]}]}}
        augment: {progressive_resizing: {crop: 256}}
        evaluation: {max_drop: 0.1, slice_by: [size], classes: {cat: {max_drop: 0.5}}}
        kubeflow: {stages: {Trainer: {memory: 8Gi}}}
    """)

    config = load_config([first, second], ["evaluation.max_drop=0.2"])

    assert config.labels.names == ("no",) and config.labels.ignore_values == ()
    assert config.augment.progressive_resizing is not None
    assert (config.augment.progressive_resizing.after, config.augment.progressive_resizing.crop) == (0.75, 256)
    assert (config.evaluation.min_mean_iou, config.evaluation.max_drop) == (0.6, 0.2)
    assert config.evaluation.slice_by == ("size",)
    assert config.evaluation.classes["cat"].model_dump() == {"min_iou": 0.3, "max_drop": 0.5}
    assert config.evaluation.classes["dog"].min_iou == 0.2
    assert config.kubeflow.stage("Trainer").model_dump(include={"cpu", "memory"}) == {"cpu": "8", "memory": "8Gi"}
    assert load_config([second, first], []).labels.names == ("cat",)
    assert load_section([first, second], [], EvaluationConfig) == load_config([first, second]).evaluation


def test_a_mistake_is_blamed_on_the_file_that_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("data: {path: x}\ntraining: {steps: 10, seed: -1, log_every: 0}\ndate: 3\n")
    second.write_text("training: {warmup_steps: 20, log_every: -1}\nmodel: {wide: 2}\n")
    with pytest.raises(ConfigError) as error:
        load_config([first, second], ["training.seed=1"])
    assert str(error.value).splitlines() == [
        f"{second}: unknown key model.wide; did you mean width?",
        f"{second}: training.log_every=-1: Input should be greater than or equal to 1",
        f"{first}: unknown key date; did you mean data?",
    ]
    first.write_text("training: {steps: 10}\n")
    second.write_text("data: {path: x}\ntraining: {warmup_steps: 20}\n")
    with pytest.raises(
        ConfigError, match=rf"{first} with {second}: training=.*warmup_steps 20 is larger than steps 10"
    ):
        load_config([first, second])


def unbounded(schema: object, place: str) -> Iterator[str]:
    """The numbers in a JSON schema that have no upper bound."""
    if isinstance(schema, dict):
        bounded = {"maximum", "exclusiveMaximum", "enum", "const"} & set(schema)
        if schema.get("type") in ("integer", "number") and not bounded:
            yield place
        for key, part in schema.items():
            yield from unbounded(part, f"{place}.{key}")
    elif isinstance(schema, list):
        for part in schema:
            yield from unbounded(part, place)


def test_each_count_and_size_has_an_upper_bound() -> None:
    finite = {
        *("Buckets.brightness", "Buckets.contrast", "Buckets.size", "Buckets.void_fraction"),
        *("Dimension.choices", "Dimension.max", "Dimension.min", "Dimension.step"),
        *("LossConfig.dice", "LossConfig.lovasz", "ModelConfig.width"),
        *("TrainingConfig.backbone_rate_factor", "TrainingConfig.clip_norm", "TrainingConfig.learning_rate"),
        *("TrainingConfig.power", "TrainingConfig.weight_decay"),
    }
    found = unbounded(Config.model_json_schema()["$defs"], "")
    assert {".".join(place.split(".")[1:4:2]) for place in found} == finite, "numbers that only need to be finite"


names = st.sampled_from(
    ["no", "on", "true", "null", "~", "0100", "1e3", "2:30", "0o17", "<<", "a: b", "# c"]
) | st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30).filter(str.strip)
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{"), min_size=1, max_size=60)
lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.lists(names, min_size=1, max_size=4, unique=True), lines, paths)
def test_a_recorded_configuration_reads_back_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, classes: list[str], text: str, path: str
) -> None:
    label_map = {"classes": [{"name": name, "values": [index]} for index, name in enumerate(classes)]}
    thresholds = {name: {"min_iou": 0.5} for name in classes}
    config = Config.model_validate(
        {
            "data": {"path": path, "label_map": label_map, "license": text},
            "card": {"intended_use": text, "limits": [text, *classes]},
            "evaluation": {"classes": thresholds},
        }
    )
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8", newline="")
    (folder / "config.yaml").write_text(dump(config.model_dump(mode="json")), encoding="utf-8", newline="")
    assert load_config([folder / "config.json"]) == config
    assert load_config([folder / "config.yaml"]) == config
    assert load_config([], [f"data.path={json.dumps(path)}", f"data.license={json.dumps(text)}"]).data == (
        config.data.model_copy(update={"label_map": None})
    )
