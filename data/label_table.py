"""A label map against the table of classes that a dataset's own files carry: names decide, not numbers."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from data.errors import DataError
from data.labels import LabelMap

#: Number of classes of each table that an error lists.
MOST_LISTED = 100


def match_by_name(configured: LabelMap, table: LabelMap, place: str) -> LabelMap:
    """The configured label map, with the values and colours that the dataset's own table gives to its classes.

    Tools number the classes anew when a dataset is exported again, so a value of the configuration may mean another
    class now. A class takes the codes of the table's classes that have its name or one of its `names`. Of its own codes
    it keeps those that the table gives to no class, such as void, unless the table has other codes for it than its own:
    then the class was numbered anew. A class that is not in the table has no code there. What the table has and the
    configuration has not stays outside of the label map.

    Args:
        configured: The label map of the configuration, or of the first span.
        table: The classes as files of the dataset state them.
        place: The dataset, for the error.

    Raises:
        DataError: a class of the configuration has a code that the table gives to a class of a name that the
            configuration lacks, so that nobody knows whether the two are the same.
    """
    classes = [label.model_dump() for label in configured.classes]
    ignored: dict[str, tuple[Any, ...]] = {}
    doubts: list[str] = []
    for field in ("values", "colors"):
        theirs = {label.name: getattr(label, field) for label in table.classes}
        owners = {code: name for name, codes in theirs.items() for code in codes}
        if not owners:
            continue
        known = {name for label in configured.classes for name in (label.name, *label.names)}
        for made, label in zip(classes, configured.classes, strict=True):
            own, names = getattr(label, field), (label.name, *label.names)
            stated = tuple(code for name in names for code in theirs.get(name, ()))
            kept = own if set(stated) <= set(own) else ()
            made[field] = (*stated, *(code for code in kept if code not in owners))
            doubts += [
                f"class {label.name!r} has {field} {code}, which is {owners[code]!r} there"
                for code in kept
                if code in owners and owners[code] not in known
            ]
        ignored[f"ignore_{field}"] = tuple(
            code for code in getattr(configured, f"ignore_{field}") if owners.get(code) not in known
        )
    if doubts:
        raise DataError(
            f"label map: {place} names its classes otherwise than data.label_map:\n"
            + "".join(f"  {doubt}\n" for doubt in islice(doubts, MOST_LISTED))
            + f"data.label_map: {_listed(configured)}\n{place}: {_listed(table)}\n"
            "If a class is the same, state its name there in data.label_map, as in `names: [car, truck]`; if it is "
            "another class, give it one of its own in data.label_map, or take the value away"
        )
    return LabelMap.model_validate({**configured.model_dump(), "classes": classes, **ignored})


def _listed(label_map: LabelMap) -> str:
    """The classes with their codes, in one line."""
    more = f", and {label_map.num_classes - MOST_LISTED} more" if label_map.num_classes > MOST_LISTED else ""
    return (
        ", ".join(
            f"{label.name} = {_codes((*label.values, *label.colors))}" for label in label_map.classes[:MOST_LISTED]
        )
        + more
    )


def _codes(codes: Iterable[Any]) -> str:
    return " ".join(map(str, codes)) or "none"
