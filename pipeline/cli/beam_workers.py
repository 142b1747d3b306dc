"""`beam-workers`: a pool of Beam workers, until it is interrupted."""

from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console


def beam_workers(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 50000,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; everyone who can reach it can run code.")
    ] = "127.0.0.1",
) -> None:
    """Start Beam workers when a job server requests them; runs until it is interrupted."""
    from components.beam_workers import WorkerPool

    pool = WorkerPool(host, port)
    Console().print(f"Beam workers start at {pool.address}; Ctrl-C ends", markup=False)
    with suppress(KeyboardInterrupt):
        pool.wait()
