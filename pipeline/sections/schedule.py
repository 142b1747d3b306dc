"""The configuration of the schedule."""

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from data.section import Section

#: Seconds: the longest wait between two tries.
LONGEST_BACKOFF = 3600.0


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a name such as Europe is a folder of the database
        raise ValueError("no such time zone; allowed: names of the IANA database, such as UTC, Europe/Berlin") from None
    return name


class ScheduleConfig(Section):
    """How runs are scheduled on this machine. When, is said on the command line; Kubeflow schedules by itself.

    Where events are sent is no part of the configuration: DEEPLAB_WEBHOOK_URL and DEEPLAB_WEBHOOK_SECRET say it.
    """

    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    """Time zone of the cron expression. A time that a change of the clocks leaves out comes as much later as they
    are put forward, one that they repeat comes twice."""
    jitter_seconds: int = Field(default=0, ge=0, le=86400)
    """Runs begin later than cron says by a random time up to this, so that many hosts do not begin together."""
    retries: int = Field(default=3, ge=0)
    """How often a run that failed for a reason that may pass is repeated; one refused for its data never is."""
    backoff_seconds: float = Field(default=60, gt=0)
    """Wait before the first repetition; it doubles with each, up to an hour. New data whose run was left out, or failed
    in all its repetitions for a reason that may pass, are tried again after waits like these."""
    busy_wait_seconds: float = Field(default=3600, ge=0)
    """How long to wait for another run in this workspace, or on this metadata server, before leaving this one out."""
    stop_seconds: float = Field(default=30, gt=0)
    """How long a run may take to end when the schedule is stopped, before it is killed."""
    debounce_seconds: float = Field(default=60, gt=0)
    """New data must have stayed as they are for this long before they are used."""
    poll_seconds: float = Field(default=60, gt=0)
    """How often data are looked at where the file system does not tell of changes: network drives, object stores."""
    incomplete_warning_seconds: float = Field(default=21600, gt=0)
    """How long new data may be incomplete before the log warns of it, and again after each such time: what copies them
    may have died."""
    webhook_timeout_seconds: float = Field(default=10, gt=0)
    """How long a delivery of an event may take, from connecting to the end of the answer."""
    webhook_retries: int = Field(default=5, ge=0)
    """How often an event that could not be delivered is sent again."""
