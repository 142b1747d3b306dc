"""The two YAML documents: apiserver/template/v2_template.go (`NewV2SpecTemplate`), v2/compiler/argocompiler/dag.go
(`addImplicitDependencies`, `DAG`: exit tasks). What the server refuses is in `pipeline.kubeflow.rules`.

Refused, although the server takes it: importers, iterators, outputs of nested graphs, expression selectors, final
states and facts of the run (`{{$.pipeline_job_name}}`) as inputs, optional arguments (`IfPresent`), exit tasks that
wait for several tasks. Literals are not checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Self

from google.protobuf.json_format import MessageToDict, ParseDict
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import (
    ComponentSpec,
    PipelineDeploymentConfig,
    PipelineSpec,
    PipelineTaskSpec,
)

from data.errors import ProjectError
from pipeline.kubeflow.document import CompiledPipeline
from pipeline.kubeflow.parameters import RUN_ID
from pipeline.kubeflow.rules import check_spec


class SimulationError(ProjectError):
    """A pipeline holds what is not simulated."""


@dataclass(frozen=True)
class Spec:
    """A pipeline, ready to be run."""

    pipeline: PipelineSpec
    executors: Mapping[str, PipelineDeploymentConfig.ExecutorSpec]
    kubernetes: Mapping[str, KubernetesExecutorConfig]
    """Executor label -> its entry of the platform document."""

    @classmethod
    def of(cls, document: CompiledPipeline) -> Self:
        """Checks and parses the documents.

        Raises:
            ProjectError: The server refuses them, or they hold what is not simulated.
        """
        check_spec(document.spec, document.platforms)
        pipeline = ParseDict(document.spec, PipelineSpec())
        deployment = MessageToDict(pipeline.deployment_spec)
        settings = document.platforms.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        spec = cls(
            pipeline,
            ParseDict(deployment, PipelineDeploymentConfig(), ignore_unknown_fields=True).executors,
            {
                name: ParseDict(entry, KubernetesExecutorConfig())
                for name, entry in settings.get("executors", {}).items()
            },
        )
        if problems := sorted(spec._not_simulated()):
            raise SimulationError("this pipeline cannot be simulated:\n" + "\n".join(f"  {p}" for p in problems))
        return spec

    def _not_simulated(self) -> Iterator[str]:
        for label, executor in self.executors.items():
            if not executor.HasField("container"):
                yield f"executor {label}: is an importer"
            if any('"IfPresent"' in word for word in [*executor.container.command, *executor.container.args]):
                yield f"executor {label}: has an optional argument (IfPresent)"
        for name, component in {"root": self.pipeline.root, **self.pipeline.components}.items():
            if component.dag.HasField("outputs"):
                yield f"component {name}: is a nested graph with outputs"
            for task_name, task in component.dag.tasks.items():
                if task.WhichOneof("iterator"):
                    yield f"task {name}.{task_name}: has an iterator"
                if is_exit_task(task) and len(task.dependent_tasks) != 1:
                    yield f"task {name}.{task_name}: is an exit task that does not wait for one task"
                for key, source in task.inputs.parameters.items():
                    constant = source.runtime_value.constant.string_value
                    if (
                        source.parameter_expression_selector
                        or source.HasField("task_final_status")
                        or ("{{$." in constant and constant != RUN_ID)
                    ):
                        yield f"task {name}.{task_name}: input {key} is a selector, a final status or a fact of the run"


def is_exit_task(task: PipelineTaskSpec) -> bool:
    """Whether it runs after another task however that ended."""
    return bool(task.trigger_policy.strategy == PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED)


def dependencies(task: PipelineTaskSpec) -> set[str]:
    """The tasks that must have succeeded before: those named, and those whose outputs are read."""
    producers = {
        *(source.task_output_parameter.producer_task for source in task.inputs.parameters.values()),
        *(source.task_output_artifact.producer_task for source in task.inputs.artifacts.values()),
    }
    return {*task.dependent_tasks, *producers} - {""}


def in_order(component: ComponentSpec) -> list[str]:
    """Names of a graph's tasks, each after those that it depends on."""
    tasks = component.dag.tasks
    return list(TopologicalSorter({name: sorted(dependencies(tasks[name])) for name in sorted(tasks)}).static_order())
