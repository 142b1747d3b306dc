"""What runs leave behind, written by hand: records, scores, and artifacts with a few pixels."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import tensorflow as tf
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components.artifacts import INFRA_BLESSED, Quarantine
from components.evaluation.per_image import IMAGES_FILE
from components.ingest.quarantine import BAD_FILE
from components.spans.drift import statistics
from components.targets.hub_record import HubModel, HubRecord
from components.targets.lite_record import LiteModel, LiteRecord
from data import features
from data.labels import LabelMap
from pipeline.records.executions import StageRecord
from pipeline.records.summary import (
    BaselineSummary,
    ClassScores,
    DataSummary,
    MetricsSummary,
    ModelSummary,
    RunSummary,
    ScoreSummary,
    TrialSummary,
    TuningSummary,
)

EVIL = "<script>alert(1)</script>"


def make_scores(odd: str, mean_iou: float, sky: float) -> ScoreSummary:
    """Scores whose IoU alone matters."""

    def scores(iou: float | None) -> ClassScores:
        return ClassScores(iou=iou, dice=0.875, precision=0.75, recall=0.625, boundary_iou=0.125)

    return ScoreSummary(
        mean_iou=mean_iou,
        pixel_accuracy=13 / 15,
        mean_accuracy=0.9,
        frequency_weighted_iou=0.7714,
        mean_boundary_iou=0.3,
        trimap_mean_iou=0.4,
        calibration_error=0.05,
        classes={"sky": scores(sky), odd: scores(5 / 7), "void deck": scores(None)},
    )


def make_metrics(odd: str) -> MetricsSummary:
    """10 pixels of class "sky", 2 of them taken for `odd`; 5 of that, all right; none of "void deck"."""
    return MetricsSummary(
        mean_iou=0.7571,
        pixel_accuracy=13 / 15,
        frequency_weighted_iou=0.7714,
        iou={"sky": 0.8, odd: 5 / 7, "void deck": None},
        slices={"source:a": 0.75, "source:<b>b": 0.25, "source:c": None},
        confusion_matrix=[[8, 2, 0], [0, 5, 0], [0, 0, 0]],
        mean_iou_interval=(0.71, 0.79),
        scores=make_scores(odd, 0.7571, 0.8),
    )


METRICS = make_metrics(EVIL)
NAMES = list(METRICS.iou)
LITE = LiteRecord(
    height=48,
    width=64,
    classes=[],
    threads=2,
    images=4,
    saved_model_mean_iou=0.75,
    models=[
        LiteModel(
            variant="float16", file="float16.tflite", reason="", mean_iou=0.7499, milliseconds=3.25, size=5 * 1024
        ),
        LiteModel(variant="int8", file=None, reason="mean IoU 0.5000, -0.2500, breaks lite.max_drop=0.01"),
    ],
)
HUB = HubRecord(
    images=4,
    saved_model_mean_iou=0.75,
    models=[
        HubModel(module="segmenter", file="segmenter", reason="", mean_iou=0.75, size=7 * 1024),
        HubModel(module="feature_extractor", file=None, reason="mean IoU 0.5000", mean_iou=0.5),
    ],
)
BASELINE = BaselineSummary(
    version=6,
    mean_iou=0.7,
    mean_iou_interval=(0.65, 0.74),
    change_interval=(0.01, 0.09),
    scores=make_scores(EVIL, 0.7, 0.6),
    slice_scores={"source:a": make_scores(EVIL, 0.5, 0.5)},
)


def make_summary(**changes: Any) -> RunSummary:
    """A run that came to nothing yet."""
    config = {
        "name": "demo",
        "data": {"label_map": {"classes": [{"name": name} for name in NAMES]}},
        "evaluation": {"min_mean_iou": 0.5},
        "tuning": {"algorithm": "bayesian", "steps": 1200},
        "push": {"model_name": "demo"},
        "report": {"pictures": True},
    }
    return RunSummary.model_validate(
        {"run_id": "20260101-000000-000", "status": "succeeded", "config": config} | changes
    )


RATE, WEIGHTS = "training.learning_rate", "training.initial_weights"

BLESSED = {
    "tuning": TuningSummary(
        best={RATE: 0.00123456, WEIGHTS: EVIL},
        trials=[
            TrialSummary(mean_iou=0.5, values={RATE: 0.00123456, WEIGHTS: EVIL}),
            TrialSummary(mean_iou=0.25, values={RATE: 0.5, WEIGHTS: "random"}),
        ],
    ),
    "data": DataSummary(images={"train": 1240, "val": 3, "test": 4}, quarantined=1, reasons={"size": 1}, spans=[0]),
    "model": ModelSummary(backbone="resnet50", output_stride=16, params=26_000_000, steps=900),
    "metrics": METRICS,
    "baseline": BASELINE,
    "blessed": True,
    "reasons": ["mean IoU 0.7571 reaches evaluation.min_mean_iou=0.5"],
    "pushed_version": 7,
    "pushed_path": "/serving/demo/7",
    "timings": {"ImageExampleGen": 8.5, "Trainer": 283.6},
}


def stage(name: str, outputs: Mapping[str, Artifact], seconds: float = 1.0, state: str = "ran") -> StageRecord:
    """A stage that made some artifacts."""
    return StageRecord(name, state, seconds, {}, {key: [artifact] for key, artifact in outputs.items()})


def placed(artifact: Artifact, folder: Path) -> Artifact:
    """An artifact in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    artifact.uri = str(folder)
    return artifact


