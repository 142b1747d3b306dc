"""Which folders are spans, and which of them a run takes."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.dataset import DataConfig, example_folder
from data.errors import DataError, IncompleteDataError
from data.files import LocalFiles
from data.spans import INCOMPLETE, Span, SpansConfig, has_pattern, parse_pattern, select, span_number


def make(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def fill(span: Path) -> None:
    """Puts something into a span that may be an image."""
    (span / "a.png").touch()


def names(root: Path, pattern: str, **settings: object) -> tuple[list[str], list[str]]:
    """The names of the window's and the reference's spans."""
    chosen = select(parse_pattern(f"{root}/{pattern}"), SpansConfig.model_validate(settings), LocalFiles())
    return [span.name for span in chosen.window], [span.name for span in chosen.reference]


@pytest.mark.parametrize(
    ("path", "root", "parts"),
    [
        ("/data/span-{SPAN}", "/data", ("span-{SPAN}",)),
        ("/data/span-{SPAN}/v{VERSION}/", "/data", ("span-{SPAN}", "v{VERSION}")),
        ("/data/{SPAN}/labelled", "/data", ("{SPAN}", "labelled")),
        ("span-{SPAN}", ".", ("span-{SPAN}",)),
        ("/{SPAN}", "/", ("{SPAN}",)),
        ("s3://b/{YYYY}-{MM}-{DD}", "s3://b", ("{YYYY}-{MM}-{DD}",)),
        ("gs://b/c/{YYYY}/{MM}/{DD}", "gs://b/c", ("{YYYY}", "{MM}", "{DD}")),
    ],
)
def test_a_pattern_is_taken_apart(path: str, root: str, parts: tuple[str, ...]):
    pattern = parse_pattern(path)
    assert has_pattern(path)
    assert (pattern.root, pattern.parts) == (root, parts)


@pytest.mark.parametrize("path", ["/data/span-1", "/data/{span}", "/data/{SPAN:2}", "s3://b/{}"])
def test_other_braces_are_part_of_a_name(path: str):
    assert not has_pattern(path)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/d/{VERSION}", r"has \{VERSION\}; a pattern has either \{SPAN\} or all of \{YYYY\}, \{MM\}, \{DD\}"),
        ("/d/{YYYY}-{MM}", "all of"),
        ("/d/{SPAN}-{YYYY}-{MM}-{DD}", "either"),
        ("/d/{SPAN}/{SPAN}", "each placeholder may occur once"),
        ("/d/{SPAN}/{DAY}", r"unknown placeholder \{DAY\}; allowed: \{SPAN\}"),
        ("s3://b-{SPAN}/d", "the bucket's name may have no placeholder"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_refused_by_the_configuration(path: str, text: str):
    with pytest.raises(ValidationError, match=text):
        DataConfig(path=path)


def test_spans_are_in_the_order_of_their_numbers_whatever_the_padding_and_the_gaps(tmp_path: Path):
    make(tmp_path, "span-9", "span-010", "span-2", "span-x", "old-span-3", "span-4.bak")
    (tmp_path / "notes.txt").touch()

    spans = parse_pattern(f"{tmp_path}/span-{{SPAN}}").list(LocalFiles())

    assert spans == [
        Span(number, 0, name, str(tmp_path / name)) for number, name in ((2, "span-2"), (9, "span-9"), (10, "span-010"))
    ]


def test_the_highest_version_of_each_span_counts(tmp_path: Path):
    make(tmp_path, "span-1/v1", "span-1/v2", "span-1/v10", "span-2/v3", "span-3")

    spans = parse_pattern(f"{tmp_path}/span-{{SPAN}}/v{{VERSION}}").list(LocalFiles())

    assert [(span.number, span.version, span.name) for span in spans] == [(1, 10, "span-1/v10"), (2, 3, "span-2/v3")]


def test_dates_become_days_since_1970(tmp_path: Path):
    make(tmp_path, "1970-01-02", "2026-02-28", "2026-03-01")

    spans = parse_pattern(f"{tmp_path}/{{YYYY}}-{{MM}}-{{DD}}").list(LocalFiles())

    assert [span.number for span in spans] == [1, 20512, 20513]


def test_fixed_folders_below_a_span_are_followed(tmp_path: Path):
    make(tmp_path, "1/labelled/v2", "2/raw/v1")

    (span,) = parse_pattern(f"{tmp_path}/{{SPAN}}/labelled/v{{VERSION}}").list(LocalFiles())

    assert (span.name, span.folder) == ("1/labelled/v2", str(tmp_path / "1/labelled/v2"))


@pytest.mark.parametrize(
    ("folders", "pattern", "text"),
    [
        ([], "absent/{SPAN}", "no folder .*/absent, in which the spans of data.path="),
        (["other"], "span-{SPAN}", r"no span: nothing in .* has a name like span-\{SPAN\}"),
        (["span-3", "span-03"], "span-{SPAN}", "ambiguous span: .*span-03 and .*span-3 are both span 3; remove one"),
        (["1/v1", "1/v01"], "{SPAN}/v{VERSION}", "are both span 1, version 1"),
        (["2026-02-30"], "{YYYY}-{MM}-{DD}", "no date: .*2026-02-30"),
        (["s1", f"s{2**63}"], "s{SPAN}", f"number too large: .*s{2**63}; spans .* up to {2**63 - 1}; rename it"),
        ([f"1/v{'9' * 20}"], "{SPAN}/v{VERSION}", "number too large: .*1/v99999999999999999999"),
    ],
)
def test_what_is_wrong_with_the_folders_is_named(tmp_path: Path, folders: list[str], pattern: str, text: str):
    make(tmp_path, *folders)

    with pytest.raises(DataError, match=text):
        names(tmp_path, pattern)


@pytest.mark.parametrize(
    ("settings", "window", "reference"),
    [
        ({}, [5], [4]),
        ({"window": 2}, [4, 5], []),
        ({"window": 2, "reference": 3}, [4, 5], [1, 2]),
        ({"window": "all"}, [1, 2, 4, 5], []),
        ({"window": 9}, [1, 2, 4, 5], []),
        ({"span": 4, "reference": 0}, [4], []),
        ({"span": 2, "window": 2}, [1, 2], []),
        ({"span": 1}, [1], []),
    ],
)
def test_the_window_ends_with_the_newest_span(tmp_path: Path, settings: dict, window: list[int], reference: list[int]):
    make(tmp_path, "s1", "s2", "s4", "s5")

    assert names(tmp_path, "s{SPAN}", **settings) == ([f"s{n}" for n in window], [f"s{n}" for n in reference])


def test_a_newest_span_that_is_not_there_is_refused_with_what_is(tmp_path: Path):
    make(tmp_path, *(f"s{n}" for n in range(12)))

    with pytest.raises(DataError, match=r"no span 20 .*there are 12, the newest ones s2, .*, s11"):
        names(tmp_path, "s{SPAN}", span=20)


def test_a_dated_span_is_chosen_by_its_date(tmp_path: Path):
    make(tmp_path, "2026-01-01", "2026-01-02", "2026-01-03")

    assert names(tmp_path, "{YYYY}-{MM}-{DD}", span="2026-01-02") == (["2026-01-02"], ["2026-01-01"])


def test_a_span_that_is_being_copied_stops_the_run_or_is_left_out(tmp_path: Path):
    for name in ("s1", "s2", "s3"):
        fill(make(tmp_path, name) / name)
    (tmp_path / "s3" / INCOMPLETE).touch()

    with pytest.raises(IncompleteDataError, match="span s3 is still being copied: .*s3 holds .incomplete"):
        names(tmp_path, "s{SPAN}")
    assert names(tmp_path, "s{SPAN}", on_incomplete="skip") == (["s2"], ["s1"])
    for name in ("s1", "s2"):
        (tmp_path / name / INCOMPLETE).touch()
    with pytest.raises(IncompleteDataError, match="every span"):
        names(tmp_path, "s{SPAN}", on_incomplete="skip")


def test_older_spans_take_the_places_of_empty_ones_that_are_skipped(tmp_path: Path):
    make(tmp_path, "s1", "s2", "s3", "s4", "s5")
    for name in ("s1", "s2", "s4"):
        fill(tmp_path / name)
    (tmp_path / "s5/labels.txt").touch()
    (tmp_path / "s5/.hidden").touch()

    assert names(tmp_path, "s{SPAN}", on_incomplete="skip") == (["s4"], ["s2"])
    assert names(tmp_path, "s{SPAN}", on_incomplete="skip", window=2) == (["s2", "s4"], [])
    assert names(tmp_path, "s{SPAN}", on_incomplete="skip", window="all") == (["s1", "s2", "s4"], [])
    config = SpansConfig(on_incomplete="skip")
    chosen = select(parse_pattern(f"{tmp_path}/s{{SPAN}}"), config, LocalFiles())
    assert chosen.left_out == dict.fromkeys(("s5", "s3"), "empty: it contains no image")


def test_nothing_but_empty_spans_is_no_passing_state(tmp_path: Path):
    make(tmp_path, "s1", "s2")

    with pytest.raises(DataError, match="every span in .* is empty or still being copied:\n  s2: empty") as told:
        names(tmp_path, "s{SPAN}", on_incomplete="skip")
    assert not told.value.transient


@pytest.mark.parametrize(
    ("folders", "pattern", "missed"),
    [
        (["span-1", "span-4.bak", "span-x", "old-span-3", "1"], "span-{SPAN}", []),
        (["span-1", "Span-2", "span_3", "span4", "span--5"], "span-{SPAN}", ["Span-2", "span--5", "span4", "span_3"]),
        (
            ["span-1/v1", "span-2", "span-3/V1", "span-1/V2"],
            "span-{SPAN}/v{VERSION}",
            ["span-1/V2", "span-2", "span-3"],
        ),
        (["2026-01-04", "2026-1-5", "20260106"], "{YYYY}-{MM}-{DD}", ["2026-1-5", "20260106"]),
        (["1/labelled/v1", "2/v1", "3/labelled"], "{SPAN}/labelled/v{VERSION}", ["2", "3"]),
        (["2", "03"], "{SPAN}", []),
    ],
)
def test_names_that_are_nearly_those_of_spans_are_told(
    tmp_path: Path, folders: list[str], pattern: str, missed: list[str]
):
    make(tmp_path, *folders)

    assert sorted(parse_pattern(f"{tmp_path}/{pattern}").near_misses(LocalFiles())) == missed


def test_what_is_wrong_with_a_near_miss_is_said(tmp_path: Path):
    make(tmp_path, "span-1/v1", "span-2", "Span-3/v1")

    found = parse_pattern(f"{tmp_path}/span-{{SPAN}}/v{{VERSION}}").near_misses(LocalFiles())

    where = f"in data.path={tmp_path}/span-{{SPAN}}/v{{VERSION}}"
    assert found == {
        "Span-3": f"not taken for a span: Span-3 is not quite like span-{{SPAN}} {where}",
        "span-2": f"not taken for a span: it holds nothing like v{{VERSION}} {where}",
    }


def test_a_reference_that_is_being_copied_stops_nothing(tmp_path: Path):
    make(tmp_path, "s1", "s2")
    (tmp_path / "s1" / INCOMPLETE).touch()

    assert names(tmp_path, "s{SPAN}") == (["s2"], [])


@pytest.mark.parametrize(
    ("settings", "replay"),
    [
        ({}, []),
        ({"replay": 0.1}, ["s1", "s3", "s4"]),
        ({"replay": 0.1, "window": 2}, ["s1", "s3"]),
        ({"replay": 0.1, "span": 4}, ["s1", "s3"]),
        ({"replay": 1.0, "window": "all"}, []),
    ],
)
def test_all_complete_spans_before_the_window_are_replayed_if_any(tmp_path: Path, settings: dict, replay: list[str]):
    for name in ("s1", "s2", "s3", "s4", "s5"):
        fill(make(tmp_path, name) / name)
    (tmp_path / "s2" / INCOMPLETE).touch()

    chosen = select(
        parse_pattern(f"{tmp_path}/s{{SPAN}}"),
        SpansConfig.model_validate(
            {"on_incomplete": "skip" if settings.get("window") == "all" else "stop", **settings}
        ),
        LocalFiles(),
    )

    assert [span.name for span in chosen.replay] == replay


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"path": "d", "spans": {"window": 2}}, "need a pattern in path"),
        ({"path": "d", "spans": {"replay": 0.5}}, "need a pattern in path"),
        ({"path": "d", "test_set": "window"}, "need a pattern in path"),
        ({"path": "d/{SPAN}", "spans": {"window": 0}}, "greater than or equal to 1"),
        ({"path": "d/{SPAN}", "spans": {"span": "2026-01-01"}}, "is a date, but the spans of 'd/{SPAN}' have numbers"),
        ({"path": "d/{YYYY}{MM}{DD}", "spans": {"span": 3}}, "is a number, but the spans of .* are days"),
    ],
)
def test_settings_that_do_not_go_with_the_path_are_refused(values: dict, text: str):
    with pytest.raises(ValidationError, match=text):
        DataConfig.model_validate(values)


def test_the_settings_survive_json():
    config = DataConfig.model_validate(
        {"path": "d/{YYYY}{MM}{DD}", "spans": {"span": "2026-01-01", "window": "all"}, "test_set": "window"}
    )
    assert DataConfig.model_validate_json(config.model_dump_json()) == config
    assert config.spans.span == date(2026, 1, 1)


def test_the_first_span_is_the_example(tmp_path: Path):
    make(tmp_path, "s2", "s3")

    assert example_folder(DataConfig(path=f"{tmp_path}/s{{SPAN}}"), LocalFiles()) == str(tmp_path / "s2")
    assert example_folder(DataConfig(path=str(tmp_path)), LocalFiles()) == str(tmp_path)


class OneFolder(LocalFiles):
    """Folders that exist only in a list."""

    def __init__(self, listed: list[str]):
        self._listed = listed

    def exists(self, path: str) -> bool:
        return INCOMPLETE not in path

    def list(self, folder: str):
        return iter(self._listed)


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 4), st.integers(1, 7))
def test_window_and_reference_are_the_last_numbers_for_any_folders(
    numbers: set[int], window: int, reference: int, width: int
):
    files = OneFolder([f"span-{number:0{width}}" for number in numbers])
    config = SpansConfig(window=window, reference=reference)

    chosen = select(parse_pattern("/d/span-{SPAN}"), config, files)

    ordered = sorted(numbers)
    taken = [span.number for span in (*chosen.reference, *chosen.window)]
    assert [span.number for span in chosen.window] == ordered[-window:]
    assert taken == ordered[-max(window, 1 + reference) :]


@given(st.dates())
def test_every_day_is_read_back(day: date):
    (span,) = parse_pattern("/d/{YYYY}-{MM}-{DD}").list(OneFolder([f"{day:%Y}".zfill(4) + f"-{day:%m-%d}"]))

    assert span.number == span_number(day) == (day - date(1970, 1, 1)).days


@given(st.text(alphabet="-_.+()[]ab^$*", max_size=6), st.integers(0, 999), st.integers(0, 99))
def test_what_stands_around_a_placeholder_is_taken_literally(text: str, number: int, version: int):
    pattern = parse_pattern(f"/d/{text}{{SPAN}}v{{VERSION}}{text}")

    assert [(s.number, s.version) for s in pattern.list(OneFolder([f"{text}{number}v{version}{text}"]))] == [
        (number, version)
    ]
