"""The configuration: composes the sections, merges files and overrides, and reports errors.

Each section is defined beside the code that uses it. A YAML file holds only the differences from the defaults.
"""

import difflib
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

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
from data.errors import ConfigError, shortened
from data.files import FileSystem
from data.labels import LabelMap
from data.layouts.folder import Folder
from data.section import Section, current_path, subsection, with_current_names
from models.config import InferenceConfig, ModelConfig, TrainingConfig
from pipeline import yaml_text
from pipeline.sections.beam import BeamConfig
from pipeline.sections.kubeflow import KubeflowConfig
from pipeline.sections.schedule import ScheduleConfig
from pipeline.sections.serving import ServingConfig
from pipeline.sections.workspace import CardConfig, MetadataConfig, ReportConfig, RetentionConfig
from pipeline.yaml_text import dotted

log = logging.getLogger(__name__)

_Section = TypeVar("_Section", bound=Section)

#: Most mistakes that one error lists.
MOST_ERRORS = 20

#: Type of one of pydantic's errors -> what its message leaves unsaid.
_HINTS = {"bool_type": "; allowed: true, false", "string_type": "; text that looks like another value needs quotes"}


class Config(Section):
    """One pipeline."""

    name: str = Field(default="segmentation", pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)
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


def load_config(paths: Sequence[Path] = (), overrides: Iterable[str] = ()) -> Config:
    """Reads YAML files of differences from the defaults, then applies `section.key=value` overrides.

    Of several files the later ones win, key by key; a list or a label map is replaced whole. A key under its former
    name is accepted, and a warning is logged.

    Raises:
        ConfigError: A file cannot be read, or a key or value is invalid; states which, where, and what is allowed.
    """
    values, origins = _values(paths, overrides)
    try:
        return _validated(Config, values)
    except ValidationError as error:
        raise _refusal(error.errors(), origins) from None


def load_section(paths: Sequence[Path], overrides: Iterable[str], section: type[_Section]) -> _Section:
    """Reads one section of the configuration, for a command that needs no other.

    Missing or invalid values in the other sections are ignored, but an unknown section or key is an error anywhere.

    Args:
        paths: YAML files of differences from the defaults, merged in order.
        overrides: `section.key=value`.
        section: The class of one section of `Config`.

    Raises:
        ConfigError: A file cannot be read, a key is unknown, or a value of this section is invalid.
    """
    name = next(name for name, field in Config.model_fields.items() if field.annotation is section)
    values, origins = _values(paths, overrides)
    try:
        _validated(Config, values)
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["loc"][:1] == (name,) or item["type"] == "extra_forbidden"]
        if wrong:
            raise _refusal(wrong, origins) from None
    return _validated(section, values.get(name, {}))


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


