"""Whether mixed bfloat16 pays on this processor: pictures a second and CPU seconds a step, against float32, in turn.

Usage: python benchmarks/precision.py   (a minute or two; on an idle machine)
"""

import os
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from models.config import ModelConfig, OptimizerConfig
from models.deeplab import build_model
from models.learner import Learner

POLICIES = ("float32", "mixed_bfloat16")
BATCH, CROP, CLASSES = 16, 192, 11
STEPS, ROUNDS = 8, 2


def measure(policy: str) -> tuple[float, float]:
    """Pictures a second, and CPU seconds a step, of training the CamVid network on random pictures."""
    keras.config.set_dtype_policy(policy)
    config = ModelConfig(width=0.75, aspp_channels=128, decoder_channels=128)
    learner = Learner(build_model(config, CLASSES), OptimizerConfig(), 1000, np.ones(CLASSES, np.float32))
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 256, (BATCH, CROP, CROP, 3)), tf.float32)
    masks = tf.constant(generator.integers(0, CLASSES, (BATCH, CROP, CROP)), tf.uint8)
    learner.step(images, masks)  # traces the graph
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        loss, _norm = learner.step(images, masks)
    loss.numpy()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return BATCH * STEPS / wall, cpu / STEPS


def main() -> None:
    """Measures each policy in processes of its own, in turn, and prints medians."""
    if len(sys.argv) > 1:
        print(*measure(sys.argv[1]))
        return
    found: dict[str, list[list[float]]] = {policy: [] for policy in POLICIES}
    for _ in range(ROUNDS):
        for policy in POLICIES:
            command = [sys.executable, __file__, policy]
            output = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout
            found[policy].append([float(number) for number in output.split()[-2:]])
    print(f"MobileNetV2 x0.75, output stride 16, {CROP}x{CROP}, batch {BATCH}, {os.cpu_count()} cores")
    for policy, rows in found.items():
        speed, seconds = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{policy:16} {speed:6.1f} pictures/s  {seconds:6.2f} CPU s a step")


if __name__ == "__main__":
    main()
