"""`lineage`: what a version was made from, or which versions came from a file."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.application import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    JsonOption,
    ModelOption,
    SetOption,
    WorkspaceOption,
    metadata_section,
    quietly,
)


def lineage(
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="A version that was pushed.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Show the versions that came from this image instead.")
    ] = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Show the lineage of a pushed version: data, code, hyperparameters, evaluation."""
    if (version is None) == (data is None):
        raise typer.BadParameter("give a VERSION, or --data FILE")
    from pipeline.workspace import Workspace

    places = Workspace(workspace.absolute())
    with quietly():
        from pipeline.metadata.data_lineage import file_uses, with_restored
        from pipeline.metadata.lineage import find_push, pushes, restoration
        from pipeline.metadata.lineage import lineage as lineage_of
        from pipeline.metadata.outline import lineage_outline, uses_outline
        from pipeline.metadata.store import existing_store, recorded_config
        from pipeline.rollback import restored_version

        store = existing_store(places, metadata_section(config or [], set_ or []) or recorded_config(places))
        if version is None:
            assert data is not None  # noqa: S101  # one of the two is given
            uses = with_restored(file_uses(store, data), places.serving)
            text, outline = uses.model_dump_json(), uses_outline(uses)
        else:
            again = restored_version(places.serving, model, version)
            pushed = again.record.first_version if again else version
            found = lineage_of(store, find_push(pushes(store), pushed, model, places.serving))
            found = found.model_copy(update={"restoration": restoration(again) if again else None})
            text, outline = found.model_dump_json(), lineage_outline(found)
    Console().print_json(text) if json_ else Console().print(outline.tree())