class RedIsOne(tf.Module):
    """Says class 1 where red is above one half, class 0 elsewhere; or the reverse."""

    def __init__(self, label_map_file: str, *, reverse: bool) -> None:
        super().__init__()
        self.label_map = tf.saved_model.Asset(label_map_file)
        self._reverse = reverse

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.io.decode_image(image_bytes[0], channels=3, expand_animations=False)
        mask = tf.cast((image[:, :, :1] > 127) != self._reverse, tf.uint8)
        return {"mask_bytes": tf.io.encode_png(mask)[None], "scores": tf.ones(1)}


def save_model(folder: Path, *, reverse: bool = False) -> Path:
    """A Model artifact's folder, with a SavedModel such as `models.export.saved_model` writes."""
    label_map = folder / "label_map.json"
    label_map.write_text(LabelMap.model_validate({"classes": [{"name": name} for name in NAMES]}).model_dump_json())
    module = RedIsOne(str(label_map), reverse=reverse)
    tf.saved_model.save(module, str(folder / "Format-Serving"), signatures={"serving_default": module.serve})
    return folder


def example(key: str, red: np.ndarray, mask: np.ndarray) -> bytes:
    """A test image whose only colour is red."""
    image = np.stack([red, np.zeros_like(red), np.zeros_like(red)], axis=-1)
    encoded = {features.IMAGE: tf.io.encode_png(image), features.MASK: tf.io.encode_png(mask[:, :, None])}
    values = {name: [png.numpy()] for name, png in encoded.items()} | {features.KEY: [key.encode()]}
    feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=value)) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


RED = np.repeat(np.array([[255, 0]], np.uint8), 32, axis=1).repeat(48, axis=0)  # (48, 64): left red, right black
LEFT, ALL_ONE = RED // 255, np.ones_like(RED)
VOID = np.full_like(RED, features.IGNORE_LABEL)

#: Key -> label of the test images, all of them as `RED` is.
LABELS = {"good.png": LEFT, f"{EVIL}.png": ALL_ONE, "void.png": VOID, "corner.png": np.where(RED == 0, VOID, ALL_ONE)}

#: Key -> mean IoU and cells of the confusion matrix of the model that says red is class 1.
RESULTS: dict[str, tuple[float | None, list[list[int]]]] = {
    "good.png": (1.0, [[0, 0, 1536], [1, 1, 1536]]),
    f"{EVIL}.png": (0.25, [[1, 0, 1536], [1, 1, 1536]]),
    "void.png": (None, []),
    "corner.png": (1.0, [[1, 1, 1536]]),
}


