"""Configuration as text: what is written is what is read, within bounds."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.yaml_text import DEEPEST, LARGEST_TEXT, LONGEST_STRING, dump, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0100", 100),
        ("0o100", 64),
        ("0x1F", 31),
        ("-7", -7),
        ("2:30", "2:30"),
        ("2026-01-05", "2026-01-05"),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ('"true"', "true"),
        ("!!str 0100", "0100"),
        ("[no, 2:30, 0100]", ["no", "2:30", 100]),
        ("{no: 1, 1: 2, 0100: 3}", {"no": 1, "1": 2, "0100": 3}),
        ("{a: &x {b: 1}, c: *x}", {"a": {"b": 1}, "c": {"b": 1}}),
        (r'"\ud83d\ude00"', "😀"),
        ("NaN", "NaN"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    found = parse(text, "here")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "file.yaml, line 3: a stands here a second time, after line 1"),
        ("a:\n  b:\n    c: 1\n    c: 1\n", "file.yaml, line 4: a.b.c stands here a second time, after line 3"),
        ("l:\n- {x: 1,\n   x: 2}\n", "file.yaml, line 3: l.0.x stands here a second time, after line 2"),
        ('{"a": 1,\n "a": 2}', "file.yaml, line 2: a stands here a second time, after line 1"),
        ('1: x\n"1": y', "file.yaml, line 2: 1 stands here a second time, after line 1"),
        ("a: !!python/object/apply:os.system [ls]", "the tag tag:yaml.org,2002:python/object/apply:os.system is not"),
        ("a: !!bool yes", "a: yes is no bool"),
        ("a: !!binary aGk=", "the tag tag:yaml.org,2002:binary is not read"),
        ("? [1, 2]\n: 3", "a list or mapping stands where a key is due"),
        ("a: [", "cannot be read as YAML"),
        ("a: 1\n---\nb: 2", "file.yaml, line 2: cannot be read as YAML"),
        ("a: \x07", "cannot be read as YAML: unacceptable character #x0007"),
        ("a: 'x\u2028y'", r'holds U+2028, which not all readers take alike; write it as "\L"'),
        (r'"\ud800"', r"'\ud800' is not Unicode text"),
        ("9" * 5000, "(5000 characters) is no int"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text, "file.yaml")
    assert message in str(error.value)
    assert len(str(error.value)) < 600


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 100000 values, those that aliases repeat included"),
        ("a: &a [*a]", f"nested deeper than {DEEPEST} levels"),
        ("[" * 100_000, f"nested deeper than {DEEPEST} levels"),
        ("[" * 500 + "]" * 500, f"nested deeper than {DEEPEST} levels"),
        ('{"a":' * 100_000, f"nested deeper than {DEEPEST} levels"),
        ("\n".join("  " * level + "a:" for level in range(500)), f"nested deeper than {DEEPEST} levels"),
        ("a: " + "x" * LARGEST_TEXT, f"larger than {LARGEST_TEXT} bytes"),
        ("a: {b: " + "x" * 500_000 + "}", f"a.b: longer than {LONGEST_STRING} characters"),
        (json.dumps({"k" * 500_000: 1}), f"longer than {LONGEST_STRING} characters"),
    ],
    ids=["laughs", "circle", "unclosed", "lists", "json", "blocks", "size", "string", "key"],
)
def test_the_cost_of_a_text_is_bounded(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text, "file.yaml")
    assert message in str(error.value)
    assert len(str(error.value)) < 600


def test_nesting_up_to_the_bound_is_read() -> None:
    assert parse("[" * DEEPEST + "]" * DEEPEST, "here") == parse("- " * (DEEPEST - 1) + "[]", "here")


#: Text that some version of YAML takes for another value, and any other.
texts = st.sampled_from(
    [
        "no",
        "yes",
        "On",
        "null",
        "~",
        "",
        "0100",
        "0o17",
        "1e3",
        ".5",
        "2:30",
        "1_0",
        "2026-01-05",
        "=",
        "<<",
        "- a",
        "#",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def trees(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of lists and mappings of scalars."""
    scalars = scalars | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts
    return st.recursive(
        scalars,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3),
        max_leaves=8,
    )


@given(trees(st.floats(allow_nan=False)))
def test_what_is_written_reads_back_as_the_same_value(value: Any) -> None:
    assert parse(dump(value), "written") == value


@given(trees(st.floats(allow_nan=False, allow_infinity=False)))
def test_json_reads_back_as_the_same_value(value: Any) -> None:
    assert parse(json.dumps(value), "json") == value
    assert parse(json.dumps(value, ensure_ascii=False), "json") == value


@given(texts)
def test_text_that_is_written_is_text_for_readers_of_yaml_1_1_too(text: str) -> None:
    assert yaml.safe_load(dump([text])) == [text]
