"""Class weights of the loss, from how often the classes occur."""

from collections.abc import Sequence

import numpy as np

from models.config import ClassBalance


def class_weights(pixels: Sequence[int], balance: ClassBalance, strength: float = 1.0) -> np.ndarray:
    """The weight of each class in the loss.

    With f a class's fraction of the labelled pixels: "log" is 1 / ln(1.02 + f) (ENet, arXiv 1606.02147, section 5.1)
    and "median" is median(f) / f over the classes that occur (SegNet, arXiv 1511.00561, section 4). Both are scaled so
    that the mean over all pixels is 1, which keeps the size of the loss, and so the learning rate, comparable. A class
    that never occurs weighs as much as the heaviest that does.

    Args:
        pixels: number of pixels of each class in the training split, ignored pixels not counted.
        balance: formula of the weights; "none" gives each class the weight 1.
        strength: exponent of the weights, from 0 (no effect) to 1. Full weights make a network predict rare classes too
            often, which costs the frequent ones more IoU than the rare ones gain.

    Returns:
        (classes,) float32, positive.
    """
    counts = np.asarray(pixels, np.float64)
    if balance == "none" or not counts.any():
        return np.ones(len(counts), np.float32)
    fraction = counts / counts.sum()
    occurs = counts > 0
    present = fraction[occurs]
    weights = 1 / np.log(1.02 + present) if balance == "log" else np.median(present) / present
    weights **= strength
    weights /= np.sum(present * weights)
    result = np.full(len(counts), weights.max())
    result[occurs] = weights
    return result.astype(np.float32)
