"""Run parameters: values that can be set for each run of a compiled pipeline.

A parameter is an input of the whole pipeline with a default. The steps that it concerns get it as an extra input
`parameter_<name>`, and the entry point writes its value to where it stands in the step's execution properties.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.stages import Stage

if TYPE_CHECKING:
    from pipeline.config import Config

PREFIX = "parameter_"

#: The server replaces a constant of this value by the run's id (KFP backend/src/v2/driver/resolve.go).
RUN_ID = "{{$.pipeline_job_uuid}}"

#: A parameter that no step reads: it identifies in a run's record the configuration that was compiled.
CONFIG_HASH = "config_hash"


@dataclass(frozen=True)
class Place:
    """The location of a parameter in a step's execution properties."""

    node: str
    property: str
    path: tuple[str | int, ...] = ()
    """Keys in the property's JSON; empty if the property itself is the value."""
    parent: bool = False
    """Whether the parameter is the parent folder of the present value, whose last path component is kept."""


Value = str | int | float


def _span(text: Value) -> Value | None:
    """Number or date of a span; empty for none."""
    return int(text) if str(text).isdecimal() else text or None


@dataclass(frozen=True)
class Parameter:
    """One value that can be set for a run."""

    name: str
    key: str
    """Key of the configuration; "serving" stands for the serving directory, an option of the runner."""
    type: Literal["STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE"]
    places: tuple[Place, ...]
    convert: Callable[[Value], Value | None] = str
    """Converts Kubeflow's value, which is a string, or a double for every number, to the configuration's value."""

    def places_in(self, node: str) -> list[Place]:
        """Its locations in a step's execution properties."""
        # This step has the whole configuration, and so every value of it that a run sets.
        whole = [Place(Stage.RUN_REPORTER, "config", tuple(self.key.split(".")))] if "." in self.key else []
        return [place for place in (*self.places, *whole) if place.node == node]

    @property
    def description(self) -> str:
        """Its description in Kubeflow's user interface."""
        return "Serving directory" if self.key == "serving" else f"Configuration key {self.key}"


def _training(field: str) -> tuple[Place, ...]:
    return tuple(
        Place(node, "custom_config", ("training", field)) for node in (Stage.TRAINER, Stage.TUNER, Stage.WARM_START)
    )


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("data_path", "data.path", "STRING", (Place(Stage.EXAMPLE_GEN, "config", ("path",)),)),
    Parameter("span", "data.spans.span", "STRING", (Place(Stage.EXAMPLE_GEN, "config", ("spans", "span")),), _span),
    Parameter(
        "train_steps",
        "training.steps",
        "NUMBER_INTEGER",
        (*_training("steps"), Place(Stage.TRAINER, "train_args", ("num_steps",))),
        int,
    ),
    Parameter("batch_size", "training.global_batch_size", "NUMBER_INTEGER", _training("global_batch_size"), int),
    Parameter("learning_rate", "training.learning_rate", "NUMBER_DOUBLE", _training("learning_rate"), float),
    Parameter("seed", "training.seed", "NUMBER_INTEGER", _training("seed"), int),
    Parameter(
        "min_mean_iou",
        "evaluation.min_mean_iou",
        "NUMBER_DOUBLE",
        (Place(Stage.EVALUATOR, "config", ("min_mean_iou",)),),
        float,
    ),
    Parameter(
        "serving",
        "serving",
        "STRING",
        tuple(Place(node, "serving_dir", parent=True) for node in (Stage.SERVED_MODEL, Stage.WARM_START, Stage.PUSHER)),
    ),
)


def of_pipeline(config: Config) -> list[Parameter]:
    """The parameters of a pipeline: `span` only if its data are divided into spans."""
    return [p for p in PARAMETERS if p.name != "span" or config.data.has_spans]


def defaults(config: Config, serving: str) -> dict[str, Value]:
    """Name -> value at compile time, in Kubeflow's form."""
    return {p.name: serving if p.key == "serving" else _default(config, p.key) for p in of_pipeline(config)}


def _default(config: Config, key: str) -> Value:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if value is None:
        return ""
    return value if isinstance(value, int | float) else str(value)


def of_node(node: str) -> list[Parameter]:
    """The parameters that a step is given."""
    return [p for p in PARAMETERS if p.places_in(node)]


def apply(node: str, exec_properties: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """Applies the values of a run to execution properties, and removes the extra inputs.

    Args:
        node: Id of the step.
        exec_properties: The compiled execution properties, possibly with the extra inputs.
        values: Name of a parameter -> its value, with or without `PREFIX`.
    """
    given = {name.removeprefix(PREFIX): value for name, value in values.items()}
    properties = {name: value for name, value in exec_properties.items() if not name.startswith(PREFIX)}
    for parameter in of_node(node):
        if parameter.name in given:
            for place in parameter.places_in(node):
                old = properties[place.property]
                properties[place.property] = _replaced(old, place, parameter.convert(given[parameter.name]))
    return properties


def _replaced(old: Any, place: Place, value: Value | None) -> Any:
    if place.parent:
        return posixpath.join(str(value), posixpath.basename(old))
    if not place.path:
        return value
    tree = json.loads(old)
    inner = tree
    for key in place.path[:-1]:
        inner = inner[key]
    inner[place.path[-1]] = value
    return json.dumps(tree)
