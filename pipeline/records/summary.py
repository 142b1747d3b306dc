"""`summary.json`: the results of a run. It is a stable interface; other tools may rely on it.

`pipeline/records/summarize.py` fills it in; this module only defines it, and imports quickly.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.targets.hub_record import HubRecord
from components.targets.lite_record import LiteRecord
from data.errors import WorkspaceError
from data.section import first_problem

SCHEMA_VERSION = 1
SUMMARY_FILE = "summary.json"


class DataSummary(BaseModel):
    """The data that the run was given."""

    images: dict[str, int]
    """Number of images in each split."""
    quarantined: int
    reasons: dict[str, int]
    """Kind of reason -> number of files that were quarantined for it."""
    spans: list[int]
    """Numbers of the spans that were trained on; [0] if the data are not divided into spans."""
    replayed: dict[str, int] = {}
    """Number of an earlier span -> number of its images that were replayed for training."""
    drift: list[str] = []
    """Ways in which the newest span has drifted too far from the earlier ones, one line each."""
    degenerate: list[str] = []
    """What is degenerate in the data (`components.validation.degenerate`), one sentence each."""


class ModelSummary(BaseModel):
    """The model that was trained."""

    backbone: str
    output_stride: int
    params: int
    steps: int
    """Number of weight updates that were made, fewer than planned after an early stop."""
    planned_steps: int | None = None
    """Number of weight updates without an early stop; None in records of earlier versions."""
    started_from: int | None = None
    """The served version whose weights training started from; None if it did not start from one."""


class TrialSummary(BaseModel):
    """One trial of the hyperparameter search."""

    mean_iou: float
    """The best mean IoU on the validation split."""
    values: dict[str, bool | int | float | str]
    """Field of the configuration -> value that was tried."""


class TuningSummary(BaseModel):
    """What the hyperparameter search found."""

    best: dict[str, bool | int | float | str]
    """Field of the configuration -> the value found by the search, which the model was trained with."""
    trials: list[TrialSummary]
    """The best one first."""


class ClassScores(BaseModel):
    """The scores of one class; None where a score is undefined (see `models.metrics.confusion`)."""

    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary_iou: float | None


class ScoreSummary(BaseModel):
    """All scores of one model on a set of images; None where a score is undefined."""

    mean_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    frequency_weighted_iou: float | None
    mean_boundary_iou: float | None
    """Mean IoU of the pixels within 2 % of the image's diagonal from a boundary."""
    trimap_mean_iou: float | None
    """Mean IoU of the pixels within 5 pixels of a boundary in the label."""
    calibration_error: float | None
    """Expected calibration error of the pixels' probabilities."""
    classes: dict[str, ClassScores]


class MetricsSummary(BaseModel):
    """Scores on the test split; the IoU of a class that is in neither labels nor predictions is None."""

    mean_iou: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    iou: dict[str, float | None]
    slices: dict[str, float | None]
    """Slice, as `column:value` -> mean IoU."""
    confusion_matrix: list[list[int]]
    """Pixel counts; rows are labels, columns are predictions."""
    mean_iou_interval: tuple[float, float] | None = None
    """Confidence interval by bootstrap over the images, at `evaluation.intervals.level`."""
    scores: ScoreSummary | None = None
    """All scores; None in records of earlier versions."""
    slice_scores: dict[str, ScoreSummary] = {}
    """Slice, as `column:value` -> all its scores."""
    constant_class: str | None = None
    """The commonest class of the test split; None in records of earlier versions, as is the next one."""
    constant_mean_iou: float | None = None
    """Mean IoU that predicting `constant_class` for every pixel reaches."""


class BaselineSummary(BaseModel):
    """The model that was served when the run began, evaluated on the same images."""

    version: int
    mean_iou: float
    mean_iou_interval: tuple[float, float] | None = None
    change_interval: tuple[float, float] | None = None
    """Confidence interval of the candidate's mean IoU minus the baseline's, on the same bootstrap samples of images."""
    scores: ScoreSummary | None = None
    slice_scores: dict[str, ScoreSummary] = {}


class FailureRecord(BaseModel):
    """Why a run failed."""

    stage: str | None
    """The stage that failed; None if the error occurred outside the stages."""
    kind: Literal["data", "config", "fault"]
    """Whether the data, the configuration or anything else is at fault."""
    message: str


class RunSummary(BaseModel):
    """The results of one run, as `summary.json` holds them."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["succeeded", "failed"]
    error: str = ""
    failure: FailureRecord | None = None
    """Why the run failed; None unless its status is 'failed'."""
    config: dict[str, Any]
    config_hash: str = ""
    """Hash of `config`; a run of the same configuration on Kubeflow has it as its parameter `config_hash`."""
    data: DataSummary | None = None
    tuning: TuningSummary | None = None
    """The hyperparameter search; None if there was none."""
    model: ModelSummary | None = None
    metrics: MetricsSummary | None = None
    baseline: BaselineSummary | None = None
    lite: LiteRecord | None = None
    """The LiteRT models; None if the configuration asks for none."""
    hub: HubRecord | None = None
    """The modules for TensorFlow Hub; None if the configuration asks for none."""
    blessed: bool | None = None
    """Whether the candidate passed evaluation; None if the run did not evaluate one."""
    reasons: list[str] = []
    pushed_version: int | None = None
    pushed_path: str | None = None
    timings: dict[str, float] = {}
    """Stage -> its duration in seconds."""
    cached: list[str] = []
    """Stages whose results were taken from the cache."""


def read_summary(folder: Path) -> RunSummary:
    """Reads the summary in a run's folder.

    Raises:
        WorkspaceError: The folder has no summary, or a damaged one.
    """
    path = folder / SUMMARY_FILE
    try:
        return RunSummary.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise WorkspaceError(
            f"{folder}: there is no {SUMMARY_FILE}: this run was killed, or is still running"
        ) from None
    except OSError as error:
        raise WorkspaceError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise WorkspaceError(
            f"{path}: damaged record of a run: {first_problem(error)}. Remove the run's folder, or restore the file"
        ) from None
