"""The configuration of a dataset."""

import pytest
from pydantic import ValidationError

from data.dataset import DataConfig, resolve_label_map, source_of
from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from data.layouts import LAYOUTS
from data.layouts.base import Sample

OWN = LabelMap(classes=(ClassLabel(name="cell", values=(1,)),))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"layout": "vox"}, "unknown layout 'vox'; allowed: auto, voc, camvid"),
        ({"group_pattern": "(a"}, r"'\(a' is not a regular expression"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "their sum must be below 1"),
        ({"test_fraction": 0.6}, "less than or equal to 0.5"),
        ({"max_bad_fraction": -0.1}, "greater than or equal to 0"),
        ({"max_pixels": 10**9}, "less than or equal to 178956970"),
        ({"path": ""}, "at least 1 character"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(fields, text):
    with pytest.raises(ValidationError, match=text):
        DataConfig.model_validate({"path": "d", **fields})


def test_the_label_map_of_the_configuration_goes_before_the_layouts_own(files):
    for name in ("folder", "camvid"):
        assert resolve_label_map(DataConfig(path="root", label_map=OWN), LAYOUTS[name]("root", files)) == OWN


def test_the_layouts_own_label_map_is_taken_where_none_is_configured(files):
    camvid = LAYOUTS["camvid"]("root", files)
    assert resolve_label_map(DataConfig(path="root"), camvid).num_classes == 11


def test_no_label_map_is_ever_guessed(files):
    with pytest.raises(DataError, match=r"label map missing: the folder layout of root .*local_runner.py inspect root"):
        resolve_label_map(DataConfig(path="root"), LAYOUTS["folder"]("root", files))


def test_it_survives_json():
    config = DataConfig(path="d", label_map=OWN, group_pattern="^(..)")
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("pattern", "source"),
    [
        (None, "layout"),
        (r"([a-z]+)_\d+", "dusk"),
        (r"[a-z]+_", "dusk_"),
        (r"(night)_", "layout"),
        (r"(x*)\d", "layout"),
    ],
)
def test_the_source_is_the_first_group_of_the_pattern_or_else_the_layouts(pattern: str | None, source: str) -> None:
    sample = Sample(key="images/dusk_00012.jpg", image="", mask=None, source="layout")
    assert source_of(DataConfig(path="x", source_pattern=pattern), sample) == source
