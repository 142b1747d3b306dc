"""`run --dry-run`: which stages would run and why, and an estimate of the time and disk space needed.

It calls TFX's own cache functions on a copy of the SQLite metadata, so that nothing is written. A MySQL server is
queried directly: TFX then records there the cache keys that were looked up, and nothing else.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from rich.console import Console
from rich.table import Table
from tfx.orchestration import data_types_utils, metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import cache_utils, data_types, inputs_utils, outputs_utils, python_driver_operator
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.artifact import Artifact

from components.storage.file_systems import file_system
from components.training.trainer import TrainerConfig
from data.dataset import DataConfig
from data.spans import parse_pattern, select
from pipeline.config import Config
from pipeline.local import compile_pipeline
from pipeline.metadata.backup import require_whole
from pipeline.metadata.store import metadata_config, open_store
from pipeline.records.executions import StageRecord, last_completed
from pipeline.stages import Stage
from pipeline.training_time import expected_seconds, work
from pipeline.workspace import Workspace

Outputs = dict[str, list[Artifact]]


@dataclass(frozen=True)
class StagePlan:
    """What a run would do with one stage."""

    name: str
    runs: bool
    why: str
    seconds: float | None
    """Expected duration: that of its last execution, for the Trainer scaled by steps, batch and crop; None if it never
    ran here."""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    config: Config
    stages: tuple[StagePlan, ...]
    data_bytes: int
    """Size of the dataset in bytes."""

    def show(self, console: Console) -> None:
        """Prints stages, estimates and the configuration."""
        table = Table("stage", "would", "why", "expected")
        for stage in self.stages:
            last = "" if stage.seconds is None else f"{stage.seconds:.0f} s"
            table.add_row(stage.name, "run" if stage.runs else "be cached", stage.why, last)
        console.print(table)
        console.print(f"time  {self._time()}")
        ingests = any(stage.runs and stage.name == Stage.EXAMPLE_GEN for stage in self.stages)
        needed = 2 * self.data_bytes if ingests else 0
        console.print(f"disk  about {needed / 1e6:.0f} MB for examples and transformed examples, and the model")
        console.print("configuration:")
        console.print_json(self.config.model_dump_json())

    def _time(self) -> str:
        running = [stage for stage in self.stages if stage.runs]
        known = [stage.seconds for stage in running if stage.seconds is not None]
        unknown = ", ".join(stage.name for stage in running if stage.seconds is None)
        if running and not known:
            return "not known: none of these stages ever ran here"
        text = (
            f"about {sum(known):.0f} s, by what these stages took last time; training scaled by steps, batch and crop"
        )
        return f"{text}; not known for {unknown}, which never ran here" if unknown else text


def plan(config: Config, workspace: Workspace) -> Plan:
    """Plans a run of a resolved configuration, without running anything or writing to the workspace."""
    compiled = compile_pipeline(config, workspace, "dry-run")
    with _metadata(config, workspace) as connection:
        stages = tuple(_Planner(compiled, connection, config).stages())
    return Plan(config, stages, _data_bytes(config.data))


def _data_bytes(config: DataConfig) -> int:
    files = file_system(config.path)
    folders = [config.path]
    if config.has_spans:
        folders = [span.folder for span in select(parse_pattern(config.path), config.spans, files).window]
    return sum(size for folder in folders for _, size, _ in files.stats(folder))


@contextmanager
def _metadata(config: Config, workspace: Workspace) -> Iterator[metadata_store_pb2.ConnectionConfig]:
    """The connection to a copy of the SQLite metadata, or to the MySQL server itself."""
    if config.metadata.backend == "mysql":
        connection = metadata_config(workspace, config.metadata)
        open_store(connection)
        yield connection
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Workspace(Path(folder))
        if require_whole(workspace):
            with (
                closing(sqlite3.connect(workspace.metadata)) as source,
                closing(sqlite3.connect(copy.metadata)) as target,
            ):
                source.backup(target)
        yield metadata_config(copy, config.metadata)


def training_seconds(config: Config, last: StageRecord | None) -> float | None:
    """The last training's time, scaled by what is to be computed now; without one, what its rate lets expect."""
    if last is None:
        return expected_seconds(config.model, config.training, config.augment)
    try:
        before = TrainerConfig.model_validate_json(str(last.properties["custom_config"]))
    except (KeyError, ValueError):  # An earlier state of the project recorded it in another form.
        return last.seconds
    return last.seconds * work(config.training, config.augment) / work(before.training, before.augment)


