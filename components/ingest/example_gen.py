"""ImageExampleGen: labelled images of any known layout become examples, in splits; bad ones are quarantined.

Listing, pairing and decoding happen inside Beam. What is shuffled is the description of a sample (its paths), never
an image, so that memory does not grow with the images.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.metrics.metric import MetricResults
from apache_beam.runners.runner import PipelineResult
from tfx import types
from tfx.components.example_gen.utils import FINGERPRINT_PROPERTY_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Quarantine
from components.code_hash import code_hash
from components.drivers import StateDriver
from components.ingest.examples import make_example, write_examples
from components.ingest.quarantine import BAD, LISTING_FAILED, check_bad, check_splits, write_quarantine
from components.storage.file_systems import file_system
from components.storage.fingerprint import fingerprint
from data import features
from data.dataset import DataConfig, open_dataset, resolve_label_map, source_of
from data.errors import DataError
from data.labels import LabelMap
from data.layouts.base import SPLITS, BadEntry, Sample, with_losses
from data.masks import EDGE, NEAR, corrections
from data.pairs import check_sizes, read_pair
from data.splits import SplitPlan, plan_splits

#: Samples are grouped by a hash into this many lists, so that neighbouring frames of a video are not neighbours in the
#: records.
SHUFFLE_GROUPS = 256


#: Namespace of Beam's counters of corrected pixels, which have the names of `data.masks`, and that of the masks.
CORRECTED, MASKS = "corrected", "masks"


class ListSamples(beam.DoFn):
    """Official split, or None -> its samples and bad entries, streamed."""

    def __init__(self, config: DataConfig):
        self._config = config

    def setup(self) -> None:
        """Opens the layout in the worker: it may hold large annotation files, and is never pickled."""
        self._layout = open_dataset(self._config, file_system(self._config.path))

    def process(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Lists one split; if the listing fails, the last entry has the reason."""
        try:
            yield from with_losses(self._layout.samples(split), self._config.max_bad_fraction)
        except DataError as error:
            # If it were raised here, only the log would show it: Beam turns what a worker raises into a RuntimeError.
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
        tally: Counter[str] = Counter()
        encoded, image, mask = read_pair(sample, self._labels, self._config, self._files, tally)
        if tally[NEAR] or tally[EDGE]:
            for counter, pixels in (tally | {MASKS: 1}).items():
                Metrics.counter(CORRECTED, counter).inc(pixels)
        if (mask == features.IGNORE_LABEL).all():
            raise DataError("all void: no pixel of the mask has a class, so there is nothing to learn or to evaluate")
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
        prefix: Put before every key and every path, so that the images of several datasets can be distinguished.
    """

    def __init__(self, config: DataConfig, prefix: str = ""):
        super().__init__()
        self._config = config
        self._prefix = prefix

    def expand(self, pipeline: beam.Pipeline) -> Any:
        """Lists, shuffles the listing, reads."""
        layout = open_dataset(self._config, file_system(self._config.path))
        splits: tuple[str | None, ...] = layout.splits() or (None,)
        labels, plan = resolve_label_map(self._config, layout), plan_splits(layout.splits())
        check_sizes(layout, self._config)
        read = ReadPairs(self._config, labels, plan, self._prefix)
        return (
            pipeline
            | "Splits" >> beam.Create(splits)
            | "List" >> beam.ParDo(ListSamples(self._config))
            | "Key" >> beam.WithKeys(shuffle_group)
            | "Shuffle" >> beam.GroupByKey()
            | "Read" >> beam.ParDo(read).with_outputs(BAD, *SPLITS)
        )


def log_corrections(result: PipelineResult) -> None:
    """Writes to the log how many pixels of masks were corrected, if any."""
    counters = result.metrics().query(MetricsFilter().with_namespace(CORRECTED))[MetricResults.COUNTERS]
    counts = {counter.key.metric.name: counter.result for counter in counters}
    if counts:
        logging.warning("%d masks were corrected: %s", counts[MASKS], corrections(Counter(counts)))


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
            outputs = pipeline | "LabelledImages" >> LabelledImages(config)
            write_examples(outputs, examples.uri)
            write_quarantine(outputs, quarantine)
        log_corrections(pipeline.result)
        check_bad(quarantine, config)
        check_splits(quarantine, config)


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
