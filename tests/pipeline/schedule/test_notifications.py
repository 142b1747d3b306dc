import hashlib
import hmac
import json
import logging
import threading
import time
from datetime import UTC, datetime

import pytest

from data.errors import ConfigError
from pipeline.schedule.notifications import ScheduleEvent, Webhook, signature
from pipeline.sections.schedule import ScheduleConfig
from tests.pipeline.schedule.conftest import Receiver

EVENT = ScheduleEvent(
    kind="pushed",
    pipeline="p",
    model="m",
    run_id="r1",
    version=7,
    mean_iou=0.625,
    reasons=["better"],
    failure=None,
    attempts=1,
    seconds=2.0,
)
SECRET = "swordfish"
CONFIG = ScheduleConfig(webhook_timeout_seconds=5, webhook_retries=2)


def webhook(url: str, secret: str = SECRET, stop: threading.Event | None = None) -> Webhook:
    return Webhook(url, secret, CONFIG, stop or threading.Event())


def test_the_signature_is_that_of_the_standard():
    # RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?", here split at its first full stop.
    expected = hmac.new(b"Jefe", b"what do ya.want for nothing?", hashlib.sha256).hexdigest()

    assert signature("Jefe", "what do ya", b"want for nothing?") == f"sha256={expected}"


def test_a_receiver_that_fails_twice_gets_the_event_signed_the_third_time(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    receiver.statuses[:] = [500, 429]
    caplog.set_level(logging.DEBUG)

    assert webhook(receiver.url).send(EVENT)

    assert [json.loads(body) for _, body in receiver.requests] == [json.loads(EVENT.model_dump_json())] * 3
    for headers, body in receiver.requests:
        signed = headers["X-DeepLab-Timestamp"].encode() + b"." + body
        digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert headers["X-DeepLab-Signature"] == f"sha256={digest}"
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpcore"))
    assert "it answers 500; trying again" in ours
    assert SECRET not in caplog.text and "token-4711" not in ours


def test_a_receiver_that_refuses_is_not_asked_again(receiver: Receiver):
    receiver.statuses[:] = [403]

    assert not webhook(receiver.url).send(EVENT)
    assert len(receiver.requests) == 1


def test_a_receiver_whose_answer_trickles_in_is_given_up_in_time(dripping: str, caplog: pytest.LogCaptureFixture):
    config = ScheduleConfig(webhook_timeout_seconds=0.5, webhook_retries=1)
    begun = time.monotonic()

    assert not Webhook(dripping, SECRET, config, threading.Event()).send(EVENT)

    assert time.monotonic() - begun < 10
    assert "was not delivered to 127.0.0.1: no whole answer within 0.5 s" in caplog.text


def test_a_dead_receiver_raises_nothing_and_ends_with_the_schedule(caplog: pytest.LogCaptureFixture):
    stop = threading.Event()
    stop.set()

    assert not webhook("http://127.0.0.1:1/hook/token-4711", stop=stop).send(EVENT)

    assert "was not delivered to 127.0.0.1: ConnectError" in caplog.text
    assert "token-4711" not in caplog.text


@pytest.mark.parametrize("url", ["example.com/hook", "ftp://example.com/token-4711", "https://", ""])
def test_what_is_no_url_is_refused_without_showing_it(url: str):
    with pytest.raises(ConfigError) as refused:
        webhook(url)

    assert str(refused.value) == "DEEPLAB_WEBHOOK_URL: must look like https://host/path"


def test_events_are_never_sent_unsigned():
    with pytest.raises(ConfigError, match="DEEPLAB_WEBHOOK_SECRET is not set"):
        webhook("https://example.com", secret="")
    shown = repr(webhook("https://example.com/token-4711"))
    assert SECRET not in shown and "token-4711" not in shown


def test_an_event_has_all_that_is_known_and_nothing_else():
    event = ScheduleEvent(
        kind="failed",
        time=datetime(2026, 3, 1, tzinfo=UTC),
        pipeline="p",
        model="m",
        run_id=None,
        version=None,
        mean_iou=None,
        reasons=[],
        failure=None,
        attempts=4,
        seconds=1.5,
    )

    assert json.loads(event.model_dump_json()) == {
        "schema_version": 1,
        "id": event.id,
        "kind": "failed",
        "time": "2026-03-01T00:00:00Z",
        "pipeline": "p",
        "model": "m",
        "run_id": None,
        "version": None,
        "mean_iou": None,
        "reasons": [],
        "failure": None,
        "attempts": 4,
        "seconds": 1.5,
    }
