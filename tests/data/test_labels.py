"""Label maps."""

import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.labels import ClassLabel, LabelMap, label_map_of


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"classes": [{"name": "a"}, {"name": "a"}]}, "class name 'a'"),
        ({"classes": [{"name": "a", "values": [1]}], "ignore_values": [1]}, "label value 1"),
        ({"classes": [{"name": "a", "colors": [(1, 2, 3), (1, 2, 3)]}]}, r"colour \(1, 2, 3\)"),
    ],
)
def test_nothing_may_stand_twice(fields, what):
    with pytest.raises(ValidationError, match=f"{what} occurs 2 times in the label map; each may occur once"):
        LabelMap.model_validate(fields)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "at least 1 character"),
        (" \t", "is blank"),
        ("road\nsky", "holds a control character or a line break"),
        ("road\r", "holds a control character or a line break"),
        ("road\u2028sky", "holds a control character or a line break"),
        ("road\x7f", "holds a control character or a line break"),
    ],
)
def test_a_name_is_a_line_of_text(name, fault):
    with pytest.raises(ValidationError, match=fault):
        ClassLabel(name=name)
    with pytest.raises(DataError, match=f"invalid label map: classes.json: .*{fault}"):
        label_map_of("classes.json", [("sky", (0,)), (name, (1,))])


@pytest.mark.parametrize("name", ["traffic light", "\u06af\u0644\u200c\u0647\u0627", "Straße", "道路", 'tree & "bush"'])
def test_names_of_all_scripts_are_allowed(name):
    assert ClassLabel(name=name).name == name


def test_classes_keep_their_order():
    label_map = label_map_of("labels.txt", [("sky", (7, 8)), ("road", (3,))], (255,))
    assert label_map.names == ("sky", "road")
    assert label_map.classes[0] == ClassLabel(name="sky", values=(7, 8))
    assert label_map.ignore_values == (255,)
    assert label_map.num_classes == 2


def test_a_dataset_with_an_invalid_label_map_is_named():
    with pytest.raises(DataError, match=r"invalid label map: labels.txt: .*class name 'a' occurs 2 times"):
        label_map_of("labels.txt", [("a", (0,)), ("a", (1,))])


def test_at_most_255_classes_fit_beside_the_ignore_label():
    assert label_map_of("x", [(str(i), ()) for i in range(255)]).num_classes == 255
    with pytest.raises(DataError, match="at most 255"):
        label_map_of("x", [(str(i), ()) for i in range(256)])
