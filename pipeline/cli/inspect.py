"""`inspect`: statistics of a dataset, and a configuration to start from."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from data.console import terminal
from pipeline.cli.application import ConfigOption, quietly


def inspect(
    data: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images and masks.")],
    layout: Annotated[str, typer.Option("--layout", help="Name of the layout; auto recognises it.")] = "auto",
    images: Annotated[
        str, typer.Option("--images", help="Pattern of the images' paths, such as images/{stem}.jpg.")
    ] = "",
    masks: Annotated[
        str, typer.Option("--masks", help="Pattern of the masks' paths, such as labels/{stem}_gt.png.")
    ] = "",
    config: ConfigOption = None,
    write_to: Annotated[
        Path | None,
        typer.Option("--write-config", help="Write a configuration with the label map to this file."),
    ] = None,
    object_: Annotated[
        list[str] | None,
        typer.Option("--object", metavar="CODE", help="Value (or R,G,B) of the masks that is a class: --object 255."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="CODE", help="Value (or R,G,B) that is void, neither trained on nor scored."),
    ] = None,
    soft_edges: Annotated[
        str | None, typer.Option("--soft-edges", help="What smoothed edges of masks become: nearest or ignore.")
    ] = None,
    page: Annotated[Path, typer.Option("--page", help="Where the page with images goes.")] = Path("inspection.html"),
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images whose pixels are read.")] = 500,
) -> None:
    """Look at a dataset before training on it."""
    from components.storage.file_systems import file_system
    from data.dataset import DataConfig
    from data.errors import ConfigError
    from pipeline.config import load_section
    from pipeline.inspection.proposal import parse_answers

    # One folder, even if the configuration takes the data from several.
    settings = [f"data.path={json.dumps(data)}", "data.spans={}", "data.test_set=fixed"]
    given = {"layout": "" if layout == "auto" else layout, "images": images, "masks": masks}
    settings += [f"data.{key}={json.dumps(value)}" for key, value in given.items() if value]
    section = load_section(config or [], settings, DataConfig)
    if write_to and write_to.exists():
        raise ConfigError(f"--write-config {write_to}: the file exists, and is not overwritten; name another")
    answers = parse_answers(object_ or [], ignore or [], soft_edges)
    with quietly():
        from pipeline.inspection.config_writer import write_config
        from pipeline.inspection.console import show_inspection
        from pipeline.inspection.dataset import inspect_dataset

        with Progress(console=terminal(), transient=True) as bar:
            task = bar.add_task("looking at images", total=None)
            found = inspect_dataset(
                section,
                file_system(section.path),
                limit=limit,
                out=page,
                answers=answers,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    console = Console()
    show_inspection(found, console)
    console.print(f"page with images: {page}", markup=False)
    if write_to:
        write_config(found, write_to)
        console.print(f"configuration: {write_to}", markup=False)
