"""How Beam runs the stages that work on data: ExampleGen, StatisticsGen, Transform, Evaluator. See `docs/beam.md`."""

import socket
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.code_hash import ROOT
from data.errors import ConfigError
from data.section import Section

#: Runner with a job server and a worker pool -> its name in Beam's Job API, and what to start if nothing answers.
JOB_API = {
    "portable": ("PortableRunner", "python -m apache_beam.runners.portability.local_job_service_main --port PORT"),
    "flink": ("FlinkRunner", "Beam's job server for Flink"),
}

#: Runners that used to be allowed, although they never ran in this project -> their replacement in `options`.
FORMER = {
    "spark": "--runner=SparkRunner, --job_endpoint=HOST:PORT, --environment_type=EXTERNAL, "
    "--environment_config=HOST:PORT, --sdk_container_image=unused",
    "dataflow": "--runner=DataflowRunner, --beam_plugin=components, --project=..., --region=..., --temp_location=..., "
    "--sdk_container_image=...",
}

#: Seconds to wait for a connection to a server.
CONNECT_TIMEOUT = 5.0

Address = Field(default=None, pattern=r"^[^\s:/]+:[0-9]{1,5}$")


class BeamConfig(Section):
    """How Beam runs ExampleGen, StatisticsGen, Transform and Evaluator."""

    runner: Literal["direct", "multi_processing", "portable", "flink"] = "direct"
    """'direct' runs in the process of the stage, 'multi_processing' in `workers` processes of this machine,
    'portable' and 'flink' wherever a job server sends the work. `options` can select any other Beam runner."""
    workers: int = Field(default=2, ge=1, le=10_000)
    """Number of processes of 'multi_processing', or parallelism of 'flink'; other runners choose their own."""
    endpoint: str | None = Address
    """host:port of the job server for 'portable' and 'flink'. A run never starts or downloads one."""
    worker_pool: str | None = Address
    """host:port of the worker pool for 'portable' and 'flink', started by `local_runner.py beam-workers`."""
    options: tuple[str, ...] = ()
    """Further Beam pipeline options, such as --temp_location=gs://bucket/tmp. With --runner=... among them, Beam is
    given only these options, and `runner` is ignored."""

    @field_validator("runner", mode="before")
    @classmethod
    def _runner_is_not_a_former_name(cls, runner: object) -> object:
        if isinstance(runner, str) and runner in FORMER:
            raise ValueError(
                f"beam.runner {runner!r} is not a name any more; give its options in beam.options: [{FORMER[runner]}]; "
                "see docs/beam.md"
            )
        return runner

    @model_validator(mode="after")
    def _runner_has_what_it_needs(self) -> Self:
        for name, address in {"beam.endpoint": self.endpoint, "beam.worker_pool": self.worker_pool}.items():
            if self.runner in JOB_API and address is None:
                raise ValueError(f"beam.runner {self.runner!r} needs {name}, as host:port; see docs/beam.md")
            if self.runner not in JOB_API and address is not None:
                raise ValueError(
                    f"{name} {address!r} does not go with beam.runner {self.runner!r}; allowed: {', '.join(JOB_API)}"
                )
        if "--runner" not in (given := _names(self.options)):
            if twice := given & _names(self._runner_arguments()) - {"--experiments"}:
                raise ValueError(
                    f"beam.options holds {', '.join(sorted(twice))}, which beam.runner {self.runner!r} sets itself"
                )
        elif self.runner != "direct":
            raise ValueError(f"beam.options holds --runner, and beam.runner is {self.runner!r}; leave one of them out")
        return self

    def arguments(self) -> list[str]:
        """Beam's pipeline options, the same for every stage."""
        return [*([] if "--runner" in _names(self.options) else self._runner_arguments()), *self.options]

    def _runner_arguments(self) -> list[str]:
        # Unless an option states where workers get their code, TFX packs its own installation into an archive before
        # each stage. A set-up file is the cheapest such option if no worker is remote. With a job server, Beam would
        # build an archive from it for each stage, which the workers of a pool never fetch, since they have the code.
        # There the name of an image is as cheap; it is ignored, since no image is run.
        path = ROOT / "setup.py"
        set_up = [f"--setup_file={path}"] if path.exists() else []
        if self.runner == "direct":
            return ["--runner=FnApiRunner", *set_up]
        if self.runner == "multi_processing":
            name = "components.beam_workers.MultiProcessingRunner"
            return [f"--runner={name}", f"--direct_num_workers={self.workers}", *set_up]
        name, _ = JOB_API[self.runner]
        return [
            f"--runner={name}",
            f"--job_endpoint={self.endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={self.worker_pool}",
            "--sdk_container_image=unused",
            "--experiments=disable_logging_submission_environment",
            *([f"--parallelism={self.workers}"] if self.runner == "flink" else []),
        ]

    def require_servers(self) -> None:
        """Raises ConfigError if the job server or the worker pool does not answer."""
        if self.endpoint and self.worker_pool:
            _, start = JOB_API[self.runner]
            _require("beam.endpoint", self.endpoint, start)
            _, _, port = self.worker_pool.rpartition(":")
            _require("beam.worker_pool", self.worker_pool, f"python local_runner.py beam-workers --port {port}")


def _names(options: Iterable[str]) -> set[str]:
    return {option.partition("=")[0] for option in options}


def _require(key: str, address: str, remedy: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{key}={address}: nothing answers ({error}); start there: {remedy}") from None
