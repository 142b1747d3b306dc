"""ServedModel: a copy of the model that is served now, which a candidate is compared with.

It is one component for every runner: it reads the serving directory itself, so that it needs neither a resolver node
nor the metadata of earlier runs. If nothing is served yet, its output is marked absent, and the candidate is evaluated
by the floors alone.
"""

import os
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.artifacts import (
    COPIED_FIRST_VERSION,
    COPIED_VERSION,
    HIGHEST_PUSHED,
    PRESENT,
    PUSHED,
    PUSHED_DESTINATION,
    SERVED_VERSION,
)
from components.code_hash import code_hash
from components.config import OnLabelChange
from components.drivers import StateDriver
from components.publishing.directory import EXTRA, ModelVersion, model_fingerprint, served, state
from components.storage.trees import copy_tree
from data.errors import DataError, WorkspaceError
from data.labels import LabelMap

#: Execution property: what is served, and the last push. `HIGHEST_PUSHED` is another one.
FINGERPRINT = "served_fingerprint"


class Driver(StateDriver):
    """Makes the cache key depend on what is being served, and on what was pushed last.

    If it depended on what is served alone, a serving directory from which a version was removed by hand would look as
    it did before that version: ModelPusher would be taken from the cache, and nothing would replace the version.
    """

    def state(self, exec_properties: dict[str, Any]) -> dict[str, str]:
        """Version and content of the served model, the last push, and the highest version that was ever pushed."""
        serving_dir = exec_properties["serving_dir"]
        fingerprint, records = state(serving_dir), self._records(serving_dir)
        push = max((artifact.id for artifact in records if artifact.custom_properties[PUSHED].int_value), default=0)
        highest = max((int(os.path.basename(_destination(artifact))) for artifact in records), default=0)
        return {FINGERPRINT: f"{fingerprint},after push {push}" if push else fingerprint, HIGHEST_PUSHED: str(highest)}

    def _records(self, serving_dir: str) -> list[metadata_store_pb2.Artifact]:
        """The PushedModel artifacts in ML Metadata of versions that were pushed to a serving directory or served there.

        There are none on Kubeflow, which does not need them: ModelPusher is never taken from the cache there
        (`pipeline.kubeflow.compiler`), and new version numbers depend on the serving directory alone.
        """
        if self._mlmd_connection is None:
            return []
        with self._mlmd_connection as metadata:
            made = metadata.store.get_artifacts_by_type(standard_artifacts.PushedModel.TYPE_NAME)
        return [artifact for artifact in made if os.path.dirname(_destination(artifact)) == serving_dir]


def _destination(pushed: metadata_store_pb2.Artifact) -> str:
    path: str = pushed.custom_properties[PUSHED_DESTINATION].string_value
    return path


def comparable(version: ModelVersion, labels: LabelMap, on_label_change: OnLabelChange) -> bool:
    """Whether a candidate with `labels` may be compared with the served model.

    Raises:
        DataError: The class names differ and `on_label_change` is "refuse".
    """
    names = list(labels.names)
    if version.record.class_names == names:
        return True
    if on_label_change == "floor":
        return False
    raise DataError(
        f"{version.path}: the served model has the classes {version.record.class_names}, but this run's label map has "
        f"{names}: their scores cannot be compared. Set evaluation.on_label_change=floor to evaluate the new model by "
        "evaluation.min_mean_iou alone, or push to another model name (push.model_name)"
    )


class Executor(base_executor.BaseExecutor):
    """Copies the served model into the output artifact, where no later clean-up of the serving directory removes it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        model = artifact_utils.get_single_instance(output_dict["model"])
        version = served(exec_properties["serving_dir"])
        labels = LabelMap.model_validate_json(exec_properties["label_map"])
        present = version is not None and comparable(version, labels, exec_properties["on_label_change"])
        copy_version(version if present else None, model)
        model.set_int_custom_property(SERVED_VERSION, version.version if version else 0)
        model.set_int_custom_property(HIGHEST_PUSHED, int(exec_properties[HIGHEST_PUSHED]))


def copy_version(version: ModelVersion | None, model: types.Artifact) -> None:
    """Copies a version into a Model artifact; None marks the artifact as absent.

    Raises:
        WorkspaceError: The version's files are not those that were published.
    """
    model.set_int_custom_property(PRESENT, int(version is not None))
    if version is not None:
        model.set_int_custom_property(COPIED_VERSION, version.version)
        model.set_int_custom_property(COPIED_FIRST_VERSION, version.record.first_version)
        # Files that were pushed beside the model stay behind: they are not compared, and some hold test images.
        target = path_utils.serving_model_dir(model.uri)
        copy_tree(version.path, target, exclude=(EXTRA,))
        if model_fingerprint(target) != version.record.model_fingerprint:
            raise WorkspaceError(
                f"{version.path}: the files of served version {version.version} are not those that were published; "
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
        HIGHEST_PUSHED: ExecutionParameter(type=str, optional=True),
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


def is_present(served_model: types.Artifact) -> bool:
    """Whether an artifact of `copy_version` holds a model."""
    return bool(served_model.get_int_custom_property(PRESENT))
