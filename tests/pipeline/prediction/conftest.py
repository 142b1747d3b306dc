"""A small pushed model, loaded once, and images."""

import io
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from components.publishing.directory import ModelVersion, publish
from data.config import PreprocessConfig
from data.labels import ClassLabel, LabelMap
from models.config import InferenceConfig, ModelConfig
from models.export.saved_model import export_saved_model
from models.export.segmenter import Segmenter
from models.network.deeplab import build_model
from pipeline.prediction.outputs import prepare_folder
from pipeline.prediction.predictor import PredictJob, Predictor, load_model

LABELS = LabelMap(classes=tuple(ClassLabel(name=name) for name in ("sky", "road", "tree")))
NETWORK = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)
PIXELS = 1_000_000

MakePredictor = Callable[..., Predictor]


def blocks(seed: int) -> np.ndarray:
    """Random blocks of 8 x 8, (56, 72, 3) uint8."""
    colors = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return colors.repeat(8, axis=0).repeat(8, axis=1)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write(folder: Path, **contents: bytes) -> None:
    """Writes files; `__` stands for a dot in a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_bytes(content)


def outputs(out: Path) -> dict[str, bytes]:
    """Every file of an output folder but the journal's: relative path -> content."""
    files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "predictions"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A model that slides windows over images, and sees them mirrored, too."""
    keras.utils.set_random_seed(0)
    model = build_model(NETWORK, 3, mean=[120, 110, 100], variance=[3000, 2900, 3100])
    model(np.stack([blocks(seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    folder = tmp_path_factory.mktemp("model")
    inference = InferenceConfig(window=32, flip=True)
    export_saved_model(model, folder / "made", label_map=LABELS, preprocess=PreprocessConfig(), inference=inference)
    return publish(str(folder / "made"), str(folder / "serving" / "deeplab"), list(LABELS.names), extra={})


@pytest.fixture(scope="session")
def segmenter(served: ModelVersion) -> Segmenter:
    return load_model(served)


@pytest.fixture
def predictor(served: ModelVersion, segmenter: Segmenter) -> MakePredictor:
    """Makes predictors that write into a folder."""

    def make(out: Path, *, probability: bool = False, max_pixels: int = PIXELS) -> Predictor:
        prepare_folder(str(out), LABELS.names)
        return Predictor(segmenter, PredictJob(served, str(out), probability, max_pixels), workers=2)

    return make
