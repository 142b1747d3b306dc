"""LiteRT models are held to the SavedModel on the test split, and pushed with it."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.types.artifact import Artifact

from components.artifacts import LiteModels
from components.config import LiteConfig
from components.ingest.sample_images import test_examples as first_test_examples
from components.targets import lite
from components.targets.accuracy_check import Pair, score
from components.targets.lite import LiteConverter, fixed_pairs, latency
from components.targets.lite_record import LiteRecord, read_lite_record
from data.labels import LabelMap
from models.export.lite import LiteSegmenter
from tests.components.conftest import artifact, channel, push, run_node

#: Keras' convert_to_numpy, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SETTINGS = LiteConfig(variants=("float16",), height=48, width=64, images=3, calibration_images=4, max_drop=1.0)


def make(model: Artifact, examples: Artifact, folder: Path, **settings: Any) -> Artifact:
    """Runs the component's executor."""
    node = LiteConverter(
        model=channel(model),
        examples=channel(examples),
        config=SETTINGS.model_copy(update=settings),
    )
    return run_node(node, folder / "out")["lite"]


@pytest.fixture(scope="module")
def made(model: Artifact, examples: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make(model, examples, tmp_path_factory.mktemp("lite"))


def test_every_variant_has_a_file_a_score_and_a_time(made: Artifact, model: Artifact, labels: LabelMap):
    record = read_lite_record(made.uri)

    assert [variant.variant for variant in record.models] == ["float16"]
    assert [entry.name for entry in record.classes] == list(labels.names)
    assert (record.images, record.height, record.width) == (3, 48, 64)
    for variant in record.models:
        assert variant.file is not None
        assert variant.size == Path(made.uri, variant.file).stat().st_size
        assert variant.milliseconds is not None and variant.milliseconds > 0
        assert variant.drop == pytest.approx(record.saved_model_mean_iou - variant.mean_iou)
        assert "keeps lite.max_drop=1" in variant.reason


def test_the_scores_are_those_of_the_files(made: Artifact, examples: Artifact, labels: LabelMap):
    record = read_lite_record(made.uri)
    pairs = fixed_pairs(first_test_examples(examples, 3), (48, 64))

    for variant in record.models:
        segmenter = LiteSegmenter(Path(made.uri, str(variant.file)).read_bytes())
        assert variant.mean_iou == pytest.approx(score(segmenter.predict, pairs, labels.num_classes))


def test_a_variant_that_drops_too_far_is_left_out_with_its_reason(
    model: Artifact, examples: Artifact, made: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    converted = Path(made.uri, "float16.tflite")
    with zipfile.ZipFile(converted) as archive:
        bare = converted.read_bytes()[: archive.infolist()[0].header_offset]
    monkeypatch.setattr(lite, "convert", lambda *arguments: bare)
    scores = [0.5, 0.489]  # of the SavedModel, then of the variant
    monkeypatch.setattr(lite, "score", lambda *arguments: scores.pop(0))

    left_out = make(model, examples, tmp_path, variants=("float16",), max_drop=0.01)

    (variant,) = read_lite_record(left_out.uri).models
    assert variant.file is None
    assert variant.reason == "mean IoU 0.4890, -0.0110, breaks lite.max_drop=0.01"
    assert not list(Path(left_out.uri).glob("*.tflite"))


def test_what_cannot_be_made_is_left_out_with_its_reason(
    model: Artifact, examples: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: Any) -> bytes:
        raise RuntimeError("no such operation\nand a long story")

    monkeypatch.setattr(lite, "convert", fail)

    (variant,) = read_lite_record(make(model, examples, tmp_path, variants=("dynamic",)).uri).models

    assert (variant.file, variant.reason) == (None, "cannot be made: no such operation")


def test_models_and_page_are_pushed_beside_the_saved_model(
    model: Artifact, examples: Artifact, made: Artifact, labels: LabelMap, tmp_path: Path
):
    version = push(model, examples, labels, tmp_path, lite=made)

    names = {path.name for path in (version / "assets.extra/lite").iterdir()}
    assert names == {"float16.tflite", "lite.json", "index.html", "page.js", "resize.js"}
    assert tf.saved_model.contains_saved_model(str(version))


def test_where_no_variant_is_kept_none_is_pushed(
    model: Artifact, examples: Artifact, made: Artifact, labels: LabelMap, tmp_path: Path
):
    refused = artifact(LiteModels, tmp_path / "refused")
    record = read_lite_record(made.uri)
    models = [variant.model_copy(update={"file": None}) for variant in record.models]
    Path(refused.uri, "lite.json").write_text(record.model_copy(update={"models": models}).model_dump_json())

    version = push(model, examples, labels, tmp_path, lite=refused)

    assert not (version / "assets.extra/lite").exists()


def test_the_score_counts_labelled_pixels_only():
    image = np.zeros((1, 4, 3), np.uint8)
    pair = Pair(image, np.array([[0, 1, 255, 255]], np.uint8))

    assert score(lambda _: np.array([[0, 1, 0, 1]], np.uint8), [pair], 2) == 1.0
    assert score(lambda _: np.array([[0, 0, 1, 1]], np.uint8), [pair], 2) == 0.25
    assert latency(lambda pixels: pixels, [pair]) < 1000


def test_a_record_without_a_score_is_read_again(tmp_path: Path):
    record = LiteRecord(height=1, width=1, classes=[], threads=1, saved_model_mean_iou=float("nan"))
    (tmp_path / "lite.json").write_text(record.model_dump_json())

    assert read_lite_record(str(tmp_path)).saved_model_mean_iou is None
