"""Training and inference speed of DeepLabV3+: this project, the same network in plain Keras, and KerasHub.

Each measurement is a separate process; the rounds are interleaved, so that a busy spell of the machine meets all.

Usage: PYTHONPATH=. python benchmarks/speed.py [--rounds 3]      (about ten minutes; on an idle machine)
KerasHub is compared when it is installed beside the project: see benchmarks/requirements.txt.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import keras
import tensorflow as tf
from contenders import CLASSES, CONTENDERS, OURS
from rich.console import Console
from rich.table import Table

from models.config import ModelConfig
from models.network.complexity import layer_costs
from models.network.deeplab import build_model

BENCH = Path(__file__).parent.parent / ".bench"
POLICIES = ("float32", "mixed_bfloat16")
#: backbone -> batch of training at 256x256.
TRAINING = {"mobilenet_v2": 8, "resnet18": 8, "resnet50": 4}
#: Multiplications and additions of a training step by those of the forward pass: it, and two products backward.
STEP_FLOPS = 2 * 3
CROP, WHOLE = 256, 513
STEPS, INFERENCES = 5, 5
MATRIX = 2048


def train(contender: str, backbone: str) -> float:
    """Images per second of training on random images."""
    batch = TRAINING[backbone]
    candidate = CONTENDERS[contender](backbone, batch)
    images = tf.random.stateless_uniform((batch, CROP, CROP, 3), (0, 0), 0.0, 255.0)
    masks = tf.random.stateless_uniform((batch, CROP, CROP), (0, 1), 0, CLASSES, tf.int32)
    masks = tf.cast(masks, tf.uint8)
    return batch / _seconds(lambda: candidate.train(images, masks), STEPS)


def infer(contender: str, backbone: str) -> float:
    """Milliseconds from one image to its logits."""
    model = CONTENDERS[contender](backbone, 1).model
    image = tf.random.stateless_uniform((1, WHOLE, WHOLE, 3), (0, 0), 0.0, 255.0)
    if contender == "KerasHub":
        # It upsamples by a factor: 513 is not a multiple of 16.
        image = image[:, :512, :512]
    predict = tf.function(lambda pixels: model(pixels, training=False))
    return 1000 * _seconds(lambda: predict(image).numpy(), INFERENCES)


def matrix_peak(policy: str) -> float:
    """GFLOP/s of a product of two large matrices: what the machine can do at most."""
    matrix = tf.cast(tf.random.stateless_uniform((MATRIX, MATRIX), (0, 0)), keras.DTypePolicy(policy).compute_dtype)
    product = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    return 2e-9 * MATRIX**3 / _seconds(lambda: product().numpy(), 20)


def _seconds(call: object, times: int) -> float:
    for _ in range(2):
        call()  # type: ignore[operator]
    started = time.perf_counter()
    for _ in range(times):
        call()  # type: ignore[operator]
    return (time.perf_counter() - started) / times


def measurements() -> list[tuple[str, ...]]:
    """(what, policy, contender, backbone) of everything that is measured."""
    names = [name for name in CONTENDERS if name != "KerasHub" or BENCH.is_dir()]
    networks = [
        (what, policy, name, backbone)
        for what in ("train", "infer")
        for backbone in TRAINING
        for name in names
        for policy in POLICIES
        if name != "KerasHub" or backbone == "resnet50"
    ]
    return [*(("peak", policy) for policy in POLICIES), *networks]


def measure_one(what: str, policy: str, *network: str) -> float:
    """One measurement, in this process."""
    keras.config.set_dtype_policy(policy)
    return {"train": train, "infer": infer}[what](*network) if network else matrix_peak(policy)


def in_process(measurement: tuple[str, ...]) -> float:
    """One measurement in a separate process."""
    root = str(Path(__file__).parent.parent)
    # KerasHub's packages come last: nothing of theirs may hide what is locked.
    environment = {**os.environ, "PYTHONPATH": f"{root}:{BENCH}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--one", json.dumps(measurement)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{measurement} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measures everything in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure_one(*arguments.one))
        return
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for number in range(arguments.rounds):
        for measurement in measurements():
            found[measurement].append(in_process(measurement))
            print(f"round {number + 1}: {' '.join(measurement)}: {found[measurement][-1]:.2f}", file=sys.stderr)
    report({key: statistics.median(values) for key, values in found.items()})


def report(medians: dict[tuple[str, ...], float]) -> None:
    """Prints the tables."""
    console = Console()
    peaks = " and ".join(f"{medians['peak', policy]:.0f} GFLOP/s in {policy}" for policy in POLICIES)
    console.print(f"{os.cpu_count()} cores; matrix peak {peaks}")
    units = {"train": f"training at {CROP}x{CROP}, images/s", "infer": f"one image of {WHOLE}x{WHOLE}, ms"}
    for what, title in units.items():
        table = Table("network", "contender", *POLICIES, title=title)
        for backbone in TRAINING:
            for name in CONTENDERS:
                rows = [medians.get((what, policy, name, backbone)) for policy in POLICIES]
                if None not in rows:
                    table.add_row(backbone, name, *(f"{value:.1f}" for value in rows))
        console.print(table)
    for backbone in TRAINING:
        shares = (share_of_peak(medians, policy, backbone) for policy in POLICIES)
        text = ", ".join(f"{share:.0%} in {policy}" for share, policy in zip(shares, POLICIES, strict=True))
        console.print(f"{backbone}: this project's training reaches {text} of the matrix peak")


def share_of_peak(medians: dict[tuple[str, ...], float], policy: str, backbone: str) -> float:
    """The multiply-adds of this project's training as a fraction of what a product of matrices reaches."""
    costs = layer_costs(build_model(ModelConfig(backbone=backbone), CLASSES), (CROP, CROP))
    flops = STEP_FLOPS * sum(cost.multiply_adds for cost in costs)
    return flops * medians["train", policy, OURS, backbone] / (1e9 * medians["peak", policy])


if __name__ == "__main__":
    main()
