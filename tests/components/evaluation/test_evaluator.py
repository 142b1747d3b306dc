"""The Evaluator's scores equal those computed from the served masks, and its verdict follows from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.testing.util import assert_that
from sklearn import metrics as sklearn_metrics
from tensorflow_model_analysis.utils import model_util
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components.artifacts import COPIED_VERSION, PRESENT
from components.config import ClassThreshold, EvaluationConfig, SliceThreshold, ValidationConfig
from components.evaluation import evaluator
from components.evaluation.evaluator import SegmentationEvaluator, examples_by_name, split_off_large_images
from components.evaluation.metrics import CountsCombiner
from components.evaluation.results import ImageResult, Scores, read_images, read_scores
from components.evaluation.verdict import Verdict, read_verdict
from components.validation.schema import DataSchema
from data.errors import WorkspaceError
from data.features import HEIGHT, IGNORE_LABEL, IMAGE, KEY, MASK, SOURCE, WIDTH
from data.labels import LabelMap
from models.export.saved_model import EVALUATE_SIGNATURE, EXAMPLES
from models.export.segmenter import Segmenter
from models.metrics import confusion as metrics
from models.metrics.counts import CONFUSION
from models.metrics.scores import SliceScores
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
def test_split(examples: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A test split from two sources, of one and of three images."""
    records = []
    for number, record in enumerate(read_split(examples, "test")):
        mask = tf.io.decode_png(columns(record)[MASK]).numpy()
        mask[mask == NOWHERE] = IGNORE_LABEL
        source = b"zoo" if number else b"park"
        records.append(changed(record, **{MASK: tf.io.encode_png(mask).numpy(), SOURCE: source}))
    return write_examples(tmp_path_factory.mktemp("test_split"), {"test": records})


@pytest.fixture(scope="module")
def background(make_model: MakeModel) -> Artifact:
    """A model that sees background everywhere: bad, but better than `rare`."""
    return make_model(constant=0)


@pytest.fixture(scope="module")
def rare(make_model: MakeModel) -> Artifact:
    """A model that sees the rarest class everywhere."""
    return make_model(constant=4)


@dataclass(frozen=True)
class Evaluated:
    """What the Evaluator left."""

    scores: Scores
    images: list[ImageResult]
    verdict: Verdict
    blessing: Artifact


def evaluate(
    test_split: Artifact,
    candidate: Artifact,
    served: Artifact | None,
    config: EvaluationConfig,
    labels: LabelMap,
    folder: Path,
) -> Evaluated:
    """Runs the Evaluator's executor."""
    if served is None:
        of = artifact(standard_artifacts.Model, folder / "absent")
        of.set_int_custom_property(PRESENT, 0)
    else:
        of = copy_model(served, folder / "served")
        of.set_int_custom_property(PRESENT, 1)
        of.set_int_custom_property(COPIED_VERSION, 5)
    schema = run_node(
        DataSchema(validation=ValidationConfig(), label_map=labels),
        folder,
    )["schema"]
    node = SegmentationEvaluator(channel(test_split), channel(candidate), channel(of), channel(schema), config, labels)
    outputs = run_node(node, folder)
    uri = outputs["evaluation"].uri
    found = Evaluated(read_scores(uri, labels.names), read_images(uri), read_verdict(uri), outputs["blessing"])
    assert bool(found.blessing.get_int_custom_property("blessed")) is found.verdict.blessed
    return found


def truth(test_split: Artifact, model: Artifact, source: str | None, classes: int) -> dict[str, Any]:
    """Scores by scikit-learn from the masks that `serving_default` answers."""
    segmenter = Segmenter(saved_model(model))
    label_parts, answer_parts = [], []
    for row in map(columns, read_split(test_split, "test")):
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
    by_class = {"labels": range(classes), "average": None, "zero_division": np.nan}
    recall = sklearn_metrics.recall_score(labels, answers, **by_class)
    return {
        "mean_iou": np.nanmean(ious),
        "pixel_accuracy": sklearn_metrics.accuracy_score(labels, answers),
        "mean_accuracy": np.nanmean(recall),
        "frequency_weighted_iou": np.nansum(shares * ious),
        "iou": ious,
        "dice": 2 * ious / (1 + ious),
        "precision": sklearn_metrics.precision_score(labels, answers, **by_class),
        "recall": recall,
        "confusion_matrix": sklearn_metrics.confusion_matrix(labels, answers, labels=range(classes)),
    }


