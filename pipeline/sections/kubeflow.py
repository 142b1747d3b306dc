"""Section `kubeflow`: the cluster resources of each stage. This module imports neither kfp nor tfx."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data.section import LONGEST_SECONDS, Section

Quantity = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?)?$")]
"""A Kubernetes quantity, such as "500m", "4" or "16Gi"; empty leaves it to the cluster."""
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
"""A name of a Kubernetes object that also names a volume of the pod (RFC 1123 label)."""
SubdomainName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
"""A name of any other Kubernetes object (RFC 1123 subdomain)."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""A name of an environment variable."""


class Toleration(Section):
    """Lets a stage run on nodes with a taint, such as those with GPUs."""

    key: str = ""
    """Key of the taint; empty with operator "Exists" tolerates every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """"Equal" tolerates taints with this key and this value, "Exists" those with this key and any value."""
    value: str = ""
    """Value of the taint, for operator "Equal"."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Empty matches every effect."""

    @model_validator(mode="after")
    def _kubernetes_accepts_it(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError(f"operator 'Exists' goes without a value, here {self.value!r}")
        if self.operator == "Equal" and not self.key:
            raise ValueError("operator 'Equal' needs a key; allowed without one: 'Exists'")
        return self


class Volume(Section):
    """An existing persistent volume claim of the cluster, and where it is mounted in a stage."""

    claim: Label
    """Name of the persistent volume claim."""
    path: str = Field(pattern=r"^/.")
    """Absolute mount path in the container."""


class SecretVariable(Section):
    """An environment variable whose value is a key of a secret on the cluster."""

    secret: SubdomainName
    """Name of the secret."""
    key: str = Field(min_length=1)
    """Key in the secret."""
    variable: Variable
    """Name of the environment variable."""


class StageConfig(Section):
    """The resources and settings of one stage's container."""

    cpu: Quantity = ""
    """CPU limit."""
    memory: Quantity = ""
    """Memory limit."""
    accelerator: str = Field(default="", pattern=r"^([a-z0-9.-]+/[A-Za-z0-9._-]+)?$")
    """Resource name of the accelerator: nvidia.com/gpu, amd.com/gpu, google.com/tpu, ...; empty for none."""
    accelerators: int = Field(default=1, ge=1, le=1024)
    """Number of accelerators; training on several in one pod also needs training.strategy 'mirrored'."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that may run the stage, such as cloud.google.com/gke-accelerator: nvidia-tesla-t4."""
    tolerations: tuple[Toleration, ...] = ()
    """Tolerations: taints of nodes on which the stage may run nevertheless."""
    volumes: tuple[Volume, ...] = ()
    """Persistent volume claims, and where they are mounted."""
    secrets: tuple[SecretVariable, ...] = ()
    """Environment variables whose values come from secrets of the cluster."""
    env: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables that are not secret."""
    retries: int = Field(default=0, ge=0, le=1000)
    """Maximum number of retries of a failed stage."""
    retry_seconds: int = Field(default=30, ge=0, le=LONGEST_SECONDS)
    """Seconds before the first retry; the time doubles with each further one, up to an hour."""

    @model_validator(mode="after")
    def _each_claim_once(self) -> Self:
        claims = [volume.claim for volume in self.volumes]
        twice = sorted({claim for claim in claims if claims.count(claim) > 1})
        if twice:
            raise ValueError(
                f"volumes: claim {', '.join(twice)} stands twice; Kubeflow names the pod's volume after it"
            )
        return self

    def mounts(self, place: str) -> bool:
        """Whether an absolute path lies on one of the volumes."""
        return any(PurePosixPath(place).is_relative_to(volume.path) for volume in self.volumes)


class TrainingJobConfig(Section):
    """Training on several pods, as a TFJob of Kubeflow's Training Operator (training.strategy 'multi_worker')."""

    workers: int = Field(default=2, ge=2, le=10_000)
    """Number of pods that train together; each has the resources and settings of stage Trainer."""


class KubeflowConfig(Section):
    """How the pipeline runs on Kubeflow Pipelines."""

    service_account: str = Field(default="", pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$")
    """Kubernetes service account of a run's pods; empty for the server's default."""
    default: StageConfig = StageConfig()
    """Settings of all stages, unless `stages` overrides them."""
    stages: dict[str, StageConfig] = Field(default_factory=dict)
    """Stage -> its settings; omitted fields have the values of `default`."""
    training_job: TrainingJobConfig = TrainingJobConfig()

    def stage(self, name: str) -> StageConfig:
        """The settings of a stage: its own fields override those of `default`."""
        own = self.stages.get(name)
        if own is None:
            return self.default
        return self.default.model_copy(update={field: getattr(own, field) for field in own.model_fields_set})
