"""How Beam runs the stages that work on data: ExampleGen, StatisticsGen, Transform, Evaluator. See `docs/beam.md`."""

import socket
from typing import Literal, Self

from pydantic import Field, model_validator

from components.code_hash import ROOT
from data.errors import ConfigError
from data.section import Section

Runner = Literal["direct", "multi_processing", "portable", "flink", "spark", "dataflow"]

#: Runners behind Beam's Job API, which need a job server and a worker pool.
JOB_API: dict[Runner, str] = {"portable": "PortableRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}

#: What to start where nothing answers.
JOB_SERVERS: dict[Runner, str] = {
    "portable": "python -m apache_beam.runners.portability.local_job_service_main --port PORT",
    "flink": "Beam's job server for Flink",
    "spark": "Beam's job server for Spark",
}

#: Options without which Dataflow cannot run these stages.
DATAFLOW_OPTIONS = ("project", "region", "temp_location", "sdk_container_image")

#: Seconds to wait for a server that may be there.
CONNECT_TIMEOUT = 5.0

Address = Field(default=None, pattern=r"^[^\s:/]+:[0-9]{1,5}$")


class BeamConfig(Section):
    """How Beam runs ExampleGen, StatisticsGen, Transform and Evaluator."""

    runner: Runner = "direct"
    """'direct' works in the process of the stage, 'multi_processing' in `workers` processes of this machine,
    'portable', 'flink' and 'spark' where a job server sends the work, 'dataflow' in Google's cloud."""
    workers: int = Field(default=2, ge=1)
    """Processes of 'multi_processing', parallelism of 'flink', most machines of 'dataflow'; the others decide for
    themselves."""
    endpoint: str | None = Address
    """host:port of the job server of 'portable', 'flink' and 'spark'. It is never started or downloaded by a run."""
    worker_pool: str | None = Address
    """host:port at which the workers of 'portable', 'flink' and 'spark' find `local_runner.py beam-workers`."""
    options: tuple[str, ...] = ()
    """Further options for Beam, such as --temp_location=gs://bucket/tmp."""

    @model_validator(mode="after")
    def _runner_has_what_it_needs(self) -> Self:
        addresses = {"beam.endpoint": self.endpoint, "beam.worker_pool": self.worker_pool}
        for name, address in addresses.items():
            if self.runner in JOB_API and address is None:
                raise ValueError(f"beam.runner {self.runner!r} needs {name}, as host:port; see docs/beam.md")
            if self.runner not in JOB_API and address is not None:
                raise ValueError(
                    f"{name} {address!r} does not go with beam.runner {self.runner!r}; allowed: {', '.join(JOB_API)}"
                )
        given = {option.removeprefix("--").partition("=")[0] for option in self.options}
        if "runner" in given:
            raise ValueError("beam.options holds --runner; the runner is said in beam.runner")
        if self.runner == "dataflow" and (missing := [name for name in DATAFLOW_OPTIONS if name not in given]):
            raise ValueError(
                f"beam.runner 'dataflow' needs in beam.options: {', '.join(f'--{m}=...' for m in missing)}"
            )
        return self

    def arguments(self) -> list[str]:
        """Beam's pipeline options, the same for every stage."""
        return [*self._runner_arguments(), *self.options]

    def _runner_arguments(self) -> list[str]:
        # Without a word on where workers get their code TFX packs its own installation into an archive before each
        # stage. A set-up file is the cheapest such word where no worker is remote. Job servers would have Beam build
        # an archive of it for each stage, which the workers of a pool never fetch: they bring their code along. There
        # the name of an image is as cheap, which nobody looks at, since no image is run.
        if self.runner == "direct":
            return ["--runner=FnApiRunner", *_set_up()]
        if self.runner == "multi_processing":
            name = "components.beam_workers.MultiProcessingRunner"
            return [f"--runner={name}", f"--direct_num_workers={self.workers}", *_set_up()]
        if self.runner == "dataflow":
            return ["--runner=DataflowRunner", f"--max_num_workers={self.workers}", "--beam_plugin=components"]
        return [
            f"--runner={JOB_API[self.runner]}",
            f"--job_endpoint={self.endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={self.worker_pool}",
            "--sdk_container_image=unused",
            "--experiments=disable_logging_submission_environment",
            *([f"--parallelism={self.workers}"] if self.runner == "flink" else []),
        ]

    def require_servers(self) -> None:
        """Raises ConfigError where the job server or the worker pool does not answer."""
        if self.endpoint and self.worker_pool:
            _require("beam.endpoint", self.endpoint, JOB_SERVERS[self.runner])
            _, _, port = self.worker_pool.rpartition(":")
            _require("beam.worker_pool", self.worker_pool, f"python local_runner.py beam-workers --port {port}")


def _set_up() -> list[str]:
    path = ROOT / "setup.py"
    return [f"--setup_file={path}"] if path.exists() else []


def _require(key: str, address: str, remedy: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{key}={address}: nothing answers ({error}); start there: {remedy}") from None