class _Planner:
    """Walks the stages in order and remembers which cached outputs the later ones would get."""

    def __init__(
        self, compiled: pipeline_pb2.Pipeline, connection: metadata_store_pb2.ConnectionConfig, config: Config
    ):
        self._config = config
        self._compiled = compiled
        self._connection = connection
        self._deployment = runner_utils.extract_local_deployment_config(compiled)
        self._cached: dict[str, Outputs] = {}

    def stages(self) -> Iterator[StagePlan]:
        """One plan for each stage."""
        for item in self._compiled.nodes:
            yield self._stage(item.pipeline_node)

    def _stage(self, node: pipeline_pb2.PipelineNode) -> StagePlan:
        name = node.node_info.id
        with metadata.Metadata(self._connection):
            last = last_completed(self._connection, self._compiled.pipeline_info.id, name)
        seconds = last.seconds if last else None
        if name == Stage.TRAINER:
            seconds = training_seconds(self._config, last)
        inputs, missing = self._inputs(node)
        if missing:
            return StagePlan(name, True, f"{missing} runs", seconds)
        properties = self._properties(node)
        outputs = self._look_up(node, inputs, properties)
        if outputs is not None:
            self._cached[name] = outputs
            return StagePlan(name, False, "nothing changed", seconds)
        return StagePlan(name, True, _why(last, properties), seconds)

    def _inputs(self, node: pipeline_pb2.PipelineNode) -> tuple[Outputs, str]:
        """Input artifacts from cached stages, or the name of the first upstream stage that will run."""
        inputs: Outputs = {}
        for key, spec in node.inputs.inputs.items():
            for channel in spec.channels:
                producer = channel.producer_node_query.id
                if producer not in self._cached:
                    return {}, producer
                inputs[key] = self._cached[producer][channel.output_key]
        return inputs, ""

    def _properties(self, node: pipeline_pb2.PipelineNode) -> dict[str, Any]:
        """Execution properties as the launcher would see them, including the driver's."""
        parameters = inputs_utils.resolve_parameters_with_schema(node_parameters=node.parameters)
        properties = data_types_utils.build_parsed_value_dict(parameters)
        driver = runner_utils.extract_custom_driver_spec(self._deployment, node.node_info.id)
        if driver is not None:
            operator = python_driver_operator.PythonDriverOperator(driver, metadata.Metadata(self._connection))
            output = operator.run_driver(data_types.ExecutionInfo(exec_properties=properties))
            properties |= {k: getattr(v, v.WhichOneof("value")) for k, v in output.exec_properties.items()}
        return properties

    def _look_up(
        self, node: pipeline_pb2.PipelineNode, inputs: Outputs, properties: Mapping[str, Any]
    ) -> Outputs | None:
        resolver = outputs_utils.OutputsResolver(
            pipeline_node=node,
            pipeline_info=self._compiled.pipeline_info,
            pipeline_runtime_spec=self._compiled.runtime_spec,
        )
        with metadata.Metadata(self._connection) as handle:
            context = cache_utils.get_cache_context(
                metadata_handle=handle,
                pipeline_node=node,
                pipeline_info=self._compiled.pipeline_info,
                executor_spec=runner_utils.extract_executor_spec(self._deployment, node.node_info.id),
                input_artifacts=inputs,
                output_artifacts=resolver.generate_output_artifacts(0),
                parameters=properties,
            )
            return cache_utils.get_cached_outputs(metadata_handle=handle, cache_context=context)


def _why(last: StageRecord | None, properties: Mapping[str, Any]) -> str:
    if last is None:
        return "never ran here"
    changed = sorted(_differences(last.properties, {k: v for k, v in properties.items() if v is not None}))
    return "changed: " + ", ".join(changed) if changed else "an input changed, or its result was removed"


def _differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Dotted paths at which two trees differ; strings that hold JSON objects are parsed and compared too."""
    before, after = _unpacked(before), _unpacked(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {*before, *after}:
            yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield path


def _unpacked(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
