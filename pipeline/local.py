"""Runs the pipeline on this machine with TFX's LocalDagRunner, and reports the current stage."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from absl import logging as absl_logging
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from data.errors import ConfigError
from pipeline.config import Config
from pipeline.metadata.store import metadata_config
from pipeline.pipeline import PipelinePaths, create_pipeline
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class StageRange:
    """The range of stages to run, both ends included; None stands for the first or the last stage."""

    first: str | None = None
    last: str | None = None


def local_paths(config: Config, workspace: Workspace) -> PipelinePaths:
    """The folders of a workspace, and its ML Metadata."""
    return PipelinePaths(
        artifacts=str(workspace.artifacts),
        serving=str(workspace.serving),
        checkpoints=str(workspace.checkpoints),
        ingested=str(workspace.ingested),
        metadata=metadata_config(workspace, config.metadata),
    )


def compile_pipeline(config: Config, workspace: Workspace, run_id: str) -> pipeline_pb2.Pipeline:
    """Compiles the pipeline to TFX's intermediate representation, with the given run id."""
    compiled = compiler.Compiler().compile(create_pipeline(config, local_paths(config, workspace)))
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    return compiled


def stage_names(compiled: pipeline_pb2.Pipeline) -> list[str]:
    """Ids of the stages in execution order."""
    return [node.pipeline_node.node_info.id for node in compiled.nodes]


def run_options(stages_to_run: StageRange, stages: Sequence[str]) -> pipeline_pb2.RunOptions | None:
    """TFX's options for a partial run; None for a full run.

    Raises:
        ConfigError: A stage does not exist.
    """
    for name in (stages_to_run.first, stages_to_run.last):
        if name is not None and name not in stages:
            raise ConfigError(f"no stage {name!r}; the stages are {', '.join(stages)}")
    if stages_to_run == StageRange():
        return None
    options = pipeline_pb2.RunOptions()
    options.partial_run.snapshot_settings.latest_pipeline_run_strategy.SetInParent()
    options.partial_run.from_nodes.extend([stages_to_run.first] if stages_to_run.first else [])
    options.partial_run.to_nodes.extend([stages_to_run.last] if stages_to_run.last else [])
    return options


class StageListener(logging.Handler):
    """Detects in the runner's log which stage begins; the runner reports it in no other way."""

    def __init__(self, on_stage: Callable[[str], None]):
        super().__init__(logging.INFO)
        self._on_stage = on_stage

    def emit(self, record: logging.LogRecord) -> None:
        """Called for each line of the log."""
        if record.msg == "Component %s is running." and isinstance(record.args, tuple):
            self._on_stage(str(record.args[0]))


def run_pipeline(
    compiled: pipeline_pb2.Pipeline, options: pipeline_pb2.RunOptions | None, on_stage: Callable[[str], None]
) -> None:
    """Runs all stages, or those of the options; an error of a stage is raised unchanged."""
    listener = StageListener(on_stage)
    logger = absl_logging.get_absl_logger()
    absl_logging.set_verbosity(absl_logging.INFO)
    logger.addHandler(listener)
    try:
        LocalDagRunner().run_with_ir(compiled, run_options=options)
    finally:
        logger.removeHandler(listener)
