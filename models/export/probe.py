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

#: linux/prctl.h
_SET_DEATH_SIGNAL = 1


class Refused(Exception):
    """The model does not serve; the text says why."""


def check(condition: bool, signature: str, what: str) -> None:
    """Raises Refused unless the condition holds."""
    if not condition:
        raise Refused(f"signature {signature}: {what}")


def timed(signature: str, call: Callable[[], dict[str, tf.Tensor]], limit: float) -> dict[str, np.ndarray]:
    """Warms the model up with one call, and requires that another one ends within the limit in seconds.

    A call that takes longer is repeated once, since the machine may have been busy.
    """
    try:
        call()
        answer, seconds = _clocked(call)
        if seconds > limit:
            answer, seconds = _clocked(call)
    except (tf.errors.OpError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line and not line[0].isspace()]
        # The reason of an error in a graph comes after the lines that name the node.
        reason = lines[-1] if isinstance(error, tf.errors.OpError) else lines[0]
        raise Refused(f"signature {signature}: {reason}") from None
    check(seconds <= limit, signature, f"took {seconds:.2f} s for one image, allowed are {limit:g} s")
    return answer


def _clocked(call: Callable[[], dict[str, tf.Tensor]]) -> tuple[dict[str, np.ndarray], float]:
    started = time.perf_counter()
    return {name: value.numpy() for name, value in call().items()}, time.perf_counter() - started


def probe(model_path: str, examples: list[bytes], limit: float) -> None:
    """Sends each example to each signature that the model has.

    Args:
        model_path: folder of the SavedModel.
        examples: serialized tf.Examples as ExampleGen writes them.
        limit: seconds allowed for one image.

    Raises:
        Refused: the model does not load, lacks a signature, fails, or answers wrongly or too late.
    """
    try:
        model = tf.saved_model.load(model_path)
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise Refused(f"does not load: {str(error).splitlines()[0]}") from None
    for name in export.SIGNATURES:
        check(name in model.signatures, name, f"missing; the model has {sorted(model.signatures)}")
    for serialized in examples:
        features = tf.train.Example.FromString(serialized).features.feature
        size = (features[HEIGHT].int64_list.value[0], features[WIDTH].int64_list.value[0])
        encoded = features[IMAGE].bytes_list.value[0]
        requests = {
            export.IMAGE_BYTES: tf.constant([encoded]),
            export.PIXELS: tf.io.decode_image(encoded, channels=3, expand_animations=False)[None],
            export.EXAMPLES: tf.constant([serialized]),
        }
        # All signatures that the model has, so that no signature is pushed that was never called.
        for name in [*export.SIGNATURES, *sorted(set(model.signatures) - set(export.SIGNATURES))]:
            _probe_signature(name, model.signatures[name], requests, size, limit)


def _probe_signature(
    name: str,
    call: tf.types.experimental.ConcreteFunction,
    requests: dict[str, tf.Tensor],
    size: tuple[int, int],
    limit: float,
) -> None:
    """Sends a signature the inputs that it takes, and checks each of its outputs.

    Args:
        name: name of the signature.
        call: the signature.
        requests: input name -> value, for one image.
        size: (height, width) of that image.
        limit: seconds allowed for it.

    Raises:
        Refused: the signature fails, answers wrongly or too late, or has inputs or outputs that are not known here.
    """
    inputs = call.structured_input_signature[1]
    unknown = sorted(set(inputs) - set(requests))
    check(not unknown, name, f"takes {', '.join(unknown)}, of which the infra check has no example")
    answer = timed(name, lambda: call(**{key: requests[key] for key in inputs}), limit)
    for output, value in answer.items():
        if output in (export.MASK_BYTES, export.CONFIDENCE_BYTES):
            try:
                shape = tuple(tf.io.decode_png(value[0]).shape[:2])
            except tf.errors.InvalidArgumentError:
                raise Refused(f"signature {name}: {output} is not a PNG") from None
            check(shape == size, name, f"{output} is {shape}, the image {size}")
        elif output == export.CLASS_IDS:
            check(value.shape == (1, *size), name, f"{output} is {value.shape}, the image {size}")
        elif output == export.SCORES:
            score = float(value[0])
            check(0.0 <= score <= 1.0, name, f"{output} is {score}, allowed is 0 to 1")
        elif output in export.SIGNATURES[export.EVALUATE_SIGNATURE]:
            check(bool((value >= 0).all()), name, f"{output} holds {value.min()}, allowed are counts from 0")
        else:
            check(False, name, f"{output} is an output that the infra check does not know")
    missing = sorted(set(export.SIGNATURES.get(name, ())) - set(answer))
    check(not missing, name, f"gives no {', '.join(missing)}")


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
