"""ImageExampleGen: labelled images of any known layout become examples, in splits; what is bad is set aside.

Listing, pairing and decoding happen inside Beam. What is shuffled is the description of a sample (its paths), never
a picture, so that memory does not grow with the pictures.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import apache_beam as beam
import numpy as np
import tensorflow as tf
from tfx import types
from tfx.components.example_gen.utils import FINGERPRINT_PROPERTY_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Quarantine
from components.code_hash import code_hash
from components.drivers import StateDriver
from components.ingest.manifest import write_manifest
from components.storage.file_systems import file_system
from components.storage.fingerprint import fingerprint
from data import features
from data.dataset import DataConfig, resolve_label_map, source_of
from data.errors import DataError
from data.files import read_bytes
from data.images import read_image
from data.labels import LabelMap
from data.layouts import open_layout
from data.layouts.base import SPLITS, BadEntry, Layout, Sample
from data.masks import read_mask
from data.splits import SplitPlan, plan_splits

BAD = "bad"
BAD_FILE = "bad.jsonl"
COUNTS_FILE = "counts.json"

#: The kind of reason that stops the run however few they are: nobody knows how many images are missing.
LISTING_FAILED = "listing failed"

#: Samples are grouped by a hash into this many lists, whose order is that of no folder: neighbouring frames of a
#: video do not end up side by side in the records.
SHUFFLE_GROUPS = 256

#: How many bad files an error message names; the quarantine artifact names all.
REASONS_SHOWN = 20


def bytes_feature(value: bytes) -> tf.train.Feature:
    """A feature of one byte string."""
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def int_feature(value: int) -> tf.train.Feature:
    """A feature of one int64."""
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def float_feature(value: float) -> tf.train.Feature:
    """A feature of one float32."""
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


def make_example(sample: Sample, encoded: bytes, image: np.ndarray, mask: np.ndarray, labels: LabelMap) -> bytes:
    """Serialises one labelled image as `data.features` describes.

    Args:
        sample: Where it comes from.
        encoded: The encoded image.
        image: (height, width, 3) uint8 RGB, decoded.
        mask: (height, width) uint8 class ids, `IGNORE_LABEL` where void.
        labels: Names the classes.
    """
    luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255.0
    pixels = np.bincount(mask.ravel(), minlength=256)
    feature = {
        features.IMAGE: bytes_feature(encoded),
        features.MASK: bytes_feature(tf.io.encode_png(mask[:, :, None]).numpy()),
        features.KEY: bytes_feature(sample.key.encode()),
        features.SOURCE: bytes_feature(sample.source.encode()),
        features.HEIGHT: int_feature(mask.shape[0]),
        features.WIDTH: int_feature(mask.shape[1]),
        features.BRIGHTNESS: float_feature(float(luma.mean())),
        features.CONTRAST: float_feature(float(luma.std())),
        features.VOID_FRACTION: float_feature(float(pixels[features.IGNORE_LABEL] / mask.size)),
    }
    for class_id, name in enumerate(labels.names):
        feature[features.pixels_key(name)] = int_feature(int(pixels[class_id]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def open_data(config: DataConfig) -> Layout:
    """The layout of the configured dataset."""
    return open_layout(config.layout, config.path, file_system(config.path), config.group_pattern)


class ListSamples(beam.DoFn):
    """Official split, or None -> its samples and bad entries, streamed."""

    def __init__(self, config: DataConfig):
        self._config = config

    def setup(self) -> None:
        """Opens the layout in the worker: it may hold large annotation files, and is never pickled."""
        self._layout = open_data(self._config)

    def process(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Lists one split; where that ends with an error, the last entry says so."""
        try:
            yield from self._layout.samples(split)
        except DataError as error:
            # Raised here, it would reach nobody but the log: Beam turns what a worker raises into a RuntimeError.
            yield BadEntry(split or self._config.path, f"{LISTING_FAILED}: {error}")


class ReadPairs(beam.DoFn):
    """Samples -> serialized examples, tagged with their split; bad ones tagged `BAD`."""

    def __init__(self, config: DataConfig, labels: LabelMap, plan: SplitPlan, prefix: str):
        self._config = config
        self._labels = labels
        self._plan = plan
        self._prefix = prefix
        self._files = file_system(config.path)

    def process(self, group: tuple[int, Iterable[Sample | BadEntry]]) -> Iterator[Any]:
        """Reads one group's samples, one at a time; entries of one image are always in the same group."""
        # Beam's order of a group differs from run to run, and decides nothing.
        samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for entry in group[1]:
            if isinstance(entry, BadEntry):
                yield self._bad(entry.path, entry.reason)
            else:
                samples[entry.key].append(entry)
        for key in sorted(samples):
            chosen, *others = samples[key] if len(samples[key]) == 1 else sorted(samples[key], key=_precedence)
            for other in others:
                yield self._bad(key, _listed_twice(chosen, other))
            try:
                example = self._read(chosen)
            except DataError as error:
                yield self._bad(key, str(error))
                continue
            split = self._plan.assign(chosen, self._config.val_fraction, self._config.test_fraction)
            yield beam.pvalue.TaggedOutput(split, example)

    def _bad(self, path: str, reason: str) -> beam.pvalue.TaggedOutput:
        return beam.pvalue.TaggedOutput(BAD, {"path": self._prefix + path, "reason": reason})

    def _read(self, sample: Sample) -> bytes:
        content = read_bytes(sample.image, self._files, "image")
        encoded, image = read_image(content, self._config.max_pixels)
        mask = read_mask(sample.mask, self._labels, image.shape[:2], self._files)
        if (mask == features.IGNORE_LABEL).all():
            raise DataError("all void: no pixel of the mask has a class, so there is nothing to learn or to judge")
        sample = replace(sample, key=self._prefix + sample.key, source=source_of(self._config, sample))
        return make_example(sample, encoded, image, mask, self._labels)


