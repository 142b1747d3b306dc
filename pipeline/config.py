"""The configuration: composes the sections, merges files and overrides, and reports errors.

Each section is defined beside the code that uses it. A YAML file holds only the differences from the defaults.
"""

import difflib
import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from components.config import (
    EvaluationConfig,
    HubConfig,
    InfraConfig,
    LiteConfig,
    PushConfig,
    ValidationConfig,
    check_classes,
)
from components.training.search_space import SECTIONS
from components.training.tuning import TuningConfig, check_space
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.dataset import DataConfig, example_folder, open_dataset, resolve_label_map
from data.errors import ConfigError
from data.files import FileSystem
from data.labels import LabelMap
from data.layouts.folder import Folder
from data.section import Section, current_path, subsection, with_current_names
from models.config import InferenceConfig, ModelConfig, TrainingConfig
from pipeline.sections.beam import BeamConfig
from pipeline.sections.kubeflow import KubeflowConfig
from pipeline.sections.schedule import ScheduleConfig
from pipeline.sections.serving import ServingConfig
from pipeline.sections.workspace import CardConfig, MetadataConfig, ReportConfig, RetentionConfig

log = logging.getLogger(__name__)

_Section = TypeVar("_Section", bound=Section)


class Config(Section):
    """One pipeline."""

    name: str = Field(default="segmentation", pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Names the pipeline in metadata and on Kubeflow."""
    data: DataConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    validation: ValidationConfig = ValidationConfig()
    augment: AugmentConfig = AugmentConfig()
    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    tuning: TuningConfig = TuningConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    infra: InfraConfig = InfraConfig()
    lite: LiteConfig = LiteConfig()
    hub: HubConfig = HubConfig()
    push: PushConfig = PushConfig()
    beam: BeamConfig = BeamConfig()
    metadata: MetadataConfig = MetadataConfig()
    retention: RetentionConfig = RetentionConfig()
    report: ReportConfig = ReportConfig()
    card: CardConfig = CardConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _search_can_train(self) -> Self:
        if self.tuning.trials and self.training.strategy == "multi_worker":
            raise ValueError(
                f"tuning.trials={self.tuning.trials} does not go with training.strategy 'multi_worker', which "
                "TensorFlow sets up once in a process; search with another strategy, then train with the values found"
            )
        check_space(self.tuning.space, {name: getattr(self, name) for name in SECTIONS})
        return self

    @model_validator(mode="after")
    def _published_weights_see_what_they_expect(self) -> Self:
        if self.training.initial_weights == "imagenet" and self.model.normalization != "backbone":
            raise ValueError(
                "training.initial_weights 'imagenet' does not go with model.normalization "
                f"{self.model.normalization!r}: published weights expect the pixels that they were trained on; "
                "allowed: 'backbone'"
            )
        return self

    @property
    def labels(self) -> LabelMap:
        """The label map, which `resolve` fills in."""
        if self.data.label_map is None:
            raise ConfigError("data.label_map is not resolved; call pipeline.config.resolve first")
        return self.data.label_map


def load_config(path: Path | None, overrides: Iterable[str] = ()) -> Config:
    """Reads a YAML file of differences from the defaults, then applies `section.key=value` overrides.

    A key under its former name is accepted, and a warning is logged.

    Raises:
        ConfigError: The file cannot be read, or a key or value is invalid; states which, where, and what is allowed.
    """
    overrides = list(overrides)
    try:
        return Config.model_validate(_values(path, overrides))
    except ValidationError as error:
        raise _refusal(error.errors(), path, overrides) from None


def load_section(path: Path | None, overrides: Iterable[str], section: type[_Section]) -> _Section:
    """Reads one section of the configuration, for a command that needs no other.

    Missing or invalid values in the other sections are ignored, but an unknown section or key is an error anywhere.

    Args:
        path: A YAML file of differences from the defaults.
        overrides: `section.key=value`.
        section: The class of one section of `Config`.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value of this section is invalid.
    """
    name = next(name for name, field in Config.model_fields.items() if field.annotation is section)
    overrides = list(overrides)
    values = _values(path, overrides)
    try:
        Config.model_validate(values)
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["loc"][:1] == (name,) or item["type"] == "extra_forbidden"]
        if wrong:
            raise _refusal(wrong, path, overrides) from None
    return section.model_validate(values.get(name, {}))


def resolve(config: Config, files: FileSystem) -> Config:
    """Fills in the values that depend on the dataset: the layout's name, its patterns of paths, and the label map.

    They are then part of the configuration, so that every stage on every runner uses the same ones.
    """
    folder = example_folder(config.data, files)
    layout = open_dataset(config.data, files, folder)
    labels = resolve_label_map(config.data, layout)
    check_classes(config.evaluation, labels.names)
    found = {"layout": layout.name, "label_map": labels}
    if isinstance(layout, Folder):
        found |= zip(("images", "masks"), layout.patterns, strict=True)
    return config.model_copy(update={"data": config.data.model_copy(update=found)})


def config_hash(config: Config) -> str:
    """SHA-256 of a resolved configuration, as 16 hexadecimal digits: equal on every runner for equal configurations."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]


def _values(path: Path | None, overrides: Iterable[str]) -> dict[str, Any]:
    """The values of a file with the overrides applied, all under their current names."""
    values, renamed = with_current_names(Config, _read_yaml(path) if path else {})
    for override in overrides:
        renamed |= _apply(values, override)
    values, inside = with_current_names(Config, values)  # The value of an override may be a mapping.
    for former, current in (renamed | inside).items():
        log.warning(
            "The key %s is now called %s. Please rename it: the next version does not read it.", former, current
        )
    return values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of sections ({', '.join(Config.model_fields)})")
    return values


def _apply(values: dict[str, Any], override: str) -> dict[str, str]:
    """Applies an override; returns former key -> current key if it uses a former name."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: must look like section.key=value")
    *parents, last = path = current_path(Config, key.split("."))
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent} is not a section")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML: {error}") from None
    current = ".".join(path)
    return {} if current == key else {key: current}


def _refusal(items: Iterable[Any], path: Path | None, overrides: Iterable[str]) -> ConfigError:
    """The error that lists each of pydantic's errors in one line, with the source of the value."""
    if path is None:
        return ConfigError("\n".join(_explain("the command line", item) for item in items))
    overridden = [current_path(Config, override.partition("=")[0].split(".")) for override in overrides]
    return ConfigError("\n".join(_explain(_blame(str(path), item, overridden), item) for item in items))


def _blame(file: str, item: Any, overridden: Iterable[tuple[str, ...]]) -> str:
    """The source of the value of one of pydantic's errors: --set, the file, or both in part."""
    place = tuple(map(str, item["loc"]))
    if any(place[: len(key)] == key for key in overridden):
        return "--set"
    return f"{file} with --set" if any(key[: len(place)] == place for key in overridden) else file


def _explain(source: str, item: Any) -> str:
    """One of pydantic's errors as one line: source, key, value, what is allowed."""
    key = ".".join(str(part) for part in item["loc"] if part != "[key]")  # pydantic's mark for the key of a mapping
    if item["type"] == "extra_forbidden":
        return f"{source}: unknown key {key}{_suggestion(item['loc'])}"
    if item["type"] == "missing":
        where = "; say where the pictures are: --set data.path=FOLDER, or --config FILE" if key == "data" else ""
        return f"{source}: {key} is missing{where}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{source}: {key}={item['input']!r}: {message}" if key else f"{source}: {message}"


def _suggestion(location: tuple[Any, ...]) -> str:
    section: type[Section] | None = Config
    for part in location[:-1]:
        section = subsection(section, part) if section else None
    if section is None:
        return ""
    known = list(section.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(known)}"
