"""Run parameters: values that can be set for each run of a compiled pipeline.

A parameter is an input of the whole pipeline with a default. The steps that it concerns get it as an extra input
`parameter_<name>`, and the entry point writes its value to where it stands in the step's execution properties.
"""

from __future__ import annotations

import functools
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

#: A parameter that no step reads: in a run's record it identifies the configuration that was compiled.
CONFIG_HASH = "config_hash"


@dataclass(frozen=True)
class PropertyPath:
    """Where a parameter's value stands in a step's execution properties."""

    node: str
    property: str
    path: tuple[str | int, ...] = ()
    """Keys in the property's JSON; empty if the property itself is the value."""
    parent: bool = False
    """Whether the parameter is the parent folder of the present value, whose last path component is kept."""


Value = str | int | float


def _span(text: Value) -> Value | None:
    """The number or date of a span; an empty text stands for none."""
    return int(text) if str(text).isdecimal() else text or None


@dataclass(frozen=True)
class Parameter:
    """One value that can be set for a run."""

    name: str
    key: str
    """Key of the configuration; "serving" stands for the serving directory, an option of the runner."""
    type: Literal["STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE"]
    targets: tuple[PropertyPath, ...]
    convert: Callable[[Value], Value | None] = str
    """Converts Kubeflow's value, which is a string, or a double for every number, to the configuration's value."""

    def targets_in(self, node: str) -> list[PropertyPath]:
        """Where its value stands in a step's execution properties; empty if the step does not depend on it."""
        # The run reporter has the whole configuration, and so every value of it that a run sets.
        whole = [PropertyPath(Stage.RUN_REPORTER, "config", tuple(self.key.split(".")))] if "." in self.key else []
        return [target for target in (*self.targets, *whole) if target.node == node]


def _training(field: str) -> tuple[PropertyPath, ...]:
    return tuple(
        PropertyPath(node, "custom_config", ("training", field))
        for node in (Stage.TRAINER, Stage.TUNER, Stage.WARM_START)
    )


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("data_path", "data.path", "STRING", (PropertyPath(Stage.EXAMPLE_GEN, "config", ("path",)),)),
    Parameter(
        "span", "data.spans.span", "STRING", (PropertyPath(Stage.EXAMPLE_GEN, "config", ("spans", "span")),), _span
    ),
    Parameter(
        "train_steps",
        "training.steps",
        "NUMBER_INTEGER",
        (*_training("steps"), PropertyPath(Stage.TRAINER, "train_args", ("num_steps",))),
        int,
    ),
    Parameter("batch_size", "training.global_batch_size", "NUMBER_INTEGER", _training("global_batch_size"), int),
    Parameter("learning_rate", "training.learning_rate", "NUMBER_DOUBLE", _training("learning_rate"), float),
    Parameter("seed", "training.seed", "NUMBER_INTEGER", _training("seed"), int),
    Parameter(
        "min_mean_iou",
        "evaluation.min_mean_iou",
        "NUMBER_DOUBLE",
        (
            PropertyPath(Stage.VALIDATOR, "evaluation", ("min_mean_iou",)),
            PropertyPath(Stage.EVALUATOR, "config", ("min_mean_iou",)),
        ),
        float,
    ),
    Parameter(
        "serving",
        "serving",
        "STRING",
        tuple(
            PropertyPath(node, "serving_dir", parent=True)
            for node in (Stage.SERVED_MODEL, Stage.WARM_START, Stage.PUSHER)
        ),
    ),
)


def defaults(config: Config, serving: str) -> dict[str, Value]:
    """Parameter of a pipeline -> value at compile time, in Kubeflow's form; `span` only if the data are in spans."""
    values: dict[str, Value] = {}
    for parameter in PARAMETERS:
        if parameter.name == "span" and not config.data.has_spans:
            continue
        if parameter.key == "serving":
            value: Any = serving
        else:
            value = functools.reduce(getattr, parameter.key.split("."), config)
        if value is None:
            value = ""
        values[parameter.name] = value if isinstance(value, int | float) else str(value)
    return values


def apply(node: str, exec_properties: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """Applies the values of a run to execution properties, and removes the extra inputs.

    Args:
        node: Id of the step.
        exec_properties: The compiled execution properties, possibly with the extra inputs.
        values: Name of a parameter -> its value, with or without `PREFIX`.
    """
    given = {name.removeprefix(PREFIX): value for name, value in values.items()}
    properties = {name: value for name, value in exec_properties.items() if not name.startswith(PREFIX)}
    for parameter in PARAMETERS:
        for target in parameter.targets_in(node) if parameter.name in given else ():
            value = parameter.convert(given[parameter.name])
            if target.parent:
                name_of_model = posixpath.basename(properties[target.property])
                properties[target.property] = posixpath.join(str(value), name_of_model)
            elif target.path:
                tree = json.loads(properties[target.property])
                inner = tree
                for key in target.path[:-1]:
                    inner = inner[key]
                inner[target.path[-1]] = value
                properties[target.property] = json.dumps(tree)
            else:
                properties[target.property] = value
    return properties
