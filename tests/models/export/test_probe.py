"""The infra check's process: every signature gets requests, every output is looked at; it ends with its parent.

The models here answer with constants; tests/components/publishing/test_infra_check.py has real ones.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data.features import HEIGHT, IMAGE, MASK, WIDTH
from models.export.probe import Refused, probe
from models.export.saved_model import (
    CLASS_IDS,
    CONFIDENCE_BYTES,
    CONFIDENCE_SIGNATURE,
    EVALUATE_SIGNATURE,
    EXAMPLES,
    IMAGE_BYTES,
    MASK_BYTES,
    PIXELS,
    PIXELS_SIGNATURE,
    SCORES,
    SERVING_SIGNATURE,
    SIGNATURES,
)
from models.metrics.counts import BOUNDARY, CALIBRATION, CONFUSION, TRIMAP
from tests.models.export.test_saved_model import encode, pixels

SIZE = (24, 40)  # height, width
MASK_PNG, SMALL_PNG = (encode(np.zeros(size, np.uint8)) for size in (SIZE, (2, 2)))
#: Signature -> what it takes.
INPUTS = {
    SERVING_SIGNATURE: tf.TensorSpec((None,), tf.string, IMAGE_BYTES),
    CONFIDENCE_SIGNATURE: tf.TensorSpec((None,), tf.string, IMAGE_BYTES),
    PIXELS_SIGNATURE: tf.TensorSpec((None, None, None, 3), tf.uint8, PIXELS),
    EVALUATE_SIGNATURE: tf.TensorSpec((None,), tf.string, EXAMPLES),
}
#: Output -> a right answer.
ANSWERS: dict[str, Any] = {
    MASK_BYTES: [MASK_PNG],
    CONFIDENCE_BYTES: [MASK_PNG],
    SCORES: [0.5],
    CLASS_IDS: np.zeros((1, *SIZE), np.uint8),
    **{name: [[0, 3]] for name in (CONFUSION, BOUNDARY, TRIMAP, CALIBRATION)},
}
REQUEST = tf.train.Example(
    features=tf.train.Features(
        feature={
            IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encode(pixels(*SIZE))])),
            MASK: tf.train.Feature(bytes_list=tf.train.BytesList(value=[MASK_PNG])),
            HEIGHT: tf.train.Feature(int64_list=tf.train.Int64List(value=[SIZE[0]])),
            WIDTH: tf.train.Feature(int64_list=tf.train.Int64List(value=[SIZE[1]])),
        }
    )
).SerializeToString()


def answering(takes: tf.TensorSpec, answers: Mapping[str, Any]) -> Callable:
    """A signature that gives the same answers whatever it is sent."""
    return tf.function(lambda _: {name: tf.constant(value) for name, value in answers.items()}, input_signature=[takes])


def probed(folder: Path, **changed: Callable | None) -> None:
    """Probes a model with right answers, some of whose signatures are others, more, or absent (None)."""
    good = {
        name: answering(INPUTS[name], {output: ANSWERS[output] for output in outputs})
        for name, outputs in SIGNATURES.items()
    }
    signatures = {name: function for name, function in {**good, **changed}.items() if function is not None}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)
    probe(str(folder), [REQUEST], limit=60)


def test_a_good_model_passes(tmp_path: Path) -> None:
    probed(tmp_path)


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_model_that_lacks_a_signature_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"^signature {name}: missing; the model has "):
        probed(tmp_path, **{name: None})


@pytest.mark.parametrize("name", [*SIGNATURES, "another"])
def test_a_signature_that_fails_is_refused(name: str, tmp_path: Path) -> None:
    @tf.function(input_signature=[INPUTS.get(name, INPUTS[SERVING_SIGNATURE])])
    def broken(given: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(tf.size(given) < 0, ["broken on purpose"])]):
            return {SCORES: tf.ones((1,))}

    with pytest.raises(Refused, match=f"^signature {name}: assertion failed: .broken on purpose"):
        probed(tmp_path, **{name: broken})


@pytest.mark.parametrize(
    ("name", "output", "value", "reason"),
    [
        (SERVING_SIGNATURE, MASK_BYTES, [SMALL_PNG], r"mask_bytes is \(2, 2\), the image \(24, 40\)"),
        (SERVING_SIGNATURE, MASK_BYTES, [b"no PNG"], "mask_bytes is not a PNG"),
        (SERVING_SIGNATURE, SCORES, [1.5], "scores is 1.5, allowed is 0 to 1"),
        (CONFIDENCE_SIGNATURE, CONFIDENCE_BYTES, [SMALL_PNG], r"confidence_bytes is \(2, 2\)"),
        (CONFIDENCE_SIGNATURE, SCORES, [float("nan")], "scores is nan"),
        (PIXELS_SIGNATURE, CLASS_IDS, np.zeros((1, 2, 2), np.uint8), r"class_ids is \(1, 2, 2\)"),
        (EVALUATE_SIGNATURE, CONFUSION, [[-1]], "confusion holds -1, allowed are counts from 0"),
        (EVALUATE_SIGNATURE, CALIBRATION, [[float("nan")]], "calibration holds nan"),
        (EVALUATE_SIGNATURE, "surprise", [1], "surprise is an output that the infra check does not know"),
    ],
)
def test_a_wrong_answer_is_refused(name: str, output: str, value: Any, reason: str, tmp_path: Path) -> None:
    wrong = {**{output: ANSWERS[output] for output in SIGNATURES[name]}, output: value}
    with pytest.raises(Refused, match=f"^signature {name}: {reason}"):
        probed(tmp_path, **{name: answering(INPUTS[name], wrong)})


def test_a_signature_that_lacks_an_output_is_refused(tmp_path: Path) -> None:
    lacking = answering(INPUTS[CONFIDENCE_SIGNATURE], {SCORES: [0.5]})
    with pytest.raises(Refused, match="^signature confidence: gives no confidence_bytes, mask_bytes"):
        probed(tmp_path, **{CONFIDENCE_SIGNATURE: lacking})


def test_a_signature_whose_input_no_request_has_is_refused(tmp_path: Path) -> None:
    strange = answering(tf.TensorSpec((None,), tf.float32, "depth"), {SCORES: [0.5]})
    with pytest.raises(Refused, match="^signature strange: takes depth, of which the infra check has no example"):
        probed(tmp_path, strange=strange)


CHILD = """
import sys, time
from models.export.probe import end_with_parent
end_with_parent(int(sys.argv[1]))
print("lives", flush=True)
time.sleep(20)
print("outlived its parent", flush=True)
"""
#: Starts a child, and is killed as soon as it is told to be.
PARENT = """
import os, signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
ROOT = Path(__file__).resolve().parents[3]


def test_a_child_ends_when_its_parent_is_killed():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdin and parent.stdout
        assert parent.stdout.readline() == "lives\n"
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.read() == ""  # until the last process that could write has ended


def test_a_child_whose_parent_is_dead_already_ends_at_once():
    ended = subprocess.run([sys.executable, "-c", CHILD, "1"], capture_output=True, cwd=ROOT, check=False)

    assert (ended.returncode, ended.stdout) == (-9, b"")
