"""The time of a training step, by operation.

Usage: PYTHONPATH=. python benchmarks/operations.py [mobilenet_v2|resnet50] [float32|mixed_bfloat16]
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import keras
import tensorflow as tf
from contenders import CLASSES, this_project
from rich.console import Console
from rich.table import Table
from tensorflow.tsl.profiler.protobuf import xplane_pb2

BATCH = {"mobilenet_v2": 8, "resnet50": 4}
CROP, STEPS, SHOWN = 256, 4, 20
#: Entries of the profile that are not kernels.
CALLS = ("Process", "Run")


def operation_seconds(folder: str) -> Counter[str]:
    """Seconds of each kind of operation in a profile, threads added up."""
    (path,) = Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # Kernels are named "node:operation"; so are calls of whole graphs, which begin otherwise.
                operation = name.rpartition(":")[2].split("#")[0]
                if ":" in name and operation not in CALLS and "__inference" not in operation:
                    seconds[operation] += event.duration_ps * 1e-12
    return seconds


def main() -> None:
    """Prints a table."""
    backbone, policy = [*sys.argv[1:], *("mobilenet_v2", "mixed_bfloat16")[len(sys.argv) - 1 :]]
    keras.config.set_dtype_policy(policy)
    batch = BATCH[backbone]
    contender = this_project(backbone, batch)
    images = tf.random.stateless_uniform((batch, CROP, CROP, 3), (0, 0), 0.0, 255.0)
    masks = tf.cast(tf.random.stateless_uniform((batch, CROP, CROP), (0, 1), 0, CLASSES, tf.int32), tf.uint8)
    for _ in range(2):
        contender.train(images, masks)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with tf.profiler.experimental.Profile(folder):
            for _ in range(STEPS):
                contender.train(images, masks)
        elapsed = (time.perf_counter() - started) / STEPS
        seconds = operation_seconds(folder)
    title = f"{backbone}, {policy}, {CROP}x{CROP}, batch {batch}: {elapsed * 1000:.0f} ms a step under the profiler"
    table = Table("operation", "ms a step", "share", title=title)
    total = sum(seconds.values())
    for name, value in seconds.most_common(SHOWN):
        table.add_row(name, f"{value / STEPS * 1000:.0f}", f"{value / total:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