def _precedence(sample: Sample) -> tuple[int, str]:
    """Sorts the entries of one image: the first one counts."""
    return -SPLITS.index(sample.split) if sample.split else 0, repr(sample)


def _listed_twice(chosen: Sample, other: Sample) -> str:
    """Why an entry of an image is quarantined."""
    if chosen.split != other.split:
        return (
            f"listed twice: in split {chosen.split}, which counts, and in split {other.split}; test comes before val "
            "and val before train, so that no image of an evaluation is trained on"
        )
    where = f" in split {chosen.split}" if chosen.split else ""
    if chosen == other:
        return f"listed twice: alike{where}"
    return f"listed twice: with different annotations{where}; the first in alphabetical order counts"


def shuffle_group(entry: Sample | BadEntry) -> int:
    """A stable pseudo-random number below `SHUFFLE_GROUPS`."""
    name = entry.key if isinstance(entry, Sample) else entry.path
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") % SHUFFLE_GROUPS


class LabelledImages(beam.PTransform):
    """Beam pipeline -> {split or `BAD`: PCollection of serialized examples, or of bad entries}.

    Args of the constructor:
        config: What to read; its path is a folder.
        prefix: Put before every key and every path, so that several datasets can be told apart.
    """

    def __init__(self, config: DataConfig, prefix: str = ""):
        super().__init__()
        self._config = config
        self._prefix = prefix

    def expand(self, pipeline: beam.Pipeline) -> Any:
        """Lists, shuffles the listing, reads."""
        layout = open_data(self._config)
        splits: tuple[str | None, ...] = layout.splits() or (None,)
        labels, plan = resolve_label_map(self._config, layout), plan_splits(layout.splits())
        read = ReadPairs(self._config, labels, plan, self._prefix)
        return (
            pipeline
            | "Splits" >> beam.Create(splits)
            | "List" >> beam.ParDo(ListSamples(self._config))
            | "Key" >> beam.WithKeys(shuffle_group)
            | "Shuffle" >> beam.GroupByKey()
            | "Read" >> beam.ParDo(read).with_outputs(BAD, *SPLITS)
        )


def reason_kind(reason: str) -> str:
    """What stands before the first colon of a reason: 'size mismatch', 'mask missing', ..."""
    return reason.split(":", 1)[0]


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs `LabelledImages`, writes examples and quarantine, and stops the run when too much is bad."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        config = DataConfig.model_validate_json(exec_properties["config"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        examples.set_string_custom_property(FINGERPRINT_PROPERTY_NAME, exec_properties[FINGERPRINT_PROPERTY_NAME])
        quarantine = artifact_utils.get_single_uri(output_dict["quarantine"])
        with self._make_beam_pipeline() as pipeline:
            write_examples(pipeline | "LabelledImages" >> LabelledImages(config), examples.uri, quarantine)
        check_counts(quarantine, config)


def split_folder(examples_uri: str, split: str) -> str:
    """Where TFX looks for the records of a split."""
    return os.path.join(examples_uri, f"Split-{split}")


def write_examples(outputs: Any, examples_uri: str, quarantine_uri: str) -> None:
    """Writes the outputs of `LabelledImages`: records by split, their manifest, what is bad, and counts."""
    counts = [
        outputs[split] | f"Name[{split}]" >> beam.Map(lambda _, name: ("split", name), name=split) for split in SPLITS
    ]
    for split in SPLITS:
        _ = outputs[split] | f"Write[{split}]" >> beam.io.WriteToTFRecord(
            os.path.join(split_folder(examples_uri, split), "examples"), file_name_suffix=".gz"
        )
    write_manifest({split: outputs[split] for split in SPLITS}, examples_uri)
    bad = outputs[BAD]
    counts.append(bad | "Kind" >> beam.Map(lambda entry: (BAD, reason_kind(entry["reason"]))))
    _ = (
        bad
        | "BadLines" >> beam.Map(json.dumps)
        | "WriteBad" >> beam.io.WriteToText(os.path.join(quarantine_uri, BAD_FILE), num_shards=1)
    )
    _ = (
        counts
        | "AllCounts" >> beam.Flatten()
        | "Count" >> beam.combiners.Count.PerElement()
        | "ListCounts" >> beam.combiners.ToList()
        | "CountLines" >> beam.Map(counts_json)
        | "WriteCounts"
        >> beam.io.WriteToText(os.path.join(quarantine_uri, COUNTS_FILE), num_shards=1, shard_name_template="")
    )


