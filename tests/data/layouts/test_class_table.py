"""The names of classes from the file beside the folders."""

from pathlib import Path

import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.class_table import class_table, color_table

NAMES = {0: "background", 1: "red car", 2: "green"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "background\nred car\ngreen\n"),
        ("labels.txt", "\ufeffbackground\r\n\r\nred car\r\ngreen"),
        ("labels.txt", "0 background\n1 red car\n2 green\n"),
        ("classes.txt", "0: background\n1: red car\n2: green\n"),
        ("classes.txt", "0,background\n1,red car\n2,green\n"),
        ("classes.txt", "0\tbackground\n1\tred car\n2\tgreen\n"),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, red car\n2, green\n"),
        ("_classes.csv", 'Pixel Value, Class\n0, "background"\n1, "red car"\n2, "green"\n'),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred car:200,30,60::\ngreen:20,160,220::\n",
        ),
        ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nred car,200,30,60\ngreen,20,160,220\n"),
    ],
)
def test_names_are_read_as_tools_and_people_write_them(tmp_path: Path, files, write_text, name: str, text: str) -> None:
    write_text(name, text)
    assert class_table(str(tmp_path), files) == NAMES


def test_without_a_file_there_are_no_names(tmp_path: Path, files, write_text) -> None:
    write_text("readme.txt", "notes")
    assert class_table(str(tmp_path), files) is None
    assert color_table(str(tmp_path), files) is None


def test_values_may_begin_anywhere(tmp_path: Path, files, write_text) -> None:
    write_text("classes.txt", "7 road\n255 void\n")
    assert class_table(str(tmp_path), files) == {7: "road", 255: "void"}


def test_names_may_begin_with_digits(tmp_path: Path, files, write_text) -> None:
    write_text("classes.txt", "background\n4wd\n")
    assert class_table(str(tmp_path), files) == {0: "background", 1: "4wd"}


def test_a_list_of_colours_gives_them(tmp_path: Path, files, write_text) -> None:
    write_text("labelmap.txt", "background:0,0,0::\nred car:200,30,60::\n")
    assert color_table(str(tmp_path), files) == {(0, 0, 0): "background", (200, 30, 60): "red car"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 a\n1 b\nc\n", r"malformed class list: .*classes\.txt:3: 'c'; the lines before have a value and a name"),
        ("a\nb\na\n", "a value or a name occurs twice"),
        ("0 a\n0 b\n", "a value or a name occurs twice"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(tmp_path: Path, files, write_text, text: str, reason: str) -> None:
    write_text("classes.txt", text)
    with pytest.raises(DataError, match=reason):
        class_table(str(tmp_path), files)


@pytest.mark.parametrize("text", ["a:0,0,0\nb:0,0,0\n", "a:0,0,0\na:0,0,1\n", "a:0,0,256\n"])
def test_colours_that_contradict_each_other_are_refused(tmp_path: Path, files, write_text, text: str) -> None:
    write_text("labelmap.txt", text)
    with pytest.raises(DataError, match="malformed class list"):
        color_table(str(tmp_path), files)


def test_the_folder_layout_takes_the_names(tmp_path: Path, files, write_text, write_image) -> None:
    write_image("images/a.jpg")
    write_image("masks/a.png")
    layout = open_layout("folder", str(tmp_path), files)
    assert layout.label_map() is None
    write_text("classes.txt", "0 ground\n1 tree\n255 void\n")
    labels = layout.label_map()
    assert labels is not None and labels.names == ("ground", "tree") and labels.ignore_values == (255,)
    write_text("classes.txt", "ground:0,0,0\ntree:0,200,0\n")
    labels = layout.label_map()
    assert labels is not None
    assert [(label.values, label.colors) for label in labels.classes] == [((0,), ((0, 0, 0),)), ((1,), ((0, 200, 0),))]
