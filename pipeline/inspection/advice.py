"""Advice on the findings of the inspection of a dataset, as sentences with numbers."""

from collections.abc import Iterator, Sequence

from data.masks import EDGE, NEAR, corrections
from models.config import ClassBalance
from models.training.class_weights import class_weights
from pipeline.inspection.findings import Advice, ClassCount, Inspection

#: With classes more imbalanced than this, class weights in the loss are advised.
IMBALANCE = 10.0

#: A class in fewer images than this is unlikely to be learnt.
FEW_IMAGES = 5

MOST_NAMED = 20


def advise(found: Inspection) -> Iterator[Advice]:
    """All advice on a dataset."""
    if found.proposal:
        doubts = " ".join(found.proposal.doubts)
        yield Advice("warn", f"Nobody has stated the label map: the classes below are a proposal. {doubts}".strip())
    if found.question:
        yield Advice("bad", f"{found.question} A run refuses to begin until it is said.")
    if found.corrected[NEAR] or found.corrected[EDGE]:
        yield Advice("warn", f"Masks are corrected: {corrections(found.corrected)}.")
    yield from _on_splits(found)
    yield _on_bad_files(found)
    yield _on_duplicates(found)
    yield from _on_classes(found.classes)
    yield on_balance(found.classes)
    if found.void > 0.5:
        yield Advice("warn", f"{found.void:.0%} of the pixels are void: does the label map ignore a class of yours?")


def on_balance(classes: Sequence[ClassCount]) -> Advice:
    """The advised `training.class_balance`, with the weights that it would give."""
    present = sorted((count for count in classes if count.pixels), key=lambda count: count.pixels)
    if len(present) < 2:
        return Advice("bad", "Fewer than two classes stand in the masks looked at: there is nothing to tell apart.")
    rarest, commonest = present[0], present[-1]
    ratio = commonest.pixels / rarest.pixels
    facts = (
        f"{commonest.name} has {ratio:,.{int(ratio < IMBALANCE)}f} times as many pixels as {rarest.name} "
        f"({commonest.share:.1%} and {rarest.share:.2%})"
    )
    if ratio < IMBALANCE:
        return Advice("good", f"training.class_balance: none will do. {facts}.")

    def relative(balance: ClassBalance) -> float:
        weights = class_weights([count.pixels for count in classes], balance)
        return float(weights[classes.index(rarest)] / weights[classes.index(commonest)])

    return Advice(
        "warn",
        f"Set training.class_balance: log. {facts}; log makes a pixel of {rarest.name} weigh {relative('log'):.1f} "
        f"times as much in the loss, median {relative('median'):,.0f} times. Leave it at none if pixel accuracy "
        "matters more to you than mean IoU.",
    )


def _on_classes(classes: Sequence[ClassCount]) -> Iterator[Advice]:
    absent = [count.name for count in classes if not count.pixels]
    if absent:
        yield Advice("warn", f"Not in the masks looked at: {_named(absent)}. Without examples a class is not learnt.")
    rare = [f"{count.name} ({count.images})" for count in classes if 0 < count.images < FEW_IMAGES]
    if rare:
        yield Advice("warn", f"In fewer than {FEW_IMAGES} of the images looked at: {_named(rare)}.")


def _on_splits(found: Inspection) -> Iterator[Advice]:
    for split in found.splits:
        if not split.listed:
            remedy = ""
            if split.carved and found.fractions:
                remedy = f" Set {' and '.join(f'data.{name}_fraction: {s:g}' for name, s in found.fractions.items())}."
            yield Advice(
                "bad", f"The {split.name} split is empty ({split.origin}); a run needs images in each split.{remedy}"
            )


def _on_duplicates(found: Inspection) -> Advice:
    if not found.num_duplicates:
        return Advice("good", f"No near-duplicates across splits {_compared(found)}.")
    remedy = (
        "Set data.group_pattern to a regular expression on the image's path whose first group names the scene or "
        "sequence: images of one group stay in one split."
        if any(split.carved for split in found.splits)
        else "The splits are the dataset's own: remove the copies, or move them into one split."
    )
    return Advice(
        "warn",
        f"Near-duplicates across splits (pairs: {found.num_duplicates}, {_compared(found)}) make scores too good. "
        f"{remedy}",
    )


def _compared(found: Inspection) -> str:
    if found.compared >= found.listed:
        return "among all images"
    return f"among {found.compared:,} of {found.listed:,} images; the others were not compared"


def _on_bad_files(found: Inspection) -> Advice:
    if not found.num_bad:
        return Advice("good", f"Every file looked at fits the {found.layout} layout and the label map.")
    allowed = found.config.max_bad_fraction
    stops = found.num_bad / max(found.listed, found.num_bad) > allowed
    verdict = "a run would stop at so many" if stops else "a run would set them aside and go on"
    return Advice(
        "bad" if stops else "warn", f"Bad files: {found.num_bad}; {verdict} (data.max_bad_fraction: {allowed:g})."
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
