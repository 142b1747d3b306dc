"""Words that pages share."""

from typing import Any

import pytest

from pipeline.report.wording import seconds_text, verdict
from tests.pipeline.report.hand_made import make_summary


@pytest.mark.parametrize(
    ("changes", "tone", "text"),
    [
        ({}, "open", "The run ended before a judgement"),
        ({"blessed": False}, "warn", "Not blessed"),
        ({"blessed": True}, "good", "Blessed; nothing was pushed"),
        ({"blessed": True, "pushed_version": 3}, "good", "Blessed, and pushed as version 3"),
        ({"blessed": True, "pushed_version": 3, "status": "failed"}, "bad", "The run failed"),
    ],
)
def test_the_verdict(changes: dict[str, Any], tone: str, text: str):
    found = verdict(make_summary(**changes))
    assert (found.tone, found.text) == (tone, text)


def test_a_run_without_a_record_was_killed_or_goes_on():
    assert verdict(None).text == "No record: killed, or still running"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.131, "0.13 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (7500, "2 h 05 min")]
)
def test_durations_are_readable(seconds: float, text: str):
    assert seconds_text(seconds) == text
