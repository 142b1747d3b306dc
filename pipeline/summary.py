"""`summary.json`: what a run came to. A stable interface; other tools may rely on it.

`pipeline/judgement.py` fills it in; this module only describes it, and imports quickly.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
SUMMARY_FILE = "summary.json"


class DataSummary(BaseModel):
    """What went in."""

    images: dict[str, int]
    """Per split."""
    quarantined: int
    reasons: dict[str, int]
    """Kind of reason -> files."""
    spans: list[int]
    """Numbers of the spans that were trained on; [0] where the data do not come in spans."""
    drift: list[str] = []
    """What the newest span differs in too much from those before it, a line each."""


class ModelSummary(BaseModel):
    """What was trained."""

    backbone: str
    output_stride: int
    params: int
    steps: int


class TrialSummary(BaseModel):
    """One trial of the hyperparameter search."""

    mean_iou: float
    """The best on the validation split."""
    values: dict[str, bool | int | float | str]
    """Field of the configuration -> value tried."""


class TuningSummary(BaseModel):
    """What the hyperparameter search found."""

    best: dict[str, bool | int | float | str]
    """Field of the configuration -> value that the model was trained with in its place."""
    trials: list[TrialSummary]
    """The best one first."""


class MetricsSummary(BaseModel):
    """On the test split; a class that is neither in labels nor in predictions has no IoU."""

    mean_iou: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    iou: dict[str, float | None]
    slices: dict[str, float | None]
    """Slice, as `column:value` -> mean IoU."""
    confusion_matrix: list[list[int]]
    """Rows: labels; columns: predictions; in pixels."""


class BaselineSummary(BaseModel):
    """The model that was served when the run began."""

    version: int
    mean_iou: float


class Failure(BaseModel):
    """Why a run did not come to its end."""

    stage: str | None
    """In which stage; None if it was in none."""
    kind: Literal["data", "config", "fault"]
    """What is wrong: the data, the configuration, or anything else."""
    message: str


class Summary(BaseModel):
    """See the module."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["succeeded", "failed"]
    error: str = ""
    failure: Failure | None = None
    """Of a run whose status is 'failed'."""
    config: dict[str, Any]
    config_hash: str = ""
    """Of `config`; a run of the same configuration on Kubeflow carries it as parameter `config_hash`."""
    data: DataSummary | None = None
    tuning: TuningSummary | None = None
    """None without a search."""
    model: ModelSummary | None = None
    metrics: MetricsSummary | None = None
    baseline: BaselineSummary | None = None
    blessed: bool | None = None
    """None where the run did not come to a judgement."""
    reasons: list[str] = []
    pushed_version: int | None = None
    pushed_path: str | None = None
    timings: dict[str, float] = {}
    """Stage -> seconds."""
    cached: list[str] = []
    """Stages whose earlier result was taken over."""


def read_summary(folder: Path) -> Summary:
    """The summary in a run's folder."""
    return Summary.model_validate_json((folder / SUMMARY_FILE).read_bytes())
