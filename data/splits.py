"""The splits train, val and test: the official ones where there are any, else by a stable hash of the group."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product

from data.errors import DataError
from data.layouts.base import Sample


@dataclass(frozen=True)
class SplitPlan:
    """How the official splits become train (fit), val (model selection) and test (evaluation)."""

    official: tuple[str, ...]
    """Official splits, as `Layout.splits` returns them."""
    renamed: dict[str, str]
    """Official split -> split that its images go to."""
    carved: tuple[str, ...]
    """Splits that are taken out of train by hash."""

    def assign(self, sample: Sample, val_fraction: float, test_fraction: float) -> str:
        """The split of an image: 'train', 'val' or 'test'.

        Where a split is carved out, all images of a group go to the same split, and an image goes to the same split on
        every machine, whatever other images there are.
        """
        split = self.renamed[sample.split] if sample.split else "train"
        if split != "train":
            return split
        position = hash_position(sample.group)
        for name, fraction in (("test", test_fraction), ("val", val_fraction)):
            if name in self.carved:
                if position < fraction:
                    return name
                position -= fraction
        return "train"


def plan_splits(official: tuple[str, ...]) -> SplitPlan:
    """Plans the splits of a dataset that has the given official ones.

    train, val and test stay as they are. With train and val alone, the official val becomes test, since published
    results are measured on it, and val is carved out of train. One split alone, or none, is divided by hash.

    Raises:
        DataError: there are several official splits, but no train split among them.
    """
    if len(official) <= 1:
        return SplitPlan(official, dict.fromkeys(official, "train"), ("val", "test"))
    if "train" not in official:
        raise DataError(f"no training images: the dataset has the splits {', '.join(official)}, but no train split")
    if "val" not in official:
        return SplitPlan(official, {"train": "train", "test": "test"}, ("val",))
    if "test" not in official:
        return SplitPlan(official, {"train": "train", "val": "test"}, ("val",))
    return SplitPlan(official, {split: split for split in official}, ())


def sufficient_fractions(groups: Iterable[str], carved: Sequence[str]) -> dict[str, float] | None:
    """The smallest shares by which each carved split of a small dataset gets an image, and train keeps one.

    Returns:
        Carved split -> its share, a multiple of 0.05. None if there are none: fewer groups than splits, or the hash
        puts them too close together.
    """
    plan = SplitPlan((), {}, tuple(carved))
    samples = [Sample(key=group, image="", mask=None, group=group) for group in groups]
    shares = [step / 20 for step in range(2, 11)]
    for val, test in sorted(product(shares, shares), key=lambda pair: (sum(pair), pair)):
        if val + test < 1 and {plan.assign(sample, val, test) for sample in samples} >= {"train", *carved}:
            return {split: share for split, share in (("val", val), ("test", test)) if split in carved}
    return None


def hash_position(name: str) -> float:
    """A number in [0, 1), evenly distributed over names and the same for a name on every machine."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
