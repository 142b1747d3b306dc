"""Degenerate data: splits from which nothing can be learned, or on which nothing can be evaluated."""

from dataclasses import dataclass

import numpy as np
from tfx.types.artifact import Artifact

from components.config import EvaluationConfig
from components.validation.statistics import SplitColumns, split_columns
from data import features
from data.layouts.base import TEST, TRAIN
from models.metrics.confusion import constant_prediction

#: A split with a larger mean share of the ignore label (void) has next to nothing to learn from.
MOST_VOID = 0.99

#: Number of classes that one sentence names.
MOST_NAMED = 10


@dataclass(frozen=True)
class DegenerateData:
    """What is degenerate in the data, a sentence each."""

    hopeless: list[str]
    """What makes a training or an evaluation pointless."""
    remarks: list[str]
    """What a model can be trained and evaluated in spite of."""

    @property
    def findings(self) -> list[str]:
        """All of them."""
        return [*self.hopeless, *self.remarks]


def degenerate_data(statistics: Artifact, config: EvaluationConfig) -> DegenerateData:
    """Looks for degenerate data in the statistics of the examples."""
    hopeless: list[str] = []
    remarks: list[str] = []
    splits = split_columns(statistics)
    for split in splits:
        void, pixels = split.columns[features.VOID_FRACTION].mean, _class_pixels(split)
        present = [name for name, count in pixels.items() if count]
        if void > MOST_VOID:
            hopeless.append(
                f"split {split.name}: the ignore label (void) covers {void:.2%} of an image on average, more than "
                f"{MOST_VOID:.0%}, so hardly a pixel is left; check the masks, and what data.label_map ignores"
            )
        if len(present) == 1:
            (hopeless if split.name in (TRAIN, TEST) else remarks).append(
                f"split {split.name}: all {pixels[present[0]]:,} labelled pixels of its {split.images:,} images have "
                f"the class {present[0]!r}, so {_ONE_CLASS[split.name]}; check the masks and data.label_map, or give "
                "the split images of other classes"
            )
        elif split.name == TEST and config.min_mean_iou:
            commonest, constant = constant_prediction(np.array(list(pixels.values())))
            if constant >= config.min_mean_iou:
                remarks.append(
                    f"split {split.name}: predicting class {list(pixels)[commonest]!r} everywhere reaches mean IoU "
                    f"{constant:.4f}, and evaluation.min_mean_iou={config.min_mean_iou:g} is not above that; a model "
                    "must be better than this prediction to be blessed, so raise the floor"
                )
    counts = {split.name: _class_pixels(split) for split in splits}
    missing = [name for name, count in counts.get(TRAIN, {}).items() if not count]
    nowhere = [name for name in missing if not any(of[name] for of in counts.values())]
    if unlearned := [name for name in missing if name not in nowhere]:
        remarks.append(
            f"split {TRAIN}: no pixel has the class {_named(unlearned)}, so no model can learn it; give the split "
            "images of it, or take it out of data.label_map"
        )
    if nowhere:
        remarks.append(
            f"no split has a pixel of the class {_named(nowhere)}; give the data images of it, or take it out of "
            "data.label_map"
        )
    return DegenerateData(hopeless, remarks)


_ONE_CLASS = {
    "train": "there is nothing to tell apart",
    "val": "it cannot say which checkpoint is the best",
    "test": "predicting it everywhere is right, and no model can be evaluated",
}


def _class_pixels(split: SplitColumns) -> dict[str, int]:
    """Class -> its labelled pixels."""
    prefix = features.pixels_key("")
    return {
        column.removeprefix(prefix): round(found.mean * split.images)
        for column, found in split.columns.items()
        if column.startswith(prefix)
    }


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more
