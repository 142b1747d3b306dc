"""Sections read fields that were renamed by their former names, too."""

from collections.abc import Mapping
from typing import ClassVar

import pytest

from data.errors import ConfigError
from data.section import Section, current_path, with_current_names


class Inner(Section):
    depth: int = 0

    former_names: ClassVar[Mapping[str, str]] = {"deepness": "depth"}


class Outer(Section):
    inner: Inner = Inner()
    other: Inner | None = None
    counts: Mapping[str, int] = {}
    size: int = 0

    former_names: ClassVar[Mapping[str, str]] = {"extent": "size", "second": "other"}


def test_a_former_name_is_read_and_the_current_one_written() -> None:
    outer = Outer.model_validate({"extent": 3, "second": {"deepness": 4}})
    assert outer == Outer(size=3, other=Inner(depth=4))
    assert Outer.model_validate_json('{"extent": 3, "second": {"deepness": 4}}') == outer
    assert outer.model_dump() == {"inner": {"depth": 0}, "other": {"depth": 4}, "counts": {}, "size": 3}


def test_a_tree_gets_current_names_in_place_and_tells_which_it_got() -> None:
    tree, renamed = with_current_names(
        Outer, {"extent": "no number", "second": {"deepness": 4, "unknown": 5}, "counts": {"extent": 6}, "inner": None}
    )
    assert tree == {
        "size": "no number",
        "other": {"depth": 4, "unknown": 5},
        "counts": {"extent": 6},
        "inner": None,
    }
    assert renamed == {"extent": "size", "second": "other", "other.deepness": "other.depth"}


def test_both_names_together_are_refused() -> None:
    message = r"^inner\.deepness is the former name of inner\.depth, and both are given; remove inner\.deepness$"
    with pytest.raises(ConfigError, match=message):
        with_current_names(Outer, {"inner": {"deepness": 1, "depth": 1}})
    with pytest.raises(ConfigError, match="extent is the former name of size"):
        Outer.model_validate({"extent": 1, "size": 1})


@pytest.mark.parametrize(
    ("path", "current"),
    [
        ("extent", "size"),
        ("second.deepness", "other.depth"),
        ("other.deepness", "other.depth"),
        ("counts.extent", "counts.extent"),
        ("unknown.extent", "unknown.extent"),
        ("size", "size"),
    ],
)
def test_a_path_gets_current_names(path: str, current: str) -> None:
    assert current_path(Outer, path.split(".")) == tuple(current.split("."))