def counts_json(pairs: list[tuple[tuple[str, str], int]]) -> str:
    """`counts.json`: {"splits": {name: images}, "bad": {kind of reason: files}}."""
    counted = dict(pairs)
    splits = {split: counted.get(("split", split), 0) for split in SPLITS}
    bad = {kind: count for (what, kind), count in sorted(counted.items()) if what == BAD}
    return json.dumps({"splits": splits, "bad": bad})


def read_counts(quarantine_uri: str) -> dict[str, dict[str, int]]:
    """The content of a quarantine artifact's `counts.json`."""
    with file_system(quarantine_uri).open(os.path.join(quarantine_uri, COUNTS_FILE)) as file:
        return cast(dict[str, dict[str, int]], json.loads(file.read()))


def read_bad(quarantine_uri: str, limit: int | None = None) -> list[dict[str, str]]:
    """The entries of a quarantine artifact: [{"path", "reason"}], at most `limit`."""
    entries: list[dict[str, str]] = []
    files = file_system(quarantine_uri)
    for name in sorted(name for name in files.list(quarantine_uri) if name.startswith(BAD_FILE)):
        with files.open(files.join(quarantine_uri, name)) as file:
            for line in file:
                if limit is not None and len(entries) >= limit:
                    return entries
                entries.append(json.loads(line))
    return entries


def check_counts(quarantine_uri: str, config: DataConfig) -> None:
    """Raises DataError when too many files are bad, or a split is empty."""
    check_bad(quarantine_uri, config)
    check_splits(quarantine_uri, config)


def check_bad(quarantine_uri: str, config: DataConfig) -> None:
    """Raises DataError when a listing broke off, nothing is good, or too much is bad."""
    counts = read_counts(quarantine_uri)
    good, bad = sum(counts["splits"].values()), sum(counts["bad"].values())
    entries = "\n".join(f"  {e['path']}: {e['reason']}" for e in read_bad(quarantine_uri, REASONS_SHOWN))
    if LISTING_FAILED in counts["bad"]:
        failed = [e for e in read_bad(quarantine_uri) if reason_kind(e["reason"]) == LISTING_FAILED]
        raise DataError("\n".join(f"{config.path}: split {e['path']}: {e['reason']}" for e in failed))
    more = f"\n  ... and {bad - REASONS_SHOWN} more" if bad > REASONS_SHOWN else ""
    if good == 0:
        raise DataError(f"{config.path}: no valid pair of image and mask ({bad} bad)\n{entries}{more}")
    if bad > config.max_bad_fraction * (good + bad):
        raise DataError(
            f"{config.path}: {bad} of {good + bad} images are bad, more than data.max_bad_fraction="
            f"{config.max_bad_fraction} allows\n{entries}{more}"
        )


def check_splits(quarantine_uri: str, config: DataConfig) -> None:
    """Raises DataError when a split is empty."""
    counts = read_counts(quarantine_uri)["splits"]
    empty = [split for split in SPLITS if counts[split] == 0]
    if empty:
        raise DataError(
            f"{config.path}: split {', '.join(empty)} is empty ({counts}); give it images, or raise "
            f"data.val_fraction={config.val_fraction} or data.test_fraction={config.test_fraction}"
        )


class Driver(StateDriver):
    """Makes the cache key depend on the content of the data folder."""

    def state(self, exec_properties: dict[str, Any]) -> dict[str, str]:
        """The folder's fingerprint."""
        config = DataConfig.model_validate_json(exec_properties["config"])
        return {FINGERPRINT_PROPERTY_NAME: fingerprint(config.path, file_system(config.path))}


class ImageExampleGenSpec(ComponentSpec):
    """Parameters and outputs of `ImageExampleGen`."""

    PARAMETERS = {
        "config": ExecutionParameter(type=str),
        "code_hash": ExecutionParameter(type=str),
        FINGERPRINT_PROPERTY_NAME: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "quarantine": ChannelParameter(type=Quarantine),
    }


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Reads labelled images into examples.

    Args of the constructor:
        config: The `data` section, with layout and label map resolved.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, config: DataConfig):
        super().__init__(
            spec=ImageExampleGenSpec(
                config=config.model_dump_json(exclude={"license"}),  # a note for people
                code_hash=code_hash(__name__),
                examples=types.Channel(type=standard_artifacts.Examples),
                quarantine=types.Channel(type=Quarantine),
            )
        )
