"""The configuration of the embedded model server."""

from pydantic import Field

from data.section import LONGEST_SECONDS, MOST, Section


class ServingConfig(Section):
    """The limits of `local_runner.py serve`. The command line states the address on which it listens."""

    max_body_bytes: int = Field(default=32 << 20, ge=1, le=2**36)
    """Maximum size of a request's body."""
    max_pixels: int = Field(default=16_000_000, ge=1, le=10_000_000_000)
    """Maximum number of pixels of all images of a request together; a request that exceeds it is never decoded."""
    workers: int = Field(default=2, ge=1, le=1024)
    """Number of requests that are computed at the same time. TensorFlow uses all cores for each."""
    queue: int = Field(default=16, ge=0, le=MOST)
    """Number of requests that may wait for a worker; further ones are rejected at once, with status 503."""
    timeout_seconds: float = Field(default=30, gt=0, le=LONGEST_SECONDS)
    """Timeout of a request, including reading and waiting."""
    poll_seconds: float = Field(default=2, gt=0, le=LONGEST_SECONDS)
    """Interval at which the serving directory is checked for new versions."""
    retry_seconds: float = Field(default=60, gt=0, le=LONGEST_SECONDS)
    """Time after which loading a version that failed to load is retried."""
    drain_seconds: float = Field(default=0, ge=0, le=LONGEST_SECONDS)
    """How long requests are still accepted after SIGTERM while `/v2/health/ready` reports not ready, so that load
    balancers stop sending requests first."""
