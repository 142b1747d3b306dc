"""Degenerate data are named, and stop the run before training where training or evaluation would be pointless."""

import json
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
import pytest
import tensorflow_data_validation as tfdv
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components.config import EvaluationConfig, ValidationConfig
from components.validation.degenerate import DegenerateData, degenerate_data
from components.validation.schema import DataSchema
from components.validation.validator import StrictExampleValidator
from data import features
from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from tests.components.conftest import artifact, channel, run_node

NAMES = ("road", "car", "ghost")
GOOD = {"road": 60, "car": 30, "ghost": 10}


def split_of(*images: dict[str, int], void: float = 0.0) -> pd.DataFrame:
    """The scalar columns of images with so many pixels of each class."""
    constant = {features.HEIGHT: 16, features.WIDTH: 16, features.BRIGHTNESS: 0.5, features.CONTRAST: 0.25}
    rows = [
        {**{features.pixels_key(name): image.get(name, 0) for name in NAMES}, **constant, features.SOURCE: "all"}
        for image in images
    ]
    return pd.DataFrame(rows).assign(**{features.VOID_FRACTION: void})


def measured(folder: Path, **splits: pd.DataFrame) -> Artifact:
    """The statistics of three splits; good ones where none is given."""
    made = artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    frames = {name: splits.get(name, split_of(GOOD, GOOD)) for name in ("train", "val", "test")}
    made.split_names = json.dumps(list(frames))
    for name, frame in frames.items():
        (folder / f"statistics/Split-{name}").mkdir()
        proto = tfdv.generate_statistics_from_dataframe(frame, n_jobs=1)
        (folder / f"statistics/Split-{name}/FeatureStats.pb").write_bytes(proto.SerializeToString())
    return made


def found(folder: Path, evaluation: EvaluationConfig = EvaluationConfig(), **splits: pd.DataFrame) -> DegenerateData:  # noqa: B008
    return degenerate_data(measured(folder, **splits), evaluation)


def test_good_data_are_not_degenerate(tmp_path: Path):
    assert found(tmp_path).findings == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_with_one_class_alone_is_hopeless(split: str, tmp_path: Path):
    data = found(tmp_path, **{split: split_of({"road": 90}, {"road": 2000})})

    (finding,) = data.hopeless
    assert finding.startswith(f"split {split}: all 2,090 labelled pixels of its 2 images have the class 'road', so ")
    assert "check the masks and data.label_map" in finding


def test_a_val_split_with_one_class_alone_is_remarked(tmp_path: Path):
    data = found(tmp_path, val=split_of({"car": 7}))

    assert not data.hopeless
    assert "split val: all 7 labelled pixels of its 1 images have the class 'car'" in data.remarks[0]


@pytest.mark.parametrize(("void", "hopeless"), [(0.99, False), (0.9951, True)])
def test_a_split_that_is_nearly_all_void_is_hopeless(void: float, hopeless: bool, tmp_path: Path):
    data = found(tmp_path, val=split_of(GOOD, void=void))

    assert [finding.split(",")[0] for finding in data.findings] == hopeless * [
        "split val: the ignore label (void) covers 99.51% of an image on average"
    ]
    assert bool(data.hopeless) is hopeless


def test_a_class_that_train_lacks_is_remarked_and_so_is_one_that_is_nowhere(tmp_path: Path):
    lacks = split_of({"road": 60, "car": 30})

    (only_train,) = found(tmp_path / "a", train=lacks).findings
    (nowhere,) = found(tmp_path / "b", train=lacks, val=lacks, test=lacks).findings

    assert only_train.startswith("split train: no pixel has the class 'ghost', so no model can learn it")
    assert nowhere.startswith("no split has a pixel of the class 'ghost'")


def test_a_floor_that_a_constant_prediction_reaches_is_remarked(tmp_path: Path):
    """Of 100 pixels 98 are road and 2 are car: always predicting road has an IoU of 0.98 and 0, so a mean of 0.49."""
    test = split_of({"road": 98, "car": 2})

    reached = found(tmp_path / "a", EvaluationConfig(min_mean_iou=0.4), test=test)
    not_reached = found(tmp_path / "b", EvaluationConfig(min_mean_iou=0.5), test=test)

    (remark,) = reached.findings
    assert "predicting class 'road' everywhere reaches mean IoU 0.4900" in remark
    assert "evaluation.min_mean_iou=0.4 is not above that" in remark
    assert not not_reached.findings


def validate(evaluation: EvaluationConfig, folder: Path) -> None:
    """Runs the validator on a training split of road alone."""
    labels = LabelMap(classes=tuple(ClassLabel(name=name) for name in NAMES))
    schema = run_node(DataSchema(validation=ValidationConfig(), label_map=labels), folder)["schema"]
    statistics = measured(folder, train=split_of({"road": 90}))
    run_node(StrictExampleValidator(channel(statistics), channel(schema), evaluation), folder)


def test_degenerate_data_stop_the_run_with_what_to_do(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        validate(EvaluationConfig(), tmp_path)

    first, finding = str(caught.value).splitlines()
    assert first == "the data are degenerate; evaluation.allow_degenerate=true trains on them all the same:"
    assert finding.startswith("  split train: all 90 labelled pixels of its 1 images have the class 'road'")


def test_degenerate_data_may_be_allowed(tmp_path: Path):
    validate(EvaluationConfig(allow_degenerate=True), tmp_path)
