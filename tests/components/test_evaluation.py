"""The Evaluator's scores equal those computed from the served masks, and its verdict follows from them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from sklearn import metrics as sklearn_metrics
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components import baseline
from components.config import EvaluationConfig, ValidationConfig
from components.evaluation_metrics import ConfusionMatrixCombiner
from components.evaluation_results import Scores, SliceScores, read_scores
from components.evaluator import SegmentationEvaluator
from components.schema import DataSchema
from data.features import IGNORE_LABEL, IMAGE, MASK, SOURCE
from data.labels import LabelMap
from models.export import load_segmenter
from tests.components.conftest import (
    MakeModel,
    artifact,
    changed,
    channel,
    columns,
    copy_model,
    read_split,
    run_node,
    saved_model,
    write_examples,
)

#: The last class is made void in every label: with a model that never predicts it, it is nowhere.
NOWHERE = 5


@pytest.fixture(scope="module")
def judged(examples: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A test split from two sources, of one and of three images."""
    records = []
    for number, record in enumerate(read_split(examples, "test")):
        mask = tf.io.decode_png(columns(record)[MASK]).numpy()
        mask[mask == NOWHERE] = IGNORE_LABEL
        source = b"zoo" if number else b"park"
        records.append(changed(record, **{MASK: tf.io.encode_png(mask).numpy(), SOURCE: source}))
    return write_examples(tmp_path_factory.mktemp("judged"), {"test": records})


@pytest.fixture(scope="module")
def background(make_model: MakeModel) -> Artifact:
    """A model that sees background everywhere: bad, but better than `rare`."""
    return make_model(constant=0)


@pytest.fixture(scope="module")
def rare(make_model: MakeModel) -> Artifact:
    """A model that sees the rarest class everywhere."""
    return make_model(constant=4)


def evaluate(
    judged: Artifact,
    candidate: Artifact,
    served: Artifact | None,
    config: EvaluationConfig,
    labels: LabelMap,
    folder: Path,
) -> tuple[Scores, bool]:
    """Runs the Evaluator's executor: the scores that are read back, and whether it blessed the model."""
    if served is None:
        of = artifact(standard_artifacts.Model, folder / "absent")
        of.set_int_custom_property(baseline.PRESENT, 0)
    else:
        of = copy_model(served, folder / "served")
        of.set_int_custom_property(baseline.PRESENT, 1)
    schema = run_node(
        DataSchema(validation=ValidationConfig().model_dump_json(), label_map=labels.model_dump_json(), code_hash=""),
        folder,
    )["schema"]
    node = SegmentationEvaluator(
        channel(judged), channel(candidate), channel(of), channel(schema), config, labels, code_hash=""
    )
    outputs = run_node(node, folder)
    blessed = bool(outputs["blessing"].get_int_custom_property("blessed"))
    return read_scores(outputs["evaluation"].uri, labels.names), blessed


def truth(judged: Artifact, model: Artifact, source: str | None, classes: int) -> dict[str, float | list[float]]:
    """Scores by scikit-learn from the masks that `serving_default` answers."""
    segmenter = load_segmenter(saved_model(model))
    label_parts, answer_parts = [], []
    for row in map(columns, read_split(judged, "test")):
        if source in (None, row[SOURCE].decode()):
            label_parts.append(tf.io.decode_png(row[MASK]).numpy().ravel())
            ((mask, _),) = segmenter.predict([row[IMAGE]])
            answer_parts.append(mask.ravel())
    labels, answers = np.concatenate(label_parts), np.concatenate(answer_parts)
    labels, answers = labels[labels != IGNORE_LABEL], answers[labels != IGNORE_LABEL]
    ious = sklearn_metrics.jaccard_score(labels, answers, labels=range(classes), average=None, zero_division=0.0)
    nowhere = [not np.isin(i, labels) and not np.isin(i, answers) for i in range(classes)]
    ious = np.where(nowhere, np.nan, ious)
    shares = np.bincount(labels, minlength=classes) / labels.size
    return {
        "mean_iou": np.nanmean(ious),
        "pixel_accuracy": sklearn_metrics.accuracy_score(labels, answers),
        "frequency_weighted_iou": np.nansum(shares * ious),
        "iou": ious.tolist(),
        "confusion_matrix": sklearn_metrics.confusion_matrix(labels, answers, labels=range(classes)).tolist(),
    }


