"""The configuration of the schedule."""

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from data.section import LONGEST_SECONDS, Section

#: Longest wait between two attempts, in seconds.
LONGEST_BACKOFF = 3600.0


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a name such as Europe is a folder of the time zone database
        raise ValueError("no such time zone; allowed: names of the IANA database, such as UTC, Europe/Berlin") from None
    return name


class ScheduleConfig(Section):
    """How runs are scheduled on this machine. The command line states when; on Kubeflow, the server schedules runs.

    The destination of events is not part of the configuration: it is read from DEEPLAB_WEBHOOK_URL and
    DEEPLAB_WEBHOOK_SECRET.
    """

    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    """Time zone of the cron expression. With daylight saving time, a time that the clock skips is delayed by as much as
    the clock is put forward, and a time that it repeats occurs twice."""
    jitter_seconds: int = Field(default=0, ge=0, le=86400)
    """Maximum of the random delay of each run after its cron time, so that many hosts do not start together."""
    retries: int = Field(default=3, ge=0, le=1000)
    """Maximum number of retries after a transient error; a run that rejects its data is never retried."""
    backoff_seconds: float = Field(default=60, gt=0, le=LONGEST_SECONDS)
    """Wait before the first retry; it doubles with each further one, up to an hour. New data whose run was skipped, or
    failed in all its retries with a transient error, are tried again after the same waits."""
    busy_wait_seconds: float = Field(default=3600, ge=0, le=LONGEST_SECONDS)
    """How long to wait for another run in this workspace, or on this metadata server, before this run is skipped."""
    stop_seconds: float = Field(default=30, gt=0, le=LONGEST_SECONDS)
    """How long a run may take to end when the schedule is stopped, before it is killed."""
    debounce_seconds: float = Field(default=60, gt=0, le=LONGEST_SECONDS)
    """How long new data must have stayed unchanged before they are used."""
    poll_seconds: float = Field(default=60, gt=0, le=LONGEST_SECONDS)
    """Interval at which data are checked if the file system does not report changes: network drives, object stores."""
    incomplete_warning_seconds: float = Field(default=21600, gt=0, le=LONGEST_SECONDS)
    """How long new data may be incomplete before a warning is logged, which is repeated at this interval: the process
    that copies them may have died."""
    webhook_timeout_seconds: float = Field(default=10, gt=0, le=LONGEST_SECONDS)
    """Timeout of one delivery of an event, from connecting to the end of the response."""
    webhook_retries: int = Field(default=5, ge=0, le=1000)
    """Maximum number of retries of an event that could not be delivered."""
