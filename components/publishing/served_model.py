"""ServedModel: the model that is being served now, as the baseline that a candidate must not fall behind.

One component for every runner: it reads the serving directory itself, so no resolver node and no metadata of
earlier runs is needed. Where nothing is served yet its output is marked absent, and the Evaluator judges alone.
"""

import os
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.artifacts import DESTINATION, PUSHED
from components.code_hash import code_hash
from components.config import OnLabelChange
from components.drivers import StateDriver
from components.publishing import directory as serving_directory
from data.errors import DataError, WorkspaceError
from data.labels import LabelMap

PRESENT = "present"
VERSION = "version"
FIRST_VERSION = "first_version"
FINGERPRINT = "served_fingerprint"
HIGHEST = "highest_pushed_version"
#: What was served when the run looked, comparable or not; 0 is none.
SERVED = "served_version"


class Driver(StateDriver):
    """Makes the cache key depend on what is being served, and on what was pushed last.

    By the former alone, a serving directory from which a version was removed by hand would look as it did before that
    version: the ModelPusher would be taken from the cache, and nothing would come in its place.
    """

    def state(self, exec_properties: dict[str, Any]) -> dict[str, str]:
        """Version and content of the served model, the last push, and the highest version that was ever pushed."""
        serving_dir = exec_properties["serving_dir"]
        state, records = serving_directory.state(serving_dir), self._records(serving_dir)
        push = max((artifact.id for artifact in records if artifact.custom_properties[PUSHED].int_value), default=0)
        highest = max((int(os.path.basename(_destination(artifact))) for artifact in records), default=0)
        return {FINGERPRINT: f"{state},after push {push}" if push else state, HIGHEST: str(highest)}

    def _records(self, serving_dir: str) -> list[metadata_store_pb2.Artifact]:
        """What ML Metadata know of versions in a serving directory: that they were pushed, or found to be served.

        None on Kubeflow, which does without: there nothing is cached of the ModelPusher (`pipeline.kubeflow.compiler`),
        and versions are counted by what is in the serving directory.
        """
        if self._mlmd_connection is None:
            return []
        with self._mlmd_connection as metadata:
            made = metadata.store.get_artifacts_by_type(standard_artifacts.PushedModel.TYPE_NAME)
        return [artifact for artifact in made if os.path.dirname(_destination(artifact)) == serving_dir]


def _destination(pushed: metadata_store_pb2.Artifact) -> str:
    path: str = pushed.custom_properties[DESTINATION].string_value
    return path


def comparable(served: serving_directory.Published, labels: LabelMap, on_label_change: OnLabelChange) -> bool:
    """Whether a candidate with `labels` may be compared with the served model.

    Raises:
        DataError: The class names differ and `on_label_change` is "refuse".
    """
    names = list(labels.names)
    if served.record.class_names == names:
        return True
    if on_label_change == "floor":
        return False
    raise DataError(
        f"{served.path}: the served model knows the classes {served.record.class_names}, this run's label map has "
        f"{names}: their scores cannot be compared. Set evaluation.on_label_change=floor to judge the new model by "
        "evaluation.min_mean_iou alone, or push to another model name (push.model_name)"
    )


class Executor(base_executor.BaseExecutor):
    """Copies the served model into the output artifact, so that later clean-ups cannot take it from the lineage."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        model = artifact_utils.get_single_instance(output_dict["model"])
        served = serving_directory.served(exec_properties["serving_dir"])
        labels = LabelMap.model_validate_json(exec_properties["label_map"])
        present = served is not None and comparable(served, labels, exec_properties["on_label_change"])
        copy_served(served if present else None, model)
        model.set_int_custom_property(SERVED, served.version if served else 0)
        model.set_int_custom_property(HIGHEST, int(exec_properties[HIGHEST]))


def copy_served(served: serving_directory.Published | None, model: types.Artifact) -> None:
    """Fills a Model artifact with a served version; None marks it as absent.

    Raises:
        WorkspaceError: What is served is not what was published.
    """
    model.set_int_custom_property(PRESENT, int(served is not None))
    if served is not None:
        model.set_int_custom_property(VERSION, served.version)
        model.set_int_custom_property(FIRST_VERSION, served.record.first_version)
        # Without what was pushed beside the model: it is not compared, and some of it holds test pictures.
        target = path_utils.serving_model_dir(model.uri)
        serving_directory.copy_tree(served.path, target, but=serving_directory.EXTRA)
        if serving_directory.model_fingerprint(target) != served.record.model_fingerprint:
            raise WorkspaceError(
                f"{served.path}: the files of served version {served.version} are not those that were published; "
                "restore them, remove the folder, or go back to another version with `local_runner.py rollback`"
            )


class ServedModelSpec(ComponentSpec):
    """Parameters and output of `ServedModel`."""

    PARAMETERS = {
        "serving_dir": ExecutionParameter(type=str),
        "label_map": ExecutionParameter(type=str),
        "on_label_change": ExecutionParameter(type=str),
        "code_hash": ExecutionParameter(type=str),
        FINGERPRINT: ExecutionParameter(type=str, optional=True),
        HIGHEST: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class ServedModel(base_component.BaseComponent):
    """Copies the model that is being served now, or marks its output absent.

    Args of the constructor:
        serving_dir: Folder of the versions, `<serving>/<model name>`.
        labels: The label map of this run.
        on_label_change: See `comparable`.
    """

    SPEC_CLASS = ServedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, serving_dir: str, labels: LabelMap, on_label_change: OnLabelChange):
        super().__init__(
            spec=ServedModelSpec(
                serving_dir=serving_dir,
                label_map=labels.model_dump_json(),
                on_label_change=on_label_change,
                code_hash=code_hash(__name__),
                model=types.Channel(type=standard_artifacts.Model),
            )
        )


def is_present(baseline: types.Artifact) -> bool:
    """Whether a copy of the served model holds one."""
    return bool(baseline.get_int_custom_property(PRESENT))
