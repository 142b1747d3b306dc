"""The configuration of the embedded model server."""

from pydantic import Field

from data.section import Section


class ServingConfig(Section):
    """What `local_runner.py serve` takes on at most. Where it listens, is said on the command line."""

    max_body_bytes: int = Field(default=32 << 20, ge=1)
    """Size of a request's body at most."""
    max_pixels: int = Field(default=16_000_000, ge=1)
    """Pixels of all images of a request together at most; what exceeds it is never decoded."""
    workers: int = Field(default=2, ge=1)
    """Requests that are computed at the same time. TensorFlow spreads each over all cores."""
    queue: int = Field(default=16, ge=0)
    """Requests that may wait for a worker; further ones are refused at once, with status 503."""
    timeout_seconds: float = Field(default=30, gt=0)
    """How long a request may take, reading and waiting included."""
    poll_seconds: float = Field(default=2, gt=0)
    """How often the serving directory is looked at."""
    retry_seconds: float = Field(default=60, gt=0)
    """How long a version that failed to load is left alone before it is tried again."""
    drain_seconds: float = Field(default=0, ge=0)
    """After SIGTERM: how long requests are still taken while `/v2/health/ready` says no, so that load balancers turn
    away first."""
