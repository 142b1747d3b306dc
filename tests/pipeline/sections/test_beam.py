"""A runner's name in the configuration becomes Beam's options, and what it needs is asked for by name."""

import re
import socket
from collections.abc import Iterator

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, WorkerOptions
from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.sections.beam import BeamConfig

SERVERS = {"endpoint": "jobs:8099", "worker_pool": "workers:50000"}


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["--runner=FnApiRunner"]),
        (
            {"runner": "multi_processing", "workers": 3},
            ["--runner=components.beam_workers.MultiProcessingRunner", "--direct_num_workers=3"],
        ),
        ({"runner": "portable", **SERVERS}, ["--runner=PortableRunner", "--job_endpoint=jobs:8099"]),
        ({"runner": "flink", "workers": 4, **SERVERS}, ["--runner=FlinkRunner", "--parallelism=4"]),
    ],
    ids=lambda value: value.get("runner", "default") if isinstance(value, dict) else "",
)
def test_a_runner_becomes_its_options(settings: dict[str, object], expected: list[str]):
    assert set(expected) <= set(BeamConfig.model_validate(settings).arguments())


def test_workers_of_a_job_server_come_from_the_pool():
    options = PipelineOptions(BeamConfig.model_validate({"runner": "flink", **SERVERS}).arguments())

    assert options.view_as(PortableOptions).environment_type == "EXTERNAL"
    assert options.view_as(PortableOptions).environment_config == "workers:50000"


@pytest.mark.parametrize("runner", ["direct", "multi_processing", "portable"])
def test_tfx_is_told_where_workers_get_their_code(runner: str):
    """Otherwise it packs an archive of itself before each stage."""
    settings = {"portable": SERVERS}.get(runner, {})
    options = PipelineOptions(BeamConfig.model_validate({"runner": runner, **settings}).arguments())

    assert options.get_all_options()["setup_file"] or options.view_as(WorkerOptions).sdk_container_image


def test_further_options_come_last():
    assert BeamConfig(options=("--direct_test=1",)).arguments()[-1] == "--direct_test=1"


def test_options_with_a_runner_of_their_own_are_all_that_beam_is_told():
    options = ("--runner=DataflowRunner", "--region=r", "--sdk_container_image=i")
    assert BeamConfig(options=options).arguments() == list(options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runner": "flink"}, "beam.runner 'flink' needs beam.endpoint"),
        ({"runner": "portable", "endpoint": "a:1"}, "beam.runner 'portable' needs beam.worker_pool"),
        ({"endpoint": "a:1"}, "beam.endpoint 'a:1' does not go with beam.runner 'direct'"),
        (
            {"runner": "flink", **SERVERS, "options": ["--runner=SparkRunner"]},
            "beam.options holds --runner, and beam.runner is 'flink'; leave one of them out",
        ),
        ({"endpoint": "a:1", "options": ["--runner=SparkRunner"]}, "beam.endpoint 'a:1' does not go with"),
        (
            {"runner": "flink", **SERVERS, "options": ["--parallelism=3", "--job_endpoint=a:1"]},
            "beam.options holds --job_endpoint, --parallelism, which beam.runner 'flink' sets itself",
        ),
        ({"options": ["--setup_file=x"]}, "beam.options holds --setup_file, which beam.runner 'direct' sets itself"),
        (
            {"runner": "spark", **SERVERS},
            "beam.runner 'spark' is not a name any more; give its options in beam.options: [-",
        ),
        ({"runner": "dataflow"}, "beam.options: [--runner=DataflowRunner, --beam_plugin=components"),
        ({"runner": "prism"}, "'flink'"),
        ({"runner": ["flink"]}, "'flink'"),
        ({"runner": "flink", "endpoint": "http://a:1", "worker_pool": "b:2"}, "pattern"),
        ({"workers": 0}, "greater than or equal to 1"),
    ],
)
def test_a_mistake_is_named(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=re.escape(message)):
        BeamConfig.model_validate(settings)


def test_a_job_server_that_is_not_there_is_named_with_what_to_start(listening: str, silent: str):
    config = BeamConfig(runner="portable", endpoint=silent, worker_pool=listening)

    with pytest.raises(ConfigError, match=f"beam.endpoint={silent}: nothing answers .*local_job_service_main"):
        config.require_servers()


def test_a_worker_pool_that_is_not_there_is_named_with_what_to_start(listening: str, silent: str):
    config = BeamConfig(runner="flink", endpoint=listening, worker_pool=silent)
    port = silent.rpartition(":")[2]

    with pytest.raises(ConfigError, match=f"beam.worker_pool={silent}: .*beam-workers --port {port}"):
        config.require_servers()


def test_servers_that_answer_are_enough(listening: str):
    BeamConfig(runner="flink", endpoint=listening, worker_pool=listening).require_servers()


def test_a_runner_without_servers_needs_none():
    BeamConfig().require_servers()