def write_results(folder: Path, results: Mapping[str, tuple[float | None, list[list[int]]]], served: bool) -> None:
    """An evaluation's results for each image; the served model's, if there are any, are 0.125 each."""
    with gzip.open(folder / IMAGES_FILE, "wt", encoding="utf-8") as lines:
        for key, (score, cells) in results.items():
            ours = {"mean_iou": score, "confusion": cells}
            theirs = {"mean_iou": 0.125, "confusion": cells} if served else None
            record = {"key": key, "height": 48, "width": 64, "slices": [], "candidate": ours, "baseline": theirs}
            lines.write(json.dumps(record) + "\n")


def write_examples(folder: Path) -> Artifact:
    """The test split."""
    examples = placed(standard_artifacts.Examples(), folder)
    examples.split_names = json.dumps(["test"])
    (folder / "Split-test").mkdir()
    with tf.io.TFRecordWriter(str(folder / "Split-test" / "examples-00000.gz"), "GZIP") as writer:
        for key, label in LABELS.items():
            writer.write(example(key, RED, label))
    return examples


def write_statistics(folder: Path, splits: Mapping[str, Sequence[Mapping[str, float]]]) -> Artifact:
    """StatisticsGen's output: split -> columns of its images."""
    artifact = placed(standard_artifacts.ExampleStatistics(), folder)
    artifact.split_names = json.dumps(list(splits))
    for name, images in splits.items():
        (folder / f"Split-{name}").mkdir()
        made = statistics(pd.DataFrame(images), name)
        (folder / f"Split-{name}" / "FeatureStats.pb").write_bytes(made.SerializeToString())
    return artifact


def columns(height: int, void: float, sky: int, odd: int) -> dict[str, float]:
    """The scalar columns of one image."""
    pixels = {features.pixels_key(name): count for name, count in zip(NAMES, (sky, odd, 0), strict=True)}
    return {
        features.HEIGHT: height,
        features.WIDTH: 64,
        features.BRIGHTNESS: 0.25,
        features.CONTRAST: 0.125,
        features.VOID_FRACTION: void,
        **pixels,
    }


SPLITS = {
    "train": [columns(48, 0.5, 3, 1), columns(72, 0.25, 0, 0), columns(96, 0.0, 4, 0)],
    "test": [columns(48, 0.0, 0, 2)],
}


def write_artifacts(folder: Path, model: Path, served: bool = True) -> dict[str, StageRecord]:
    """What a run leaves that came to its end."""
    quarantine = placed(Quarantine(), folder / "quarantine")
    entry = {"path": "images/<i>odd</i>.png", "reason": "size mismatch: image 3x2, mask 2x3"}
    (folder / "quarantine" / f"{BAD_FILE}-00000-of-00001").write_text(json.dumps(entry) + "\n")
    model_run = placed(standard_artifacts.ModelRun(), folder / "model_run")
    history = [
        {"step": 450, "mean_iou": 0.5, "iou": [0.5, 0.5, None]},
        {"step": 900, "mean_iou": 0.25, "iou": [0.5, 0, None]},
    ]
    training = {"parameters": 5, "steps": 900, "history": history}
    (folder / "model_run" / "training.json").write_text(json.dumps(training))
    infra = placed(standard_artifacts.InfraBlessing(), folder / "infra")
    infra.set_int_custom_property(INFRA_BLESSED, 1)
    evaluation = placed(standard_artifacts.ModelEvaluation(), folder / "evaluation")
    write_results(folder / "evaluation", RESULTS, served)
    examples = {"examples": write_examples(folder / "examples"), "quarantine": quarantine}
    trained = {"model": placed(standard_artifacts.Model(), model), "model_run": model_run}
    records = [
        stage("ImageExampleGen", examples, 8.5, "cached"),
        stage("StatisticsGen", {"statistics": write_statistics(folder / "statistics", SPLITS)}),
        stage("Trainer", trained, 283.6),
        stage("SegmentationEvaluator", {"evaluation": evaluation}, 4.0),
        stage("InfraCheck", {"blessing": infra}, 0.13),
    ]
    return {record.name: record for record in records}
