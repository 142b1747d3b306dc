"""`serve`: answers requests with the newest pushed model."""

import gc
import logging
from ipaddress import ip_address
from typing import Annotated

import typer

from pipeline.cli.application import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    ModelOption,
    ServingOption,
    SetOption,
    WorkspaceOption,
    quietly,
    serving_root,
)
from pipeline.tokens import token_in_variable

_LOG = logging.getLogger(__name__)


def serve(
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8501,
    token_env: Annotated[
        str | None,
        typer.Option("--token-env", metavar="NAME", help="Environment variable with the token that clients must send."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Answer requests with the pushed model, and with every later one, until it is stopped."""
    from pipeline.config import load_section
    from pipeline.rollback import choose_serving_dir
    from pipeline.sections.serving import ServingConfig

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    limits = load_section(config or [], set_ or [], ServingConfig)
    token = token_in_variable(token_env, f"--token-env {token_env}") if token_env else ""
    directory = choose_serving_dir(serving_root(serving, workspace), model)
    name = directory.rstrip("/").rpartition("/")[2]
    with quietly():
        from pipeline.serving.server import listen
        from pipeline.serving.server import serve as serve_requests
        from pipeline.serving.service import Service

    gc.freeze()  # Otherwise, collecting a freed model would scan all imported objects, and stall requests.
    service = Service(name, directory, limits, token)
    with listen(host, port) as socket:
        host, port = socket.getsockname()[:2]
        _LOG.info("model %s at http://%s:%d", name, f"[{host}]" if ":" in host else host, port)
        if not token and not ip_address(host).is_loopback:
            _LOG.warning("everyone who can reach %s can send requests: no --token-env is given", host)
        serve_requests(service, socket)
    _LOG.info("stopped")
