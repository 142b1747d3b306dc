"""Fills in a run's summary from the artifacts that its stages left."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

from components.artifacts import COPIED_VERSION, PUSHED, PUSHED_DESTINATION, PUSHED_VERSION, REASON
from components.evaluation.per_image import slice_name
from components.evaluation.results import Scores, SliceKey, read_scores
from components.evaluation.verdict import Verdict, read_verdict
from components.ingest.quarantine import read_counts
from components.publishing.served_model import is_present
from components.spans.drift import read_drift
from components.spans.records import read_window
from components.targets.hub_record import read_hub_record
from components.targets.lite_record import read_lite_record
from components.training import tuner
from components.training.search_space import chosen_values, with_values
from components.training.trainer import RESULT_FILE
from components.validation.degenerate import degenerate_data
from models.metrics.confusion import constant_prediction
from models.metrics.scores import SliceScores
from pipeline.config import Config, config_hash
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
from pipeline.stages import Stage


def summarize(run_id: str, config: Config, stages: Mapping[str, StageRecord], error: str) -> RunSummary:
    """Collects a run's summary from its artifacts; the fields of stages that did not run stay None."""
    artifacts = {(stage.name, key): outputs[0] for stage in stages.values() for key, outputs in stage.outputs.items()}
    lite, hub = artifacts.get((Stage.LITE, "lite")), artifacts.get((Stage.HUB, "hub"))
    tuning = _tuning(
        artifacts.get((Stage.TUNER, "best_hyperparameters")), artifacts.get((Stage.TUNER, "tuner_results"))
    )
    summary = RunSummary(
        run_id=run_id,
        status="failed" if error else "succeeded",
        error=error,
        config=config.model_dump(mode="json"),
        config_hash=config_hash(config),
        data=_data(artifacts, config),
        tuning=tuning,
        model=_model(artifacts, config, tuning),
        lite=read_lite_record(lite.uri) if lite else None,
        hub=read_hub_record(hub.uri) if hub else None,
        timings={stage.name: round(stage.seconds, 3) for stage in stages.values()},
        cached=[stage.name for stage in stages.values() if stage.state == "cached"],
    )
    evaluation = artifacts.get((Stage.EVALUATOR, "evaluation"))
    if evaluation is None:
        return summary.model_copy(update={"reasons": [error] if error else []})
    scores, verdict = read_scores(evaluation.uri, config.labels.names), read_verdict(evaluation.uri)
    return summary.model_copy(
        update={
            "metrics": _metrics(scores, verdict),
            "baseline": _baseline(artifacts.get((Stage.SERVED_MODEL, "model")), scores, verdict),
            **_outcome(artifacts, verdict),
        }
    )


def _data(artifacts: Mapping[tuple[str, str], Artifact], config: Config) -> DataSummary | None:
    quarantine = artifacts.get((Stage.EXAMPLE_GEN, "quarantine"))
    if quarantine is None:
        return None
    counts = read_counts(quarantine.uri)
    spans, drift = artifacts.get((Stage.EXAMPLE_GEN, "spans")), artifacts.get((Stage.DRIFT, "drift"))
    window = read_window(spans.uri) if spans else None
    statistics = artifacts.get((Stage.STATISTICS, "statistics"))
    return DataSummary(
        images=counts["splits"],
        quarantined=sum(counts["bad"].values()),
        reasons=counts["bad"],
        spans=[span.number for span in window.window] if window else [0],
        replayed=window.replayed if window else {},
        drift=read_drift(drift.uri).findings if drift else [],
        degenerate=degenerate_data(statistics, config.evaluation).findings if statistics else [],
    )


def _tuning(best: Artifact | None, results: Artifact | None) -> TuningSummary | None:
    if best is None or results is None:
        return None
    trials = [
        TrialSummary(mean_iou=trial["score"], values=chosen_values(trial))
        for trial in _read_json(results, tuner.TRIALS_FILE)
    ]
    return TuningSummary(best=chosen_values(_read_json(best, tuner.BEST_FILE)["values"]), trials=trials)


