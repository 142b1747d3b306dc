"""Loads a SavedModel in a process of its own and sends it real requests.

Called as `python -m models.export.probe MODEL REQUESTS SECONDS PARENT`, with the requests in a TFRecord file of
examples and the process id of the caller, with which the process ends.

It knows the signatures and nothing else of this project's models, as a model server does. It ends with status 1 and
one line on standard error that says which signature failed and how.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from data.features import HEIGHT, IMAGE, WIDTH
from models.export import saved_model as export
from models.metrics.counts import CONFUSION

#: linux/prctl.h
_SET_DEATH_SIGNAL = 1


class Refused(Exception):
    """The model does not serve; the text says why."""


def check(condition: bool, signature: str, what: str) -> None:
    """Raises Refused unless the condition holds."""
    if not condition:
        raise Refused(f"signature {signature}: {what}")


def timed(signature: str, call: Callable[[], dict[str, tf.Tensor]], limit: float) -> dict[str, np.ndarray]:
    """Warms the model up with one call, and holds another to the limit in seconds.

    One that takes longer is made once more: the machine may have been busy or stood still.
    """
    try:
        call()
        answer, seconds = _clocked(call)
        if seconds > limit:
            answer, seconds = _clocked(call)
    except (tf.errors.OpError, TypeError, ValueError) as error:
        raise Refused(f"signature {signature}: {str(error).splitlines()[0]}") from None
    check(seconds <= limit, signature, f"took {seconds:.2f} s for one image, allowed are {limit:g} s")
    return answer


def _clocked(call: Callable[[], dict[str, tf.Tensor]]) -> tuple[dict[str, np.ndarray], float]:
    started = time.perf_counter()
    return {name: value.numpy() for name, value in call().items()}, time.perf_counter() - started


def probe(model_path: str, examples: list[bytes], limit: float) -> None:
    """Sends each example to each signature.

    Args:
        model_path: Folder of the SavedModel.
        examples: Serialized tf.Examples as ExampleGen writes them.
        limit: Seconds allowed for one image.

    Raises:
        Refused: The model does not load, lacks a signature, fails, answers wrongly or too late.
    """
    try:
        model = tf.saved_model.load(model_path)
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise Refused(f"does not load: {str(error).splitlines()[0]}") from None
    for name in (export.SERVING_SIGNATURE, export.PIXELS_SIGNATURE, export.EVALUATE_SIGNATURE):
        check(name in model.signatures, name, f"missing; the model has {sorted(model.signatures)}")
    for serialized in examples:
        features = tf.train.Example.FromString(serialized).features.feature
        size = (features[HEIGHT].int64_list.value[0], features[WIDTH].int64_list.value[0])
        encoded = features[IMAGE].bytes_list.value[0]
        _probe_serving(model, encoded, size, limit)
        _probe_pixels(model, encoded, size, limit)
        _probe_evaluate(model, serialized, limit)


def _probe_serving(model: tf.Module, encoded: bytes, size: tuple[int, int], limit: float) -> None:
    name = export.SERVING_SIGNATURE
    call = model.signatures[name]
    answer = timed(name, lambda: call(**{export.IMAGE_BYTES: tf.constant([encoded])}), limit)
    mask = tf.io.decode_png(answer[export.MASK_BYTES][0])
    check(tuple(mask.shape[:2]) == size, name, f"the mask is {tuple(mask.shape[:2])}, the image {size}")
    score = float(answer[export.SCORES][0])
    check(0.0 <= score <= 1.0, name, f"the score is {score}, allowed is 0 to 1")


def _probe_pixels(model: tf.Module, encoded: bytes, size: tuple[int, int], limit: float) -> None:
    name = export.PIXELS_SIGNATURE
    call = model.signatures[name]
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    answer = timed(name, lambda: call(**{export.PIXELS: image[None]}), limit)
    shape = answer[export.CLASS_IDS].shape
    check(shape == (1, *size), name, f"the class ids are {shape}, the image {size}")


def _probe_evaluate(model: tf.Module, serialized: bytes, limit: float) -> None:
    name = export.EVALUATE_SIGNATURE
    call = model.signatures[name]
    answer = timed(name, lambda: call(**{export.EXAMPLES: tf.constant([serialized])}), limit)
    matrix = answer[CONFUSION]
    check(bool(np.isfinite(matrix).all() and matrix.sum() >= 0), name, "the confusion matrix is not finite")


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent dies, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG).

    Args:
        parent: process id of the parent, as it passed it on. If the parent has died already, this process ends at once.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """The command line."""
    model_path, requests, limit, parent = sys.argv[1:]
    end_with_parent(int(parent))
    examples = list(tf.data.TFRecordDataset(requests).as_numpy_iterator())
    try:
        probe(model_path, examples, float(limit))
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
