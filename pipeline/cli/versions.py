"""`rollback`, `pin`, `unpin` and `unblock`: manual decisions about versions. They import quickly."""

from typing import Annotated

import typer
from rich.console import Console

from data.errors import WorkspaceError
from pipeline.cli.application import DEFAULT_WORKSPACE, ModelOption, ServingOption, WorkspaceOption, serving_root


def rollback(
    to: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", help="Version to restore; else the newest other model.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Reason; is recorded.")] = "",
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Serve an earlier version again; the one served now is not pushed again automatically."""
    from pipeline.rollback import choose_serving_dir, roll_back

    restored = roll_back(choose_serving_dir(serving_root(serving, workspace), model), to, reason)
    record = restored.record
    console = Console(soft_wrap=True)
    console.print(f"version {restored.version} is version {record.restored_from} again: {restored.path}", markup=False)
    console.print(
        f"version {record.rollback_of} is blocked: its model is not pushed again, unless you run `rollback --to "
        f"{record.rollback_of}` or `unblock {record.rollback_of}`",
        markup=False,
    )


def unblock(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version that was rolled back.")],
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Let a model that was rolled back be pushed again."""
    from pipeline.rollback import choose_serving_dir, unblock_version

    serving_dir = choose_serving_dir(serving_root(serving, workspace), model)
    if not unblock_version(serving_dir, version):
        raise WorkspaceError(f"{serving_dir}: version {version} was not rolled back")
    Console(soft_wrap=True).print(f"{serving_dir}: the model of version {version} may be pushed again", markup=False)


def pin(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version in the serving directory.")],
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Keep a version and its lineage, regardless of push.keep and section retention."""
    from pipeline.rollback import choose_serving_dir, pin_version, pins_text

    serving_dir = choose_serving_dir(serving_root(serving, workspace), model)
    pin_version(serving_dir, version)
    Console(soft_wrap=True).print(f"{serving_dir}: {pins_text(serving_dir)}", markup=False)


def unpin(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version that was pinned.")],
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Let push.keep and retention remove a pinned version again."""
    from pipeline.rollback import choose_serving_dir, pins_text, unpin_version

    serving_dir = choose_serving_dir(serving_root(serving, workspace), model)
    unpin_version(serving_dir, version)
    Console(soft_wrap=True).print(f"{serving_dir}: {pins_text(serving_dir)}", markup=False)
