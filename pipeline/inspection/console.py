"""The results of an inspection on the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.inspection.findings import Inspection

STYLES = {"good": "green", "warn": "yellow", "bad": "red"}
MOST_BAD = 10
MOST_CLASSES = 40


def show_inspection(found: Inspection, console: Console) -> None:
    """Prints the splits, the classes, the first bad files and the advice."""
    console.print(
        f"{escape(found.config.path)}: {found.listed:,} images in the {found.layout} layout, "
        f"{found.looked_at:,} of them looked at, "
        f"{_sizes(found.widths)} pixels wide and {_sizes(found.heights)} high"
    )
    for remark in found.remarks:
        console.print(escape(remark))
    console.print(_splits(found))
    console.print(_classes(found))
    for entry in found.bad[:MOST_BAD]:
        console.print(f"[red]bad[/] {escape(entry.path)}: {escape(entry.reason)}")
    for advice in found.advice:
        console.print(f"[{STYLES[advice.tone]}]●[/] {escape(advice.text)}")
    if found.proposal:
        console.print(found.proposal.text, markup=False, highlight=False)


def _sizes(sides: tuple[int, int, int]) -> str:
    return str(sides[0]) if sides[0] == sides[2] else f"{sides[0]} to {sides[2]}"


def _splits(found: Inspection) -> Table:
    table = Table("split", "images", "from")
    for split in found.splits:
        table.add_row(split.name, f"{split.listed:,}", split.origin)
    return table


def _classes(found: Inspection) -> Table:
    table = Table("class", "pixels", "images", caption=f"void: {found.void:.1%} of all pixels")
    for count in found.classes[:MOST_CLASSES]:
        table.add_row(escape(count.name), f"{count.share:.2%}", f"{count.images:,}")
    if len(found.classes) > MOST_CLASSES:
        table.add_row(f"and {len(found.classes) - MOST_CLASSES} more", "", "")
    return table