def assert_equal(found: SliceScores, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        score = getattr(found, name)
        score = list(score.values()) if isinstance(score, dict) else score
        np.testing.assert_allclose(score, value, atol=1e-12, err_msg=name)


def confusion(images: list[ImageResult], classes: int, of: str, within: str | None = None) -> np.ndarray:
    """The sum of the images' matrices, of all or of those in a slice."""
    chosen = [getattr(image, of) for image in images if within is None or within in image.slices]
    return sum((score.confusion(classes) for score in chosen), np.zeros((classes, classes), np.int64))


def test_scores_of_candidate_and_served_model_equal_those_of_the_served_masks_in_each_slice(
    test_split: Artifact, model: Artifact, rare: Artifact, labels: LabelMap, tmp_path: Path
):
    first, classes = labels.names[0], labels.num_classes
    config = EvaluationConfig(
        max_drop=1.0,
        slice_by=(SOURCE, "size"),
        slices={f"has:{first}": SliceThreshold(), "source:beach": SliceThreshold()},
        classes={first: ClassThreshold(max_drop=1.0), labels.names[NOWHERE]: ClassThreshold()},
    )

    found = evaluate(test_split, model, rare, config, labels, tmp_path)

    sources = {(): None, ((SOURCE, "park"),): "park", ((SOURCE, "zoo"),): "zoo"}
    everywhere = [(("size", "<256"),), (("has", first),)]
    for scores, of in ((found.scores.candidate, model), (found.scores.baseline, rare)):
        assert set(scores) == {*sources, *everywhere}
        for key, source in sources.items():
            assert_equal(scores[key], truth(test_split, of, source, classes))
            assert list(scores[key].iou) == list(labels.names)
        assert all(scores[key].mean_iou == scores[()].mean_iou for key in everywhere), "all images are such"
        assert 0 <= scores[()].mean_boundary_iou < 1
        assert 0 <= scores[()].trimap_mean_iou < 1
        assert 0 < scores[()].calibration_error < 1
    assert np.isnan(found.scores.baseline[()].iou[labels.names[NOWHERE]]), "a class that is nowhere has no IoU"
    assert len({found.scores.candidate[key].mean_iou for key in sources}) == 3, "the slices differ"

    assert not found.verdict.blessed
    refused = [reason for reason in found.verdict.reasons if "cannot be evaluated" in reason]
    assert [reason.split(":")[0] for reason in refused] == [f"class {labels.names[NOWHERE]}", "slice source"]
    assert any(
        f"against served version 5 ({found.scores.baseline[()].iou[first]:.4f})" in r for r in found.verdict.reasons
    )

    keys = [columns(record)[KEY].decode() for record in read_split(test_split, "test")]
    assert [image.key for image in found.images] == sorted(keys)
    for of, scores in (("candidate", found.scores.candidate), ("baseline", found.scores.baseline)):
        for key in ((), ((SOURCE, "zoo"),)):
            within = "source:zoo" if key else None
            counted = confusion(found.images, classes, of, within)
            np.testing.assert_array_equal(counted, scores[key].confusion_matrix)
    for image in found.images:
        mask = image.candidate.confusion(classes)
        assert image.candidate.mean_iou == pytest.approx(metrics.mean_iou(mask))
        assert 0 < mask.sum() <= image.height * image.width
        assert set(image.slices) > {"size:<256", f"has:{first}"}
    intervals = found.verdict.intervals
    assert intervals is not None and intervals.change is not None
    assert intervals.candidate[0] <= found.scores.candidate[()].mean_iou <= intervals.candidate[1]


def test_an_equal_model_is_blessed_where_nothing_may_be_lost(
    test_split: Artifact, background: Artifact, labels: LabelMap, tmp_path: Path
):
    config = EvaluationConfig(
        allow_degenerate=True, max_drop=0.0, classes={labels.names[0]: ClassThreshold(max_drop=0.0)}
    )

    found = evaluate(test_split, background, background, config, labels, tmp_path)

    assert found.verdict.blessed
    assert found.scores.candidate[()].mean_iou == found.scores.baseline[()].mean_iou > 0
    assert found.verdict.intervals is not None and found.verdict.intervals.change == (0.0, 0.0)
    assert (Path(found.blessing.uri) / "BLESSED").exists()


@pytest.mark.long
def test_a_worse_model_is_refused(
    test_split: Artifact, background: Artifact, rare: Artifact, labels: LabelMap, tmp_path: Path
):
    found = evaluate(test_split, rare, background, EvaluationConfig(max_drop=0.0), labels, tmp_path)

    assert found.scores.candidate[()].mean_iou < found.scores.baseline[()].mean_iou
    assert not found.verdict.blessed
    assert (Path(found.blessing.uri) / "NOT_BLESSED").exists()


def test_large_images_are_evaluated_alone_and_count_as_before(
    test_split: Artifact, model: Artifact, labels: LabelMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = list(map(columns, read_split(test_split, "test")))
    sizes = [row[HEIGHT] * row[WIDTH] for row in rows]
    monkeypatch.setattr(evaluator, "LARGE_IMAGE_PIXELS", min(sizes))

    found = evaluate(test_split, model, None, EvaluationConfig(), labels, tmp_path)

    assert 0 < sum(size > min(sizes) for size in sizes) < len(sizes)
    assert [image.key for image in found.images] == sorted(row[KEY].decode() for row in rows)
    assert_equal(found.scores.candidate[()], truth(test_split, model, None, labels.num_classes))


def test_a_model_that_sees_one_class_everywhere_is_not_blessed(
    test_split: Artifact, background: Artifact, labels: LabelMap, tmp_path: Path
):
    found = evaluate(test_split, background, None, EvaluationConfig(), labels, tmp_path)

    assert not found.verdict.blessed
    assert f"the model predicts class {labels.names[0]} for all" in found.verdict.reasons[0]
    assert (Path(found.blessing.uri) / "NOT_BLESSED").exists()


def test_without_a_served_model_the_floors_alone_decide(
    test_split: Artifact, background: Artifact, labels: LabelMap, tmp_path: Path
):
    reached = truth(test_split, background, None, labels.num_classes)["mean_iou"]

    found = evaluate(test_split, background, None, EvaluationConfig(min_mean_iou=reached + 1e-6), labels, tmp_path)

    assert not found.verdict.blessed
    assert (Path(found.blessing.uri) / "NOT_BLESSED").exists()
    assert found.scores.baseline == {}
    assert found.scores.candidate[()].mean_iou == pytest.approx(reached)
    assert all(image.baseline is None for image in found.images)


@pytest.mark.long
def test_a_served_model_that_gives_the_confusion_matrix_alone_is_compared_by_that(
    test_split: Artifact, background: Artifact, labels: LabelMap, tmp_path: Path
):
    class Earlier(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tf.saved_model.load(saved_model(background))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="examples")])
        def evaluate(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return {CONFUSION: self.inner.signatures[EVALUATE_SIGNATURE](examples=examples)[CONFUSION]}

    earlier = artifact(standard_artifacts.Model, tmp_path / "earlier")
    module = Earlier()
    tf.saved_model.save(module, saved_model(earlier), signatures={EVALUATE_SIGNATURE: module.evaluate})

    found = evaluate(test_split, background, earlier, EvaluationConfig(allow_degenerate=True), labels, tmp_path)

    assert found.verdict.blessed
    assert found.scores.baseline[()].mean_iou == found.scores.candidate[()].mean_iou
    assert np.isnan(found.scores.baseline[()].mean_boundary_iou)


def test_images_that_are_not_there_are_an_error_that_names_the_file(tmp_path: Path):
    with pytest.raises(WorkspaceError, match=rf"{tmp_path}/per_image.jsonl.gz: no such file"):
        read_images(str(tmp_path))


def test_the_combiner_adds_counts_and_scores_the_sum():
    combiner = CountsCombiner(("a", "b", "c"), "mean_iou", "", "")
    one = tfma.metrics.StandardMetricInputs(prediction=np.array([3, 1, 0, 0, 0, 0, 0, 0, 0]))
    other = tfma.metrics.StandardMetricInputs(
        prediction={
            "confusion": np.array([0, 0, 0, 2, 4, 0, 0, 0, 0]),
            "boundary": np.array([1, 0, 0, 2, 1, 0, 1, 3, 0]),
        }
    )

    sums = [combiner.add_input(combiner.create_accumulator(), inputs) for inputs in (one, other)]
    output = {key.name: value for key, value in combiner.extract_output(combiner.merge_accumulators(sums)).items()}

    assert output["iou/a"] == 3 / 6 and output["iou/b"] == 4 / 7 and np.isnan(output["iou/c"])
    assert output["mean_iou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert output["pixel_accuracy"] == 7 / 10
    assert output["frequency_weighted_iou"] == pytest.approx(0.4 * 3 / 6 + 0.6 * 4 / 7)
    assert output["mean_boundary_iou"] == pytest.approx((1 / 2 + 0) / 2)
    assert np.isnan(output["calibration_error"])
    assert output["counts/confusion"].tolist() == [[3, 1, 0], [2, 4, 0], [0, 0, 0]]
    assert output["counts/boundary"].tolist() == [[1, 0, 0], [2, 1, 0], [1, 3, 0]]


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([9], [[9]]),
        ([9, 8], [[9], [8]]),
        ([1, 2, 9, 3, 4], [[1, 2], [9], [3, 4]]),
        ([9, 1, 8, 2], [[9], [1], [8], [2]]),
        ([1, 5, 2], [[1, 5, 2]]),
        ([], []),
    ],
)
def test_a_batch_is_cut_around_each_large_image(
    heights: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "LARGE_IMAGE_PIXELS", 50)
    sides = [pa.array([[side] for side in column], pa.list_(pa.int64())) for column in (heights, [10] * len(heights))]
    keys = pa.array([[f"{height}".encode()] for height in heights], pa.list_(pa.binary()))
    whole = pa.RecordBatch.from_arrays([*sides, keys], [HEIGHT, WIDTH, KEY])
    found = [part.to_pydict() for part in split_off_large_images(whole)]
    assert [[row[0] for row in part[HEIGHT]] for part in found] == expected
    assert [[int(row[0]) for row in part[KEY]] for part in found] == expected


def test_tfma_finds_the_examples_under_the_name_of_the_input() -> None:
    examples = [b"one", b"other"]
    extracts = {
        tfma.FEATURES_KEY: {KEY: np.array([b"a.jpg", b"b.jpg"])},
        tfma.INPUT_KEY: np.array(examples, dtype=object),
    }

    def check(found: list[tfma.Extracts]) -> None:
        (features,) = (element[tfma.FEATURES_KEY] for element in found)
        inputs = model_util.get_inputs(features, {EXAMPLES: tf.TensorSpec((None,), tf.string, name=EXAMPLES)})
        assert list(inputs) == [EXAMPLES]
        assert inputs[EXAMPLES].numpy().tolist() == examples
        assert list(features[KEY]) == [b"a.jpg", b"b.jpg"]

    with beam.Pipeline() as pipeline:
        assert_that(pipeline | beam.Create([extracts]) | examples_by_name().ptransform, check)
