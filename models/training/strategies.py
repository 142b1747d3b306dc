"""Where a training runs: the one place that turns the configuration into a `tf.distribute` strategy.

A worker is a process; a replica is a device that holds a copy of the network. Every worker runs the same program on the
same configuration and sees the same folders, and each replica computes its share of every update. The worker with
number 0, the chief, is the only one that writes: checkpoints, curves, the exported model.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from data.errors import ConfigError, TrainingError
from models.config import TrainingConfig

CLUSTER_VARIABLE = "TF_CONFIG"
CLUSTER_EXAMPLE = '{"cluster": {"worker": ["host0:port", "host1:port"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Distribution:
    """The replicas that train together, and the number of this worker among them."""

    name: str
    """`TrainingConfig.strategy`."""
    strategy: tf.distribute.Strategy
    worker: int = 0
    """Number of this worker, from 0."""
    workers: int = 1
    """Number of workers."""

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Number of replicas of all workers together."""
        return self.strategy.num_replicas_in_sync

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which new variables have a copy on each replica."""
        return self.strategy.scope()

    def check(self, config: TrainingConfig) -> None:
        """Refuses a configuration that these replicas cannot train.

        Raises:
            ConfigError: the configuration has another strategy, or the batch does not split evenly.
        """
        if config.strategy != self.name:
            raise ConfigError(f"training.strategy is {config.strategy!r}, but the replicas are those of {self.name!r}")
        if config.global_batch_size % (self.replicas * config.accumulation):
            raise ConfigError(
                f"training.global_batch_size {config.global_batch_size} does not split evenly over {self.replicas} "
                f"replicas with training.accumulation {config.accumulation}; allowed are multiples of "
                f"{self.replicas * config.accumulation}"
            )

    def sum_over_workers(self, values: np.ndarray) -> np.ndarray:
        """The sum of the values of all workers, which must have one shape and dtype; waits for the last worker."""
        if self.workers == 1:
            return values
        # Each replica contributes the value of its worker.
        total = np.asarray(_sum_over_replicas(self.strategy, tf.constant(values)))
        return total // (self.replicas // self.workers)

    def wait(self) -> None:
        """Waits until all workers have called this."""
        self.sum_over_workers(np.ones((), np.int64))


def _sum_over_replicas(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    def share() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    @tf.function(autograph=False)
    def total() -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(share))[0]

    return total()


def connect_tpu() -> tf.distribute.Strategy:
    """The strategy of this machine's TPU, or of the TPU that the environment variable TPU_NAME names."""
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def distribute(name: str, *, tpu: Callable[[], tf.distribute.Strategy] = connect_tpu) -> Distribution:
    """The replicas that `TrainingConfig.strategy` names. Call it before anything else of TensorFlow.

    Args:
        name: "one_device": the first GPU or else the processor. "mirrored": all GPUs of this machine. "multi_worker":
            the workers of the environment variable TF_CONFIG, each with all its GPUs. "tpu": all cores of a TPU.
        tpu: connects to the TPU.

    Raises:
        ConfigError: TF_CONFIG is absent or wrong.
        TrainingError: the devices are not available.
    """
    makers: dict[str, Callable[[], Distribution]] = {
        "one_device": lambda: Distribution(name, tf.distribute.get_strategy()),
        "mirrored": lambda: Distribution(name, tf.distribute.MirroredStrategy(_devices())),
        "multi_worker": lambda: _multi_worker(name),
        "tpu": lambda: Distribution(name, _connected(tpu)),
    }
    return makers[name]()


def _devices() -> list[str]:
    """The names of all GPUs or, without a GPU, of the logical CPUs."""
    gpus, processors = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
    found = gpus or processors
    if len(found) < 2:
        raise TrainingError(
            f"training.strategy 'mirrored' needs at least 2 GPUs; this machine has {len(gpus)}. Allowed here is "
            "'one_device'; several machines together are 'multi_worker'"
        )
    return [device.name for device in found]


def _multi_worker(name: str) -> Distribution:
    cluster, worker = read_cluster(os.environ.get(CLUSTER_VARIABLE))
    return Distribution(name, tf.distribute.MultiWorkerMirroredStrategy(), worker, len(cluster))


def read_cluster(text: str | None) -> tuple[Sequence[str], int]:
    """The addresses of all workers, and the number of this one, from the JSON in TF_CONFIG.

    Raises:
        ConfigError: the text is empty, is not valid, or has tasks of another type than worker.
    """
    if not text:
        raise _wrong_cluster("is not set")
    try:
        found = json.loads(text)
        workers, task = found["cluster"]["worker"], found["task"]
        kind, index = task["type"], int(task["index"])
    except (ValueError, LookupError, TypeError) as error:
        raise _wrong_cluster(f"cannot be read ({type(error).__name__}: {error})") from error
    others = sorted(set(found["cluster"]) - {"worker"})
    if others or kind != "worker":
        raise _wrong_cluster(f"has tasks of type {', '.join([*others, kind])}; allowed are workers alone")
    if not isinstance(workers, list) or not workers or not 0 <= index < len(workers):
        raise _wrong_cluster(f"gives this process the number {index} among the workers {workers}")
    return workers, index


def _wrong_cluster(what: str) -> ConfigError:
    return ConfigError(
        f"training.strategy 'multi_worker' needs the environment variable {CLUSTER_VARIABLE}, which {what}; "
        f"an example is {CLUSTER_EXAMPLE}"
    )


def _connected(tpu: Callable[[], tf.distribute.Strategy]) -> tf.distribute.Strategy:
    try:
        return tpu()
    except (ValueError, tf.errors.OpError, OSError) as error:
        raise TrainingError(
            f"training.strategy 'tpu' finds no TPU: {str(error).splitlines()[0]} A TPU machine, or the name of one in "
            "TPU_NAME, is needed; allowed here is 'one_device'"
        ) from error