def _values(paths: Iterable[Path], overrides: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the files, merged, with the overrides applied, all under their current names.

    Returns:
        The tree of values, and a tree of the same shape with the source of each value: a file, or `--set`.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for path in paths:
        tree, former = with_current_names(Config, _read_yaml(path))
        renamed |= former
        values = _merged(values, tree, Config)
        origins = _merged(origins, _origin(tree, str(path)), Config)
    for override in overrides:
        key, equals, text = override.partition("=")
        option = f"--set {shortened(override)}"
        if not equals or not key:
            raise ConfigError(f"{option}: must look like section.key=value")
        names = key.split(".")
        if len(names) > yaml_text.DEEPEST:
            raise ConfigError(f"{option}: nested deeper than {yaml_text.DEEPEST} levels")
        tree = yaml_text.parse(text, option)
        for name in reversed(names):
            tree = {name: tree}
        tree, former = with_current_names(Config, tree)
        renamed |= former
        path_of = current_path(Config, names)
        _put(values, tree, path_of, option)
        _put(origins, _origin(tree, "--set"), path_of, option)
    for name, current in renamed.items():
        log.warning("The key %s is now called %s. Please rename it: the next version does not read it.", name, current)
    return values, origins


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(yaml_text.LARGEST_TEXT + 1).decode()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    values = yaml_text.parse(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of sections ({', '.join(Config.model_fields)})")
    return values


def _merged(values: Mapping[str, Any], later: Mapping[str, Any], section: type[Section] | None) -> dict[str, Any]:
    """A copy of `values` in which the keys of `later` win. `section` is what the values are of, if it is a section."""
    merged = dict(values)
    for key, value in later.items():
        part = subsection(section, key) if section else None
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and part is not LabelMap:
            merged[key] = _merged(before, value, part)
        else:
            merged[key] = value
    return merged


def _put(values: dict[str, Any], tree: Any, path: Sequence[str], option: str) -> None:
    """Replaces the value at a path by the one that `tree` has there."""
    for part in path[:-1]:
        values, tree = values.setdefault(part, {}), tree[part]
        if not isinstance(values, dict):
            raise ConfigError(f"{option}: {shortened(part)} is not a section")
    values[path[-1]] = tree[path[-1]]


def _origin(values: Any, source: str) -> Any:
    """The tree of values with the name of its source in place of each value and in each empty mapping."""
    if not isinstance(values, dict):
        return source
    return {key: _origin(value, source) for key, value in values.items()} or {None: source}


def _validated(section: type[_Section], values: Any) -> _Section:
    """A section from what YAML holds. Nothing is converted: text is no number, and neither is a boolean."""

    def with_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: with_tuples(part) for key, part in value.items()}
        return tuple(with_tuples(part) for part in value) if isinstance(value, list) else value

    return section.model_validate(with_tuples(values), strict=True)  # strict: a list is no tuple


def _refusal(items: Sequence[Any], origins: Mapping[str, Any]) -> ConfigError:
    """The error that lists each of pydantic's errors in one line, with the source of the value."""
    lines = [_explain(_blame(item["loc"], origins), item) for item in items[:MOST_ERRORS]]
    if len(items) > MOST_ERRORS:
        lines.append(f"and {len(items) - MOST_ERRORS} more")
    return ConfigError("\n".join(lines))


def _blame(place: Iterable[int | str], origins: Any) -> str:
    """The sources of the value of one of pydantic's errors, or of what is nearest to it."""
    sources = _sources(origins)
    for part in place:
        if not isinstance(origins, dict) or part not in origins:
            break
        origins = origins[part]
        sources = _sources(origins) or sources
    return " with ".join(sources) or "the command line"


def _sources(origins: Any) -> dict[str, None]:
    """The names of the sources in a tree, each once, in order."""
    if not isinstance(origins, dict):
        return {origins: None}
    return {name: None for below in origins.values() for name in _sources(below)}


def _explain(source: str, item: Any) -> str:
    """One of pydantic's errors as one line: source, key, value, what is allowed."""
    # "[key]" is pydantic's mark for the key of a mapping.
    key = dotted(tuple(part for part in item["loc"] if part != "[key]"))
    if item["type"] == "extra_forbidden":
        return f"{source}: unknown key {key}{_suggestion(item['loc'])}"
    if item["type"] == "missing":
        where = "; say where the pictures are: --set data.path=FOLDER, or --config FILE" if key == "data" else ""
        return f"{source}: {key} is missing{where}"
    message = shortened(item["msg"].removeprefix("Value error, "), 500) + _HINTS.get(item["type"], "")
    return f"{source}: {key}={shortened(repr(item['input']))}: {message}" if item["loc"] else f"{source}: {message}"


def _suggestion(location: tuple[Any, ...]) -> str:
    section: type[Section] | None = Config
    for part in location[:-1]:
        section = subsection(section, part) if section else None
    if section is None:
        return ""
    known = list(section.model_fields)
    near = difflib.get_close_matches(shortened(str(location[-1])), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(known)}"
