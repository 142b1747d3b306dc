"""Fixtures that every test may use, and the rule that a skip is a failure where DEEPLAB_NO_SKIPS is set."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.beam_servers"]

# Background jobs of a shell, and what runs under nohup, ignore these, and so would all that a test starts.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How fast properties are tried says something of the machine, not of the code; and a test tries the same each time.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real pictures that DEEPLAB_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("DEEPLAB_TEST_DATA")
    if not folder:
        pytest.skip("DEEPLAB_TEST_DATA does not name a folder of real datasets")
    return Path(folder)


@pytest.fixture(scope="session")
def write_records() -> Callable[[Path, Iterable[tuple[np.ndarray, np.ndarray]]], str]:
    """Writes (image, mask) pairs as a TFRecord file, GZIP where its name ends in `.gz`; gives its path."""
    import tensorflow as tf

    from data.features import IMAGE, MASK

    def png(pixels: np.ndarray) -> tf.train.Feature:
        encoded = tf.io.encode_png(pixels).numpy()
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))

    def write(path: Path, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
            for image, mask in pairs:
                features = tf.train.Features(feature={IMAGE: png(image), MASK: png(mask[:, :, None])})
                writer.write(tf.train.Example(features=features).SerializeToString())
        return str(path)

    return write


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What is begun last should not be what takes minutes by itself: one process would wait for the other.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if not os.environ.get("DEEPLAB_LONG_TESTS"):
        skipped = pytest.mark.skip(reason="takes minutes; runs with `make test LONG=1`")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skipped)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("DEEPLAB_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"DEEPLAB_NO_SKIPS is set, but this test does not run here: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    excused = any(mark.kwargs.get("reason") or mark.args for mark in item.iter_markers("platform"))
    postponed = item.get_closest_marker("long") and not os.environ.get("DEEPLAB_LONG_TESTS")
    if not excused and not postponed:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
