"""Texts that pages share."""

from typing import Any

import pytest

from pipeline.report.render import headline, seconds_text
from tests.pipeline.report.hand_made import make_summary


@pytest.mark.parametrize(
    ("changes", "tone", "text"),
    [
        ({}, "open", "The run ended before an evaluation"),
        ({"blessed": False}, "warn", "Not blessed"),
        ({"blessed": True}, "good", "Blessed; nothing was pushed"),
        ({"blessed": True, "pushed_version": 3}, "good", "Blessed, and pushed as version 3"),
        ({"blessed": True, "pushed_version": 3, "status": "failed"}, "bad", "The run failed"),
    ],
)
def test_the_headline(changes: dict[str, Any], tone: str, text: str):
    found = headline(make_summary(**changes))
    assert (found.tone, found.text) == (tone, text)


def test_a_run_without_a_record_was_killed_or_still_runs():
    assert headline(None).text == "No record: killed, or still running"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.131, "0.13 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (7500, "2 h 05 min")]
)
def test_durations_are_readable(seconds: float, text: str):
    assert seconds_text(seconds) == text
