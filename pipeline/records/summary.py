"""`summary.json`: what a run came to. A stable interface; other tools may rely on it.

`pipeline/records/summarize.py` fills it in; this module only describes it, and imports quickly.
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
    """What went in."""

    images: dict[str, int]
    """Per split."""
    quarantined: int
    reasons: dict[str, int]
    """Kind of reason -> files."""
    spans: list[int]
    """Numbers of the spans that were trained on; [0] where the data do not come in spans."""
    replayed: dict[str, int] = {}
    """Span before those -> its images that are among the training images all the same."""
    drift: list[str] = []
    """What the newest span differs in too much from those before it, a line each."""


class ModelSummary(BaseModel):
    """What was trained."""

    backbone: str
    output_stride: int
    params: int
    steps: int
    """Updates of the weights, an early stop considered."""
    planned_steps: int | None = None
    """Updates without an early stop; None in records of earlier versions."""
    started_from: int | None = None
    """The served version whose weights training started from."""


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


class ClassScores(BaseModel):
    """One class; None where there is nothing to take a score from (see `models.metrics.confusion`)."""

    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary_iou: float | None


class ScoreSummary(BaseModel):
    """All scores of one model on a set of images; None where there is nothing to take one from."""

    mean_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    frequency_weighted_iou: float | None
    mean_boundary_iou: float | None
    """Of the pixels within 2 % of the image's diagonal from a boundary."""
    trimap_mean_iou: float | None
    """Mean IoU of the pixels within 5 of a boundary in the label."""
    calibration_error: float | None
    """Expected calibration error of the pixels' probabilities."""
    classes: dict[str, ClassScores]


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
    mean_iou_interval: tuple[float, float] | None = None
    """Confidence interval by bootstrap over the images, at `evaluation.intervals.level`."""
    scores: ScoreSummary | None = None
    """Everything; None in records of earlier versions."""
    slice_scores: dict[str, ScoreSummary] = {}
    """Slice, as `column:value` -> everything."""


class BaselineSummary(BaseModel):
    """The model that was served when the run began, on the same images."""

    version: int
    mean_iou: float
    mean_iou_interval: tuple[float, float] | None = None
    change_interval: tuple[float, float] | None = None
    """Confidence interval of the candidate's mean IoU less this one's, on the same draws of images."""
    scores: ScoreSummary | None = None
    slice_scores: dict[str, ScoreSummary] = {}


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
    lite: LiteRecord | None = None
    """The LiteRT models; None where none are asked for."""
    hub: HubRecord | None = None
    """The modules for TensorFlow Hub; None where none are asked for."""
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
    """The summary in a run's folder.

    Raises:
        WorkspaceError: There is none, or it is damaged.
    """
    path = folder / SUMMARY_FILE
    try:
        return Summary.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise WorkspaceError(f"{folder}: there is no {SUMMARY_FILE}: this run was killed, or goes on") from None
    except OSError as error:
        raise WorkspaceError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise WorkspaceError(
            f"{path}: damaged record of a run: {first_problem(error)}. Remove the run's folder, or restore the file"
        ) from None
