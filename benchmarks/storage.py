"""What Transform should materialise: encoded images or raw pixels. Bytes per image, and the time to decode its pixels.

Usage: PYTHONPATH=. python benchmarks/storage.py [DATASET]   (default: the sample dataset, in a temporary folder)
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from training_images import training_images

from data.preprocess import decode_image
from data.synthetic import write_dataset

IMAGES = 60
ROUNDS = 3


def milliseconds(call: object, arguments: list[object]) -> float:
    """Median over rounds of the mean time of a call."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for argument in arguments:
            call(argument)  # type: ignore[operator]
        rounds.append((time.perf_counter() - started) / len(arguments) * 1000)
    return sorted(rounds)[ROUNDS // 2]


def main() -> None:
    """Prints a table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = sys.argv[1] if len(sys.argv) > 1 else str(write_dataset(Path(temporary) / "sample"))
        found, _ = training_images(folder, IMAGES)
    forms = {
        "as received": ([encoded for encoded, _, _ in found], decode_image),
        "PNG": ([tf.io.encode_png(image).numpy() for _, image, _ in found], decode_image),
        "raw uint8": ([image.tobytes() for _, image, _ in found], lambda raw: tf.io.decode_raw(raw, tf.uint8)),
        "mask, PNG": ([tf.io.encode_png(mask[:, :, None]).numpy() for _, _, mask in found], tf.io.decode_png),
        "mask, raw": ([mask.tobytes() for _, _, mask in found], lambda raw: tf.io.decode_raw(raw, tf.uint8)),
    }
    print(f"{folder}: {len(found)} images of {np.mean([i.shape[0] * i.shape[1] for _, i, _ in found]):.0f} pixels")
    print(f"{'form':12} {'kB':>8} {'ms':>8}")
    for name, (encoded, decode) in forms.items():
        size = sum(map(len, encoded)) / len(encoded) / 1000
        print(f"{name:12} {size:8.1f} {milliseconds(decode, list(encoded)):8.2f}")


if __name__ == "__main__":
    main()
