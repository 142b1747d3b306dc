"""An image and its mask, read together: the one place where a labelled image becomes pixels and class ids."""

import heapq
import math
from collections import Counter
from hashlib import blake2b

import numpy as np

from data.dataset import DataConfig
from data.errors import DataError
from data.files import FileSystem, read_bytes
from data.images import Size, image_size, read_image
from data.labels import LabelMap
from data.layouts.base import Layout, Mask, MaskFile, PanopticFile, Sample, Shapes
from data.mask_files import ARRAYS, read_codes
from data.masks import read_mask, size_mismatch

#: Number of pairs whose sizes are compared before a dataset is read.
SIZES_COMPARED = 200


def read_pair(
    sample: Sample, label_map: LabelMap, config: DataConfig, files: FileSystem, tally: Counter[str] | None = None
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Reads an image and its mask.

    An image that EXIF turns is turned where its mask has the turned size; see `data.images.read_image`.

    Returns:
        The encoded image to store, its (height, width, 3) uint8 RGB pixels, and its (height, width) uint8 class ids.

    Raises:
        DataError: the reason why the pair cannot be used, beginning with a stable category.
    """
    content = read_bytes(sample.image, files, "image")
    encoded, image = read_image(content, config.max_pixels, mask_size=lambda: mask_size(sample.mask, files))
    return encoded, image, read_mask(sample.mask, label_map, image.shape[:2], files, config.mask_rules, tally)


def mask_size(mask: Mask | None, files: FileSystem) -> Size | None:
    """(height, width) of a mask, by the header of its file; None where the annotation states none.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(mask, Shapes):
        return mask.size
    if not isinstance(mask, MaskFile | PanopticFile):
        return None
    if mask.path.lower().endswith(tuple(ARRAYS)):
        return read_codes(mask.path, files, lambda size: None).codes.shape
    try:
        with files.open(mask.path) as file:
            return image_size(file)
    except OSError as error:
        raise DataError(f"mask missing: {mask.path}: {error}") from None


def check_sizes(layout: Layout, config: DataConfig) -> None:
    """Compares the sizes of images and masks, by their headers, in a sample of a dataset.

    Raises:
        DataError: so many masks have another size than their image that the dataset would be refused once all is read.
    """
    listed = (e for split in layout.splits() or (None,) for e in layout.samples(split) if isinstance(e, Sample))
    try:
        chosen = heapq.nsmallest(SIZES_COMPARED, listed, key=lambda sample: blake2b(sample.key.encode()).digest())
    except DataError:  # Reported with the split where it happens.
        return
    looked_at, wrong = 0, list[str]()
    for sample in chosen:
        try:
            mask = mask_size(sample.mask, layout.files)
            with layout.files.open(sample.image) as file:
                image = image_size(file)
        except (DataError, OSError):  # Reported with the reason when the pair is read.
            continue
        looked_at += 1
        if mask and not config.mask_rules.accept_size(mask, image):
            wrong.append(f"{sample.key}: {size_mismatch(image, mask, 'mask')}")
    share = len(wrong) / max(looked_at, 1)
    # Three standard deviations of a sample's share: a dataset that would pass is not refused.
    if share - 3 * math.sqrt(share * (1 - share) / max(looked_at, 1)) > config.max_bad_fraction:
        first = "".join(f"\n  {reason}" for reason in wrong[:5])
        raise DataError(
            f"{config.path}: {len(wrong)} of {looked_at} masks compared have another size than their image, more than "
            f"data.max_bad_fraction={config.max_bad_fraction} allows{first}"
        )