def _model(
    artifacts: Mapping[tuple[str, str], Artifact], config: Config, tuning: TuningSummary | None
) -> ModelSummary | None:
    model_run, start = artifacts.get((Stage.TRAINER, "model_run")), artifacts.get((Stage.WARM_START, "model"))
    if model_run is None:
        return None
    if tuning is not None:
        config = Config.model_validate(with_values(config.model_dump(mode="json"), tuning.best))
    result = _read_json(model_run, RESULT_FILE)
    return ModelSummary(
        backbone=config.model.backbone,
        output_stride=config.model.output_stride,
        params=result["parameters"],
        steps=result["steps"],
        planned_steps=result["planned_steps"],
        started_from=start.get_int_custom_property(COPIED_VERSION) if start and is_present(start) else None,
    )


def _read_json(artifact: Artifact, name: str) -> Any:
    with fileio.open(os.path.join(artifact.uri, name)) as file:
        return json.loads(file.read())


def _metrics(scores: Scores, verdict: Verdict) -> MetricsSummary:
    overall = scores.candidate[()]
    commonest, constant = constant_prediction(overall.confusion_matrix.sum(axis=1))
    return MetricsSummary(
        mean_iou=overall.mean_iou,
        pixel_accuracy=overall.pixel_accuracy,
        frequency_weighted_iou=overall.frequency_weighted_iou,
        iou={name: _finite(value) for name, value in overall.iou.items()},
        slices={slice_name(key): _finite(values.mean_iou) for key, values in sorted(scores.candidate.items()) if key},
        confusion_matrix=overall.confusion_matrix.astype(int).tolist(),
        mean_iou_interval=verdict.intervals.candidate if verdict.intervals else None,
        scores=_scores(overall),
        slice_scores=_slice_scores(scores.candidate),
        constant_class=list(overall.iou)[commonest],
        constant_mean_iou=_finite(constant),
    )


def _slice_scores(scores: Mapping[SliceKey, SliceScores]) -> dict[str, ScoreSummary]:
    return {slice_name(key): _scores(values) for key, values in sorted(scores.items()) if key}


def _scores(scores: SliceScores) -> ScoreSummary:
    numbers = {name: getattr(scores, name) for name in ScoreSummary.model_fields if name != "classes"}
    by_class = {name: getattr(scores, name) for name in ClassScores.model_fields}
    return ScoreSummary(
        **{name: _finite(value) for name, value in numbers.items()},
        classes={
            name: ClassScores(**{score: _finite(values[name]) for score, values in by_class.items()})
            for name in scores.iou
        },
    )


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _baseline(served: Artifact | None, scores: Scores, verdict: Verdict) -> BaselineSummary | None:
    if served is None or not scores.baseline:
        return None
    return BaselineSummary(
        version=served.get_int_custom_property(COPIED_VERSION),
        mean_iou=scores.baseline[()].mean_iou,
        mean_iou_interval=verdict.intervals.baseline if verdict.intervals else None,
        change_interval=verdict.intervals.change if verdict.intervals else None,
        scores=_scores(scores.baseline[()]),
        slice_scores=_slice_scores(scores.baseline),
    )


def _outcome(artifacts: Mapping[tuple[str, str], Artifact], verdict: Verdict) -> dict[str, Any]:
    """Whether the model was blessed and pushed, and why."""
    infra = artifacts.get((Stage.INFRA_CHECK, "blessing"))
    pushed = artifacts.get((Stage.PUSHER, "pushed_model"))
    reasons, blessed = list(verdict.reasons), verdict.blessed
    if infra is not None:
        refusal = infra.get_string_custom_property(REASON)
        reasons.append(f"infra check failed: {refusal}" if refusal else "a fresh process served it")
        blessed = blessed and not refusal
    outcome: dict[str, Any] = {"blessed": blessed}
    if pushed is not None and pushed.get_int_custom_property(PUSHED):
        outcome["pushed_path"] = pushed.get_string_custom_property(PUSHED_DESTINATION)
        outcome["pushed_version"] = int(pushed.get_string_custom_property(PUSHED_VERSION))
    elif pushed is not None:
        reasons.append("not pushed: " + pushed.get_string_custom_property(REASON))
    return {**outcome, "reasons": reasons}
