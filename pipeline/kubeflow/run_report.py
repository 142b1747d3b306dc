"""RunReporter: the last step on Kubeflow, which writes the record that `local_runner.py run` writes for a run.

The local runner writes the record itself, also of failed runs; on Kubeflow, the runner exits once the run is submitted.
Durations of stages and cached stages are shown only by Kubeflow's own pages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.components.base.base_node import BaseNode
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Drift, HtmlPage, HubModels, LiteModels, MarkdownPage, Quarantine, RunFolder, Spans
from components.storage.atomic import write_small
from pipeline.config import Config
from pipeline.kubeflow.parameters import RUN_ID
from pipeline.records.executions import StageRecord
from pipeline.records.summarize import summarize
from pipeline.records.summary import SUMMARY_FILE
from pipeline.report.model_card import MARKDOWN_FILE, write_model_card
from pipeline.report.page import write_report
from pipeline.report.runs import RunRecord
from pipeline.stages import Stage
from pipeline.workspace import REPORT_FILE

#: (stage, output) -> type of the artifacts that the record is made from; not every pipeline has all stages.
READ: Mapping[tuple[str, str], type[Artifact]] = {
    (Stage.SERVED_MODEL, "model"): standard_artifacts.Model,
    (Stage.EXAMPLE_GEN, "examples"): standard_artifacts.Examples,
    (Stage.EXAMPLE_GEN, "quarantine"): Quarantine,
    (Stage.EXAMPLE_GEN, "spans"): Spans,
    (Stage.STATISTICS, "statistics"): standard_artifacts.ExampleStatistics,
    (Stage.DRIFT, "drift"): Drift,
    (Stage.WARM_START, "model"): standard_artifacts.Model,
    (Stage.TUNER, "best_hyperparameters"): standard_artifacts.HyperParameters,
    (Stage.TUNER, "tuner_results"): standard_artifacts.TunerResults,
    (Stage.TRAINER, "model"): standard_artifacts.Model,
    (Stage.TRAINER, "model_run"): standard_artifacts.ModelRun,
    (Stage.EVALUATOR, "evaluation"): standard_artifacts.ModelEvaluation,
    (Stage.INFRA_CHECK, "blessing"): standard_artifacts.InfraBlessing,
    (Stage.LITE, "lite"): LiteModels,
    (Stage.HUB, "hub"): HubModels,
    (Stage.PUSHER, "pushed_model"): standard_artifacts.PushedModel,
}


def _input(stage: str, output: str) -> str:
    return f"{stage}_{output}"


class Executor(base_executor.BaseExecutor):
    """Writes the record, the report and the model card of a run."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        stages = stage_records(input_dict)
        config = Config.model_validate_json(exec_properties["config"])
        summary = summarize(exec_properties["run_id"], config, stages, error="")
        folder = Path(output_dict["record"][0].uri)
        write_small(str(folder / SUMMARY_FILE), summary.model_dump_json(indent=2).encode())
        write_model_card(summary, stages, folder)
        write_report(RunRecord(summary, stages, folder))
        for output, name in (("report", REPORT_FILE), ("model_card", MARKDOWN_FILE)):
            show(folder / name, Path(output_dict[output][0].uri))


def stage_records(inputs: Mapping[str, list[Artifact]]) -> dict[str, StageRecord]:
    """Stage -> its record, which holds only its outputs."""
    outputs: dict[str, dict[str, list[Artifact]]] = {}
    for stage, output in READ:
        if found := inputs.get(_input(stage, output)):
            outputs.setdefault(stage, {})[output] = found
    return {
        stage: StageRecord(stage, state="", seconds=0.0, properties={}, outputs=made) for stage, made in outputs.items()
    }


def show(file: Path, artifact: Path) -> None:
    """Makes Kubeflow's pages show a file: the artifact's URI must be that of the file, not of its folder."""
    artifact.rmdir()
    artifact.write_bytes(file.read_bytes())


class RunReporterSpec(ComponentSpec):
    """Parameters, inputs and outputs of `RunReporter`."""

    PARAMETERS = {"config": ExecutionParameter(type=str), "run_id": ExecutionParameter(type=str)}
    INPUTS = {_input(*key): ChannelParameter(type=kind, optional=True) for key, kind in READ.items()}
    OUTPUTS = {
        "record": ChannelParameter(type=RunFolder),
        "report": ChannelParameter(type=HtmlPage),
        "model_card": ChannelParameter(type=MarkdownPage),
    }


class RunReporter(base_component.BaseComponent):
    """Component that writes the record, report and model card of a run on Kubeflow.

    Args of the constructor:
        config: The whole configuration.
        nodes: The pipeline's other nodes, by id.
    """

    SPEC_CLASS = RunReporterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, config: Config, nodes: Mapping[str, BaseNode]):
        read = {
            _input(stage, output): nodes[stage].outputs[output]
            for stage, output in READ
            if stage in nodes and output in nodes[stage].outputs
        }
        super().__init__(
            spec=RunReporterSpec(
                config=config.model_dump_json(),
                run_id=RUN_ID,
                record=types.Channel(type=RunFolder),
                report=types.Channel(type=HtmlPage),
                model_card=types.Channel(type=MarkdownPage),
                **read,
            )
        )
