"""Beam workers in processes of their own, each of which begins with `import components`, and so with `import tfx`.

Beam's own workers unpickle a stage's functions first, and fail at the first one of TensorFlow Data Validation (see
`components`). A `WorkerPool` implements Beam's external worker pool service (`beam_fn_api.proto`,
BeamFnExternalWorkerPool): a runner asks it for workers, by gRPC, and each is forked from one process that has
imported what the stages need. So a worker starts in a moment, where the imports take some 20 seconds.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing import get_context

import grpc
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import ExternalEnvironment, python_sdk_capabilities
from google.protobuf import json_format, text_format

from data.errors import ConfigError

#: Modules that are imported before the first worker is forked. None of them initialises TensorFlow's runtime, or starts
#: a thread, which would not survive a fork.
PRELOADED = (
    "components.beam_workers",
    "components.ingest.example_gen",
    "components.transform",
    "components.evaluation.evaluator",
    "tfx.components.statistics_gen.executor",
)

#: Seconds for a runner to say how a worker is to be set up.
PROVISION_TIMEOUT = 60.0


def run_worker(request: bytes) -> None:
    """Runs a worker: gets the pipeline's options from the runner, then works for it until it is done.

    Args:
        request: A serialized `StartWorkerRequest`.
    """
    sys.stdout = sys.stderr
    wanted = beam_fn_api_pb2.StartWorkerRequest.FromString(request)
    os.environ |= {
        "WORKER_ID": wanted.worker_id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(_pipeline_options(wanted)),
        "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(wanted.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(wanted.logging_endpoint),
    }
    sdk_worker_main.main([])


def _pipeline_options(wanted: beam_fn_api_pb2.StartWorkerRequest) -> object:
    """The pipeline's options, without which a worker could not access an object store."""
    with grpc.insecure_channel(wanted.provision_endpoint.url) as channel:
        answer = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", wanted.worker_id)],
            timeout=PROVISION_TIMEOUT,
            wait_for_ready=True,
        )
    return answer.info.pipeline_options


def _descriptor(endpoint: endpoints_pb2.ApiServiceDescriptor) -> str:
    return str(text_format.MessageToString(endpoint))


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts workers as runners ask for them. Anyone who can reach its port can run code: use it in closed networks.

    Args of the constructor:
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.

    Attributes:
        address: `host:port` that runners use.

    Raises:
        ConfigError: The address or the port cannot be used.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0):
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        # gRPC's default would let two pools share a port.
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(thread_name_prefix="worker-pool"), options=options)
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, self._server)
        try:
            self.address = f"{host}:{self._server.add_insecure_port(f'{host}:{port}')}"
        except RuntimeError as error:
            raise ConfigError(f"{host}:{port}: the worker pool cannot listen there: {error}") from None
        self._server.start()

    def StartWorker(
        self, request: beam_fn_api_pb2.StartWorkerRequest, _: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Starts one worker, as a runner asks."""
        self._context.Process(target=run_worker, args=(request.SerializeToString(),), daemon=True).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(
        self, request: beam_fn_api_pb2.StopWorkerRequest, _: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        """Does nothing: a worker ends when its runner disconnects, and two runners may use the same ids."""
        return beam_fn_api_pb2.StopWorkerResponse()

    def wait(self) -> None:
        """Serves until the process is interrupted."""
        self._server.wait_for_termination()


@cache
def process_pool() -> WorkerPool:
    """The worker pool of this process, which exists as long as the process does."""
    return WorkerPool()


class MultiProcessingRunner(FnApiRunner):
    """Beam's in-process runner with `--direct_num_workers` workers in processes of their own.

    Beam's `--direct_running_mode=multi_processing` starts workers that do not import tfx first, and gives them no
    pipeline options. As always with `multiprocessing`, the main module must do nothing when it is imported.
    """

    def __init__(self) -> None:
        self._job = beam_provision_api_pb2.ProvisionInfo()
        super().__init__(
            ExternalEnvironment(process_pool().address, capabilities=python_sdk_capabilities()),
            provision_info=ExtendedProvisionInfo(self._job),
        )

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> object:
        """Runs a Beam pipeline, and hands its options to the workers."""
        self._job.pipeline_options.CopyFrom(JobServiceHandle.encode_pipeline_options(options.get_all_options()))
        return super().run_pipeline(pipeline, options)
