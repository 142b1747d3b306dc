"""Where a Kubeflow Pipelines server is, and the token that says who asks.

A token is never printed: not in an error, a representation or an address.
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from data.errors import ConfigError
from pipeline.tokens import check_token, read_token

TOKEN_VARIABLE = "DEEPLAB_KFP_TOKEN"  # noqa: S105 - the name of the variable, not its value
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubernetes puts the token that it makes for a pod whose volumes project one for audience
pipelines.kubeflow.org; the kfp SDK looks there too."""


@dataclass(frozen=True)
class Connection:
    """Where a server is and how to talk to it."""

    host: str
    """Base URL, with the path of a proxy if there is one, such as https://kubeflow.example/pipeline."""
    token: str = field(default="", repr=False)
    """Sent as bearer token; empty sends none."""
    token_file: Path | None = None
    """Holds the token, and is read anew for each request, so that a renewed one is used."""
    namespace: str = ""
    """Of the user, where the server serves several; empty otherwise."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate, if it is none that is known everywhere."""
    timeout: float = 30.0
    """Seconds to wait for one answer."""
    attempts: int = 3
    """How often a request that may safely be repeated is sent."""
    pause: float = 1.0
    """Seconds before the second attempt; they double."""

    def __post_init__(self) -> None:
        _check_host(self.host)
        if self.token:
            check_token(self.token, TOKEN_VARIABLE)
        if self.token_file:
            read_token(self.token_file)
        if self.ca_file and not self.ca_file.is_file():
            raise ConfigError(f"{self.ca_file}: no such file; allowed: a PEM file of certificates")

    def link(self, page: str, key: str) -> str:
        """URL of a page of the server's user interface: `runs` or `recurringrun`."""
        return f"{self.host.rstrip('/')}/#/{page}/details/{key}"


def _check_host(host: str) -> None:
    try:
        parts = urlsplit(host)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        wrong = True
    if wrong:
        raise ConfigError(f"--host {host!r}: is no address; allowed: http://name[:port][/path] or https://...")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"--host: holds a user name or a password, and addresses are printed; allowed: a token in {TOKEN_VARIABLE}"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"--host {host!r}: has a query or a fragment; allowed: http(s)://name[:port][/path]")
