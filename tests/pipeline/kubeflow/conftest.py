"""The pipeline, compiled once for Kubeflow on a tiny dataset."""

from pathlib import Path

import pytest

from components.storage.file_systems import file_system
from pipeline.config import Config, load_config, resolve
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline

#: Makes every stage as short as it can be; as for the local runner's tests.
TINY = (
    "model.width=0.35",
    "model.aspp_channels=8",
    "model.decoder_channels=8",
    "model.low_level_channels=8",
    "augment.crop=48",
    "training.steps=6",
    "training.global_batch_size=2",
    "training.warmup_steps=1",
    "training.eval_every=3",
    "training.checkpoint_every=3",
    "infra.requests=1",
    "push.model_name=tiny",
)

#: Where the tests' pipeline keeps things; none of it is touched by compiling.
PLACES = {
    "image": "registry.example/deeplab:1",
    "pipeline_root": "minio://mlpipeline/demo",
    "serving": "/mnt/volume/serving",
    "checkpoints": "/mnt/volume/checkpoints",
}


def resolved(data: Path, *overrides: str) -> Config:
    """A resolved configuration of a tiny run on a dataset."""
    config = load_config([], [f"data.path={data}", *TINY, *overrides])
    return resolve(config, file_system(config.data.path))


@pytest.fixture(scope="session")
def config(tiny_dataset: Path) -> Config:
    """The configuration that `compiled` was made from."""
    return resolved(tiny_dataset)


@pytest.fixture(scope="session")
def compiled(config: Config) -> CompiledPipeline:
    """The pipeline as Kubeflow gets it."""
    from pipeline.kubeflow.compiler import compile_pipeline

    return compile_pipeline(config, **PLACES)
