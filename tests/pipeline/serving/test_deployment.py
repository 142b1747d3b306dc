"""The examples of deploy/serving: TensorFlow Serving reads the same fields, Kubernetes the same resources."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.config import PushConfig
from tests.pipeline.conftest import ROOT

DEPLOY = ROOT / "deploy" / "serving"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
INFERENCE_SERVICE = yaml.safe_load((DEPLOY / "inference-service.yaml").read_text())

#: TensorFlow Serving's BatchingParameters, which its Python package lacks: number and type of the fields.
BATCHING = {
    "max_batch_size": (1, "Int64Value"),
    "batch_timeout_micros": (2, "Int64Value"),
    "max_enqueued_batches": (3, "Int64Value"),
    "num_batch_threads": (4, "Int64Value"),
    "thread_pool_name": (5, "StringValue"),
    "enable_large_batch_splitting": (8, "BoolValue"),
    "max_execution_batch_size": (9, "Int64Value"),
}


def batching_parameters() -> message.Message:
    """An empty BatchingParameters, from its published fields."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    described = file.message_type.add(name="BatchingParameters")
    for name, (number, kind) in BATCHING.items():
        described.field.add(name=name, number=number, type=11, label=1, type_name=f".google.protobuf.{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()


def test_the_models_are_those_that_the_pipeline_pushes_by_default():
    parsed = text_format.Parse((DEPLOY / "models.config").read_text(), ModelServerConfig())
    [model] = parsed.model_config_list.config
    name = PushConfig().model_name
    assert (model.name, model.base_path, model.model_platform) == (name, f"/models/{name}", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_the_bounds_on_work_are_read_and_go_together():
    bounds: Any = text_format.Parse((DEPLOY / "batching.config").read_text(), batching_parameters())
    assert bounds.enable_large_batch_splitting.value and bounds.max_execution_batch_size.value == 1
    assert bounds.max_batch_size.value >= bounds.max_execution_batch_size.value
    assert bounds.num_batch_threads.value >= 1 and bounds.max_enqueued_batches.value >= 1


def test_what_the_container_is_told_to_read_is_mounted():
    service = COMPOSE["services"]["model"]
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    assert all(volume["read_only"] for volume in mounts.values())
    files = [word.partition("=")[2] for word in service["command"] if "/config/" in word]
    assert len(files) == 2
    for file in files:
        assert (DEPLOY / mounts["/config"]["source"] / Path(file).name).is_file()
    assert mounts["/models"]["source"] == "${SERVING:-../../workspace/serving}"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_inference_service_serves_from_the_claim_that_the_pipeline_pushes_to():
    claim = next(yaml.safe_load_all((ROOT / "deploy" / "storage.yaml").read_text()))["metadata"]
    model = INFERENCE_SERVICE["spec"]["predictor"]["model"]
    assert INFERENCE_SERVICE["metadata"]["namespace"] == claim["namespace"]
    assert model["storageUri"] == f"pvc://{claim['name']}/serving/{PushConfig().model_name}"
    assert model["modelFormat"] == {"name": "tensorflow"}


@pytest.mark.parametrize("part", ["metadata", "resources"])
def test_kubernetes_takes_the_parts_that_are_its_own(part: str):
    """An InferenceService is none of Kubernetes' own kinds, but is made of parts that are."""
    container = {"name": "model", "image": "none"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "none"}, "spec": {"containers": [container]}}
    if part == "metadata":
        pod["metadata"] = INFERENCE_SERVICE["metadata"]
    else:
        container["resources"] = INFERENCE_SERVICE["spec"]["predictor"]["model"]["resources"]
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
