"""The cost of evaluation: the Evaluator's time relative to bare batched inference on the same test images.

Usage: PYTHONPATH=. python benchmarks/evaluation.py DATASET [--images 233] [--rounds 3]      (about five minutes)

Bare inference reads and decodes the images and lets `predict_pixels` answer batches of them; nothing is compared. Of
two batch sizes, the faster one counts. The Evaluator's start-up (Beam, loading the model) is measured by evaluating a
single image, and reported separately.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import apache_beam as beam
import tensorflow as tf
from rich.console import Console
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

from components.artifacts import PRESENT
from components.config import EvaluationConfig, ValidationConfig
from components.evaluation.evaluator import Executor
from components.evaluation.results import read_images
from components.ingest.example_gen import LabelledImages
from components.ingest.examples import write_examples
from components.ingest.sample_images import encoded_images, test_examples
from components.validation.schema import SCHEMA_FILE, make_schema
from data.config import PreprocessConfig
from data.dataset import DataConfig, resolve_label_map
from data.files import LocalFiles
from data.labels import LabelMap
from data.layouts import open_layout
from data.layouts.base import TEST
from data.preprocess import decode_image
from models.config import ModelConfig
from models.export.saved_model import EVALUATE_SIGNATURE, EXAMPLES, PIXELS, PIXELS_SIGNATURE, export_saved_model
from models.network.deeplab import build_model

BATCHES = (1, 8)
BEAM = ["--runner=FnApiRunner"]


def artifact(kind: type[Artifact], folder: Path) -> Artifact:
    """An artifact in a folder, which is created."""
    folder.mkdir(parents=True)
    made = kind()
    made.uri = str(folder)
    return made


def ingest(dataset: str, folder: Path) -> tuple[list[bytes], LabelMap]:
    """The examples of a dataset's test split."""
    config = DataConfig(path=dataset)
    layout = open_layout(config.layout, dataset, LocalFiles())
    labels = resolve_label_map(config, layout)
    examples = artifact(standard_artifacts.Examples, folder)
    examples.split_names = artifact_utils.encode_split_names([TEST])
    resolved = config.model_copy(update={"layout": layout.name, "label_map": labels})
    with beam.Pipeline(argv=BEAM) as pipeline:
        write_examples(pipeline | LabelledImages(resolved), examples.uri)
    return test_examples(examples, 10**9), labels


def store(records: list[bytes], folder: Path) -> Artifact:
    """An Examples artifact that has a test split only."""
    examples = artifact(standard_artifacts.Examples, folder)
    examples.split_names = artifact_utils.encode_split_names([TEST])
    split = Path(artifact_utils.get_split_uri([examples], TEST))
    split.mkdir()
    with tf.io.TFRecordWriter(str(split / "examples-00000-of-00001.gz"), "GZIP") as writer:
        for record in records:
            writer.write(record)
    return examples


def bare(examples: Artifact, call: Callable[..., dict[str, tf.Tensor]], batch_size: int) -> None:
    """Batched inference; a batch holds images of one size."""
    images = map(decode_image, encoded_images(test_examples(examples, 10**9)))
    for _, group in groupby(images, lambda image: tuple(image.shape)):
        while batch := list(islice(group, batch_size)):
            call(**{PIXELS: tf.stack(batch)})


def compared(examples: Artifact, call: Callable[..., dict[str, tf.Tensor]]) -> None:
    """The model's own comparison of its predictions with the labels, without Beam."""
    call(**{EXAMPLES: tf.constant(test_examples(examples, 10**9))})


def evaluate(examples: Artifact, count: int, model: Artifact, labels: LabelMap, folder: Path) -> None:
    """A run of the Evaluator without a served model, on `count` examples."""
    served = artifact(standard_artifacts.Model, folder / "served")
    served.set_int_custom_property(PRESENT, 0)
    schema = artifact(standard_artifacts.Schema, folder / "schema")
    proto = make_schema(ValidationConfig(), labels.names)
    io_utils.write_pbtxt_file(str(Path(schema.uri, SCHEMA_FILE)), proto)
    outputs = {
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")],
        "blessing": [artifact(standard_artifacts.ModelBlessing, folder / "blessing")],
    }
    context = Executor.Context(beam_pipeline_args=BEAM, tmp_dir=str(folder / "tmp"), unique_id="1")
    Executor(context).Do(
        {"examples": [examples], "model": [model], "baseline_model": [served], "schema": [schema]},
        outputs,
        {"config": EvaluationConfig().model_dump_json(), "label_map": labels.model_dump_json()},
    )
    if len(read_images(outputs["evaluation"][0].uri)) != count:
        raise SystemExit(f"the Evaluator did not evaluate all of {count} images")


def bare_name(batch_size: int) -> str:
    """The name of the measurement."""
    return f"bare inference, batches of {batch_size}"


def seconds(call: Callable[[], None]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Takes the measurements in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--images", type=int, default=233)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        records, labels = ingest(arguments.dataset, folder / "ingested")
        records = records[: arguments.images]
        whole, single = store(records, folder / "whole"), store(records[:1], folder / "single")
        model = artifact(standard_artifacts.Model, folder / "model")
        network = build_model(ModelConfig(width=0.75, aspp_channels=128, decoder_channels=128), labels.num_classes)
        path = path_utils.serving_model_dir(model.uri)
        export_saved_model(network, path, label_map=labels, preprocess=PreprocessConfig())
        loaded = tf.saved_model.load(path)
        pixels, evaluate = (loaded.signatures[name] for name in (PIXELS_SIGNATURE, EVALUATE_SIGNATURE))
        numbers = iter(range(10**6))
        measures = {
            **{bare_name(size): partial(bare, whole, pixels, size) for size in BATCHES},
            "signature `evaluate` alone": lambda: compared(whole, evaluate),
            "Evaluator": lambda: evaluate(whole, len(records), model, labels, folder / f"run{next(numbers)}"),
            "Evaluator on one image": lambda: evaluate(single, 1, model, labels, folder / f"run{next(numbers)}"),
        }
        bare(single, pixels, 1)
        compared(single, evaluate)
        found = [{name: seconds(call) for name, call in measures.items()} for _ in range(arguments.rounds)]
    median = {name: statistics.median(times[name] for times in found) for name in measures}
    report(len(records), median)


def report(images: int, median: dict[str, float]) -> None:
    """Prints the measurements."""
    console = Console()
    for name, time_taken in median.items():
        console.print(f"{name:30} {time_taken:8.2f} s")
    bare_time, start_up = min(median[bare_name(size)] for size in BATCHES), median["Evaluator on one image"]
    evaluating = (median["Evaluator"] - start_up) * images / (images - 1)
    console.print(f"start-up of the Evaluator {start_up:.1f} s, one image included")
    console.print(f"{images} images: signature {median['signature `evaluate` alone'] / bare_time:.2f} x bare inference")
    console.print(f"{images} images: Evaluator after start-up {evaluating / bare_time:.2f} x bare inference")


if __name__ == "__main__":
    main()
