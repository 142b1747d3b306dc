"""The connection to a Kubeflow Pipelines server, with the token that authenticates the user.

A token is never printed: neither in an error, nor in a representation, nor in a URL.
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from data.errors import ConfigError
from pipeline.tokens import check_token, read_token

TOKEN_VARIABLE = "DEEPLAB_KFP_TOKEN"  # noqa: S105 - the name of the variable, not its value
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a pod's projected volume holds the service account token for the audience pipelines.kubeflow.org; the kfp
SDK uses the same path."""


@dataclass(frozen=True)
class Connection:
    """The address of a server, and the settings of its requests."""

    host: str
    """Base URL, with the path of a proxy if there is one, such as https://kubeflow.example/pipeline."""
    token: str = field(default="", repr=False)
    """Bearer token of the requests; empty for none."""
    token_file: Path | None = None
    """File that holds the token; it is read for each request, so that a renewed token is used."""
    namespace: str = ""
    """Namespace of the user on a server for several users; empty otherwise."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate, if it is not a commonly trusted one."""
    timeout: float = 30.0
    """Seconds to wait for one answer."""
    attempts: int = 3
    """Maximum number of attempts at a request that can safely be repeated."""
    pause: float = 1.0
    """Seconds before the second attempt; the time doubles for each further one."""

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
