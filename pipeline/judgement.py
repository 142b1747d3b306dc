"""Fills in a run's summary from the artifacts that its stages left."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

from components import baseline, infra_check, pusher, tuner
from components.drift import read_drift
from components.evaluation_results import Scores, read_scores
from components.example_gen import read_counts
from components.search_space import chosen_values, with_values
from components.span_records import read_window
from components.trainer import RESULT_FILE
from pipeline.config import Config, config_hash
from pipeline.records import StageRecord
from pipeline.summary import (
    BaselineSummary,
    DataSummary,
    MetricsSummary,
    ModelSummary,
    Summary,
    TrialSummary,
    TuningSummary,
)


def summarize(run_id: str, config: Config, stages: Mapping[str, StageRecord], error: str) -> Summary:
    """Collects a run's summary from its artifacts; what the run did not come to stays None."""
    artifacts = {(stage.name, key): outputs[0] for stage in stages.values() for key, outputs in stage.outputs.items()}
    evaluation = artifacts.get(("SegmentationEvaluator", "evaluation"))
    scores = read_scores(evaluation.uri, config.labels.names) if evaluation else None
    served = artifacts.get(("ServedModel", "model"))
    baseline_summary = _baseline(served, scores)
    tuning = _tuning(artifacts.get(("Tuner", "best_hyperparameters")), artifacts.get(("Tuner", "tuner_results")))
    summary = Summary(
        run_id=run_id,
        status="failed" if error else "succeeded",
        error=error,
        config=config.model_dump(mode="json"),
        config_hash=config_hash(config),
        data=_data(artifacts),
        tuning=tuning,
        model=_model(artifacts.get(("Trainer", "model_run")), config, tuning),
        metrics=_metrics(scores) if scores else None,
        baseline=baseline_summary,
        timings={stage.name: round(stage.seconds, 3) for stage in stages.values()},
        cached=[stage.name for stage in stages.values() if stage.state == "cached"],
    )
    return summary.model_copy(update=_verdict(artifacts, summary, config))


def _data(artifacts: Mapping[tuple[str, str], Artifact]) -> DataSummary | None:
    quarantine = artifacts.get(("ImageExampleGen", "quarantine"))
    if quarantine is None:
        return None
    counts = read_counts(quarantine.uri)
    spans, drift = artifacts.get(("ImageExampleGen", "spans")), artifacts.get(("SpanDrift", "drift"))
    return DataSummary(
        images=counts["splits"],
        quarantined=sum(counts["bad"].values()),
        reasons=counts["bad"],
        spans=[span.number for span in read_window(spans.uri).window] if spans else [0],
        drift=read_drift(drift.uri).findings if drift else [],
    )


def _tuning(best: Artifact | None, results: Artifact | None) -> TuningSummary | None:
    if best is None or results is None:
        return None
    trials = [
        TrialSummary(mean_iou=trial["score"], values=chosen_values(trial))
        for trial in _read_json(results, tuner.TRIALS_FILE)
    ]
    return TuningSummary(best=chosen_values(_read_json(best, tuner.BEST_FILE)["values"]), trials=trials)


def _model(model_run: Artifact | None, config: Config, tuning: TuningSummary | None) -> ModelSummary | None:
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
    )


def _read_json(artifact: Artifact, name: str) -> Any:
    with fileio.open(os.path.join(artifact.uri, name)) as file:
        return json.loads(file.read())


def _metrics(scores: Scores) -> MetricsSummary:
    overall = scores.candidate[()]
    return MetricsSummary(
        mean_iou=overall.mean_iou,
        pixel_accuracy=overall.pixel_accuracy,
        frequency_weighted_iou=overall.frequency_weighted_iou,
        iou={name: _finite(value) for name, value in overall.iou.items()},
        slices={
            ", ".join(f"{column}:{value}" for column, value in key): _finite(values.mean_iou)
            for key, values in sorted(scores.candidate.items())
            if key
        },
        confusion_matrix=overall.confusion_matrix.astype(int).tolist(),
    )


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _baseline(served: Artifact | None, scores: Scores | None) -> BaselineSummary | None:
    if served is None or scores is None or not scores.baseline:
        return None
    return BaselineSummary(
        version=served.get_int_custom_property(baseline.VERSION), mean_iou=scores.baseline[()].mean_iou
    )


def _verdict(artifacts: Mapping[tuple[str, str], Artifact], summary: Summary, config: Config) -> dict[str, Any]:
    blessing = artifacts.get(("SegmentationEvaluator", "blessing"))
    infra = artifacts.get(("InfraCheck", "blessing"))
    pushed = artifacts.get(("ModelPusher", "pushed_model"))
    if blessing is None or summary.metrics is None:
        return {"reasons": [summary.error] if summary.error else []}
    reasons = _reasons(summary.metrics, summary.baseline, config)
    blessed = bool(blessing.get_int_custom_property("blessed"))
    if infra is not None:
        refusal = infra.get_string_custom_property(infra_check.REASON)
        reasons.append(f"infra check failed: {refusal}" if refusal else "a fresh process served it")
        blessed = blessed and not refusal
    verdict: dict[str, Any] = {"blessed": blessed}
    if pushed is not None and pushed.get_int_custom_property(pusher.PUSHED):
        verdict["pushed_path"] = pushed.get_string_custom_property(pusher.DESTINATION)
        verdict["pushed_version"] = int(pushed.get_string_custom_property(pusher.VERSION))
    elif pushed is not None:
        reasons.append("not pushed: " + pushed.get_string_custom_property(pusher.REASON))
    return {**verdict, "reasons": reasons}


def _reasons(metrics: MetricsSummary, served: BaselineSummary | None, config: Config) -> list[str]:
    floor, score = config.evaluation.min_mean_iou, metrics.mean_iou
    relation = "reaches" if score >= floor else "is below"
    reasons = [f"mean IoU {score:.4f} {relation} evaluation.min_mean_iou={floor:g}"]
    if served is None:
        reasons.append("no comparable model is served: judged by the floor alone")
        return reasons
    change = score - served.mean_iou
    relation = "keeps" if change >= -config.evaluation.max_drop else "breaks"
    reasons.append(
        f"{change:+.4f} against served version {served.version} ({served.mean_iou:.4f}) {relation} "
        f"evaluation.max_drop={config.evaluation.max_drop:g}"
    )
    return reasons
