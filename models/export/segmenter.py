"""The reader of SavedModels that `models.export.saved_model` wrote: encoded images in, class ids and scores out."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.errors import DataError, WorkspaceError
from data.preprocess import decode_mask
from models.export.saved_model import (
    CONFIDENCE_BYTES,
    CONFIDENCE_SIGNATURE,
    IMAGE_BYTES,
    MASK_BYTES,
    SCORES,
    SERVING_SIGNATURE,
    Outputs,
    load_label_map,
)


class Segmenter:
    """A SavedModel of this project, loaded to segment images.

    Args:
        path: folder that `export_saved_model` wrote.

    Raises:
        WorkspaceError: the folder does not hold such a model.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.label_map = load_label_map(path)
        # A signature does not keep the variables alive that it reads; the loaded object does.
        self._model = tf.saved_model.load(os.fspath(path))
        self._path = os.fspath(path)

    def predict(self, images: Sequence[bytes]) -> list[tuple[np.ndarray, float]]:
        """Segments encoded images (JPEG, PNG, GIF, BMP), one after the other.

        Returns:
            For each image its class ids, (height, width) uint8, and its score in [0, 1].

        Raises:
            DataError: an image cannot be decoded.
        """
        answers = (self._call(SERVING_SIGNATURE, index, encoded) for index, encoded in enumerate(images))
        return [(decode_mask(answer[MASK_BYTES][0]).numpy(), float(answer[SCORES][0])) for answer in answers]

    def confidences(self, image: bytes) -> tuple[np.ndarray, np.ndarray, float]:
        """Segments an encoded image.

        Returns:
            The class ids, (height, width) uint8; 255 times the probability that each pixel has its class, (height,
            width) uint8; the score in [0, 1].

        Raises:
            DataError: the image cannot be decoded.
            WorkspaceError: the model was exported by a version of this project that did not have this signature.
        """
        if CONFIDENCE_SIGNATURE not in self._model.signatures:
            raise WorkspaceError(f"{self._path}: the model has no signature {CONFIDENCE_SIGNATURE!r}; train it again")
        outputs = self._call(CONFIDENCE_SIGNATURE, 0, image)
        mask, confidences = (decode_mask(outputs[name][0]).numpy() for name in (MASK_BYTES, CONFIDENCE_BYTES))
        return mask, confidences, float(outputs[SCORES][0])

    def _call(self, signature: str, index: int, encoded: bytes) -> Outputs:
        try:
            outputs: Outputs = self._model.signatures[signature](**{IMAGE_BYTES: tf.constant([encoded])})
        except tf.errors.InvalidArgumentError:
            raise DataError(
                f"image {index} ({len(encoded)} bytes) cannot be decoded; allowed: JPEG, PNG, GIF, BMP"
            ) from None
        return outputs
