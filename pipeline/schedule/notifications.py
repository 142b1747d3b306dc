"""Notifications of the schedule: the events it reports, and the webhook that delivers them.

An event is sent as signed JSON, and retried until it is accepted or given up.
"""

import asyncio
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from pydantic import BaseModel, Field
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from data.errors import ConfigError
from pipeline.records.summary import FailureRecord
from pipeline.schedule.state import ScheduledRun
from pipeline.sections.schedule import ScheduleConfig

TIMESTAMP = "X-DeepLab-Timestamp"
SIGNATURE = "X-DeepLab-Signature"

#: Statuses besides 5xx after which a retry is sensible: request timeout, too early, too many requests.
_PASSING = (408, 425, 429)

logger = logging.getLogger(__name__)


class ScheduleEvent(BaseModel):
    """The body of a notification, as JSON. Fields may be added; existing ones keep their meaning."""

    schema_version: int = 1
    id: str = Field(default_factory=lambda: uuid4().hex)
    """Unique id, the same in every delivery of the same event."""
    kind: Literal["pushed", "refused", "failed", "recovered"]
    """'pushed': a new version is served; 'refused': the model did not pass evaluation; 'failed': the run failed,
    retries included; 'recovered': the first run that succeeded after one that had failed."""
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    pipeline: str
    model: str
    run_id: str | None
    version: int | None
    """The version that was pushed; None if there is none."""
    mean_iou: float | None
    """Mean IoU of the candidate on the test split; None if unknown."""
    reasons: list[str]
    failure: FailureRecord | None
    attempts: int
    seconds: float | None


def events_of(
    run: ScheduledRun, before: ScheduledRun | None, unseen: Sequence[int], pipeline: str, model: str
) -> list[ScheduleEvent]:
    """The events of a run that has ended.

    Args:
        run: The run, which has ended.
        before: The last run before it that succeeded or failed.
        unseen: Versions not reported yet that other runs pushed, lowest first.
        pipeline: Name of the pipeline.
        model: Name under which its model is pushed.
    """
    fields = run.model_dump(include={"run_id", "version", "mean_iou", "reasons", "failure", "attempts", "seconds"})
    event = partial(ScheduleEvent, pipeline=pipeline, model=model, **fields)
    events = []
    if run.succeeded and before is not None and before.result == "failed":
        events.append(event(kind="recovered"))
    for version in sorted({*unseen, *([] if run.version is None else [run.version])}):
        # This run does not know the score of a version that another run pushed, unless both made the same model.
        known = run.result == "pushed" and version == run.version
        events.append(event(kind="pushed", version=version, mean_iou=run.mean_iou if known else None))
    if run.result == "refused" or run.result == "failed":  # noqa: PLR1714  # mypy narrows
        events.append(event(kind=run.result, version=None))
    return events


class _Undelivered(Exception):
    """The event was not delivered; a retry may help."""


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the hexadecimal HMAC-SHA256 of `timestamp.body` under the shared secret.

    The receiver computes the same, compares in constant time, and rejects old timestamps to prevent replay attacks.
    """
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Webhook:
    """A receiver of events. Neither its secret nor its URL, which may contain a secret too, is ever logged.

    Raises:
        ConfigError: The URL is invalid, or there is no secret.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    config: ScheduleConfig
    stop: threading.Event
    """Set when the schedule stops: undelivered events are then given up."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ConfigError("DEEPLAB_WEBHOOK_URL: must look like https://host/path")
        if not self.secret:
            raise ConfigError("DEEPLAB_WEBHOOK_SECRET is not set: it signs what is sent to DEEPLAB_WEBHOOK_URL")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # At level INFO, httpx logs the whole URL.

    def send(self, event: ScheduleEvent) -> bool:
        """Delivers an event; returns whether it was accepted. Never raises errors of the receiver or the network."""
        body = event.model_dump_json().encode()
        retrying = Retrying(
            retry=retry_if_exception_type(_Undelivered),
            stop=stop_after_attempt(self.config.webhook_retries + 1) | stop_when_event_set(self.stop),
            wait=wait_exponential(multiplier=0.5, max=60),
            sleep=sleep_using_event(self.stop),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            return retrying(self._post, body)
        except _Undelivered as error:
            logger.error("event %s (%s) was not delivered to %s: %s", event.id, event.kind, self._host, error)  # noqa: TRY400
            return False

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def _post(self, body: bytes) -> bool:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP: timestamp,
            SIGNATURE: signature(self.secret, timestamp, body),
        }
        try:
            answer = asyncio.run(self._answer(body, headers))
        except TimeoutError:
            raise _Undelivered(f"no whole answer within {self.config.webhook_timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _Undelivered(type(error).__name__) from None
        if answer.status_code >= 500 or answer.status_code in _PASSING:
            raise _Undelivered(f"it answers {answer.status_code}")
        if not answer.is_success:
            logger.error("%s refuses events: it answers %d", self._host, answer.status_code)
        return answer.is_success

    async def _answer(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        # httpx's own timeouts apply to each read, so a slowly trickling answer would not exceed any of them.
        async with asyncio.timeout(self.config.webhook_timeout_seconds), httpx.AsyncClient(timeout=None) as client:  # noqa: S113
            return await client.post(self.url, content=body, headers=headers)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("webhook at %s: %s; trying again", self._host, error)