def assert_equal(found: SliceScores, expected: dict) -> None:
    assert found.mean_iou == pytest.approx(expected["mean_iou"], abs=1e-12)
    assert found.pixel_accuracy == pytest.approx(expected["pixel_accuracy"], abs=1e-12)
    assert found.frequency_weighted_iou == pytest.approx(expected["frequency_weighted_iou"], abs=1e-12)
    assert list(found.iou.values()) == pytest.approx(expected["iou"], abs=1e-12, nan_ok=True)
    assert found.confusion_matrix.tolist() == expected["confusion_matrix"]


def test_scores_of_candidate_and_baseline_equal_those_of_the_served_masks_in_each_slice(
    judged: Artifact, model: Artifact, rare: Artifact, labels: LabelMap, tmp_path: Path
):
    scores, _ = evaluate(judged, model, rare, EvaluationConfig(), labels, tmp_path)

    slices = {(): None, ((SOURCE, "park"),): "park", ((SOURCE, "zoo"),): "zoo"}
    for found, of in ((scores.candidate, model), (scores.baseline, rare)):
        assert set(found) == set(slices)
        for key, source in slices.items():
            assert_equal(found[key], truth(judged, of, source, labels.num_classes))
            assert list(found[key].iou) == list(labels.names)
    assert np.isnan(scores.baseline[()].iou[labels.names[NOWHERE]]), "a class that is nowhere has no IoU"
    assert len({scores.candidate[key].mean_iou for key in slices}) == 3, "the slices differ"


def test_an_equal_model_is_blessed_where_nothing_may_be_lost(
    judged: Artifact, background: Artifact, labels: LabelMap, tmp_path: Path
):
    scores, blessed = evaluate(judged, background, background, EvaluationConfig(max_drop=0.0), labels, tmp_path)

    assert blessed
    assert scores.candidate[()].mean_iou == scores.baseline[()].mean_iou > 0


def test_a_worse_model_is_refused(
    judged: Artifact, background: Artifact, rare: Artifact, labels: LabelMap, tmp_path: Path
):
    scores, blessed = evaluate(judged, rare, background, EvaluationConfig(max_drop=0.0), labels, tmp_path)

    assert scores.candidate[()].mean_iou < scores.baseline[()].mean_iou
    assert not blessed


def test_a_worse_model_is_blessed_within_the_drop_that_is_allowed(
    judged: Artifact, background: Artifact, rare: Artifact, labels: LabelMap, tmp_path: Path
):
    _, blessed = evaluate(judged, rare, background, EvaluationConfig(max_drop=0.5), labels, tmp_path)

    assert blessed


@pytest.mark.parametrize("above", [True, False])
def test_without_a_baseline_the_floor_alone_decides(
    judged: Artifact, background: Artifact, labels: LabelMap, tmp_path: Path, above: bool
):
    reached = truth(judged, background, None, labels.num_classes)["mean_iou"]
    config = EvaluationConfig(min_mean_iou=reached - 1e-6 if above else reached + 1e-6)

    scores, blessed = evaluate(judged, background, None, config, labels, tmp_path)

    assert blessed is above
    assert scores.baseline == {}
    assert scores.candidate[()].mean_iou == pytest.approx(reached)


def test_the_combiner_adds_matrices_and_scores_the_sum():
    combiner = ConfusionMatrixCombiner(("a", "b", "c"), "mean_iou", "", "")
    one = tfma.metrics.StandardMetricInputs(prediction=np.array([3, 1, 0, 0, 0, 0, 0, 0, 0]))
    other = tfma.metrics.StandardMetricInputs(prediction={"confusion": np.array([0, 0, 0, 2, 4, 0, 0, 0, 0])})

    sums = [combiner.add_input(combiner.create_accumulator(), inputs) for inputs in (one, other)]
    output = {key.name: value for key, value in combiner.extract_output(combiner.merge_accumulators(sums)).items()}

    assert output["iou/a"] == 3 / 6 and output["iou/b"] == 4 / 7 and np.isnan(output["iou/c"])
    assert output["mean_iou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert output["pixel_accuracy"] == 7 / 10
    assert output["frequency_weighted_iou"] == pytest.approx(0.4 * 3 / 6 + 0.6 * 4 / 7)
    assert output["confusion_matrix"].tolist() == [[3, 1, 0], [2, 4, 0], [0, 0, 0]]
