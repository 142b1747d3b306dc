"""What the command `serve` of `local_runner.py` does and prints."""

import gc
import logging
import os
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from data.errors import ConfigError
from pipeline.cli.local import quietly
from pipeline.config import load_section
from pipeline.kubeflow.connection import check_token
from pipeline.rollback import choose_serving_dir
from pipeline.serving.config import ServingConfig

_LOG = logging.getLogger(__name__)


def serve_command(
    serving: str,
    model: str | None,
    address: tuple[str, int],
    token_env: str | None,
    config: tuple[Path | None, Sequence[str]],
) -> None:
    """`serve`: answers requests with the pushed model until it is stopped.

    Args:
        serving: Folder or URI that holds `<model name>/<version>/`.
        model: Name of the model; None takes the only one.
        address: Host and port to listen at; port 0 takes a free one.
        token_env: Environment variable with the token that clients must send.
        config: Configuration file and overrides, of which section `serving` counts.

    Raises:
        ConfigError: The configuration is wrong, or the variable is not set or holds what no header can.
        WorkspaceError: Nothing is pushed.
        ListenError: The address cannot be had.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    file, overrides = config
    limits = load_section(file, overrides, ServingConfig)
    token = _token(token_env)
    directory = choose_serving_dir(serving, model)
    name = directory.rstrip("/").rpartition("/")[2]
    with quietly(verbose=False):
        from pipeline.serving.metrics import Metrics
        from pipeline.serving.model import LoadedModel
        from pipeline.serving.server import listen, serve
        from pipeline.serving.service import Service
        from pipeline.serving.versions import Versions

    gc.freeze()  # What was imported stays; to look through it each time a model is given free would halt requests.
    metrics = Metrics()
    load = partial(LoadedModel, name, max_pixels=limits.max_pixels)
    versions = Versions(name, directory, load, limits.retry_seconds, metrics.loaded)
    metrics.watch(versions)
    with listen(*address) as socket:
        host, port = socket.getsockname()[:2]
        _LOG.info("model %s at http://%s:%d", name, f"[{host}]" if ":" in host else host, port)
        if not token and not ip_address(host).is_loopback:
            _LOG.warning("whoever reaches %s may ask: no --token-env is given", host)
        serve(Service(versions, limits, metrics, token), socket)
    _LOG.info("stopped")


def _token(variable: str | None) -> str:
    if variable is None:
        return ""
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(f"--token-env {variable}: this environment variable is not set, or empty")
    return check_token(token, f"--token-env {variable}")
