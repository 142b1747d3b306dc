"""WindowExampleGen: ImageExampleGen for data that arrive in spans. A window of spans becomes one set of examples.

Each span is ingested by itself, once, into the cache of `components.span_cache`; a run puts together what it needs
of it. So a window costs what is new in it, and a run that is killed loses one span's work at most.
"""

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
from pydantic import BaseModel
from tfx import types
from tfx.components.example_gen.utils import FINGERPRINT_PROPERTY_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Quarantine, Spans
from components.drivers import StateDriver
from components.example_gen import (
    BAD,
    BAD_FILE,
    COUNTS_FILE,
    LabelledImages,
    check_bad,
    check_splits,
    counts_json,
    read_bad,
    read_counts,
    reason_kind,
    split_folder,
    write_examples,
)
from components.files import file_system
from components.fingerprint import fingerprint
from components.span_cache import SpanCache, create, place, read_small, write_small
from components.span_records import (
    PICTURES,
    WINDOW_FILE,
    Role,
    SpanRecord,
    SpanState,
    WindowRecord,
    pictures_file,
)
from data import features
from data.dataset import DataConfig
from data.errors import DataError, IncompleteDataError
from data.labels import LabelMap
from data.layouts.base import SPLITS
from data.manifest import ImageFile, pack_part, part_name, read_manifest
from data.masks import UNKNOWN_LABEL
from data.spans import Span, SpansConfig, is_incomplete, parse_pattern, select

TRAIN, VAL, TEST = SPLITS

#: Execution property: the JSON of a `WindowState`.
SPANS_STATE = "spans_state"

#: Where a result of the cache has what is in the `Quarantine` artifact.
QUARANTINE = "quarantine"

#: Says which span judges, below the folder of the cache.
EVALUATION_FILE = "evaluation.json"

#: A dataset apart that judges is called so in the keys of its images.
EVALUATION = "evaluation"


class WindowState(BaseModel):
    """Which spans a run takes, and in which state they are: what the cache key of the stage stands on."""

    window: tuple[SpanState, ...]
    reference: tuple[SpanState, ...]
    evaluation: SpanState | None
    """What judges; None: the window."""

    @property
    def all(self) -> tuple[SpanState, ...]:
        """Every span that the run reads."""
        return (*self.window, *self.reference, *([self.evaluation] if self.evaluation else []))


def window_state(config: DataConfig, ingested: str) -> WindowState:
    """Looks at the folders of the spans.

    Raises:
        DataError: a span is missing, or is still being copied.
    """
    chosen = select(parse_pattern(config.path), config.spans, file_system(config.path))
    return WindowState(
        window=tuple(map(_state, chosen.window)),
        reference=tuple(map(_state, chosen.reference)),
        evaluation=_evaluation(config, ingested),
    )


def _state(span: Span) -> SpanState:
    return SpanState(**asdict(span), fingerprint=fingerprint(span.folder, file_system(span.folder)))


def _evaluation(config: DataConfig, ingested: str) -> SpanState | None:
    if config.evaluation == "window":
        return None
    if config.evaluation != "fixed":
        return _state(Span(number=-1, version=0, name=EVALUATION, folder=config.evaluation))
    files = file_system(config.path)
    known = _fixed_evaluation(config, ingested)
    if known is not None:
        return known
    first = parse_pattern(config.path).list(files)[0]
    if is_incomplete(first, files):
        raise IncompleteDataError(f"span {first.name}, whose test images are to judge, is still being copied")
    return _state(first)


def _fixed_evaluation(config: DataConfig, ingested: str) -> SpanState | None:
    """What was fixed to judge in the first run on this path; None before it."""
    content = read_small(os.path.join(ingested, EVALUATION_FILE))
    fixed = json.loads(content) if content else {}
    return SpanState(**fixed["span"]) if fixed.get("path") == config.path else None


def _fix_evaluation(config: DataConfig, ingested: str, span: SpanState) -> None:
    if _fixed_evaluation(config, ingested) is None:
        fixed = {"path": config.path, "span": span.model_dump()}
        write_small(os.path.join(ingested, EVALUATION_FILE), json.dumps(fixed).encode())


@dataclass(frozen=True)
class Ingested:
    """A span in the cache."""

    span: SpanState
    role: Role
    folder: str
    cached: bool

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and by reason."""
        return read_counts(os.path.join(self.folder, QUARANTINE))

    def images(self) -> Iterator[ImageFile]:
        """Its good images, in the order of their digests."""
        return read_manifest(self.folder, file_system(self.folder))

    def record(self, dropped: int) -> SpanRecord:
        """What `Spans` says of it."""
        counts = self.counts
        unknown = next(
            (
                f"{entry['path']}: {entry['reason']}"
                for entry in read_bad(os.path.join(self.folder, QUARANTINE))
                if reason_kind(entry["reason"]) == UNKNOWN_LABEL
            ),
            "",
        )
        return SpanRecord(
            **self.span.model_dump(),
            role=self.role,
            images=counts["splits"],
            bad=counts["bad"],
            unknown_label=unknown,
            dropped=dropped,
            cached=self.cached,
        )


class Ingester:
    """Takes spans from the cache, or ingests them into it.

    Args of the constructor:
        cache: Where to look and to write.
        config: The `data` section.
        code_hash: Of the code that ingests.
        make_pipeline: Gives a Beam pipeline.
    """

    def __init__(self, cache: SpanCache, config: DataConfig, code_hash: str, make_pipeline: Callable[[], Any]):
        self._cache = cache
        self._config = config
        self._code_hash = code_hash
        self._make_pipeline = make_pipeline
        self._new: set[str] = set()

    def ingest(self, span: SpanState, role: Role) -> Ingested:
        """The records of a span.

        Raises:
            DataError: the span is empty, too much of it is bad, or it is not what it was when the run began.
        """
        config, key = self._span_config(span), self.key(span)
        folder = self._cache.find(key)
        if folder is None:
            folder = self._ingest(span, config, key)
            self._new.add(key)
        check_bad(os.path.join(folder, QUARANTINE), config)
        return Ingested(span, role, folder, cached=key not in self._new)

    def key(self, span: SpanState) -> str:
        """Where the cache keeps a span; changes with its content, with what is read of it, and with the code."""
        settings = self._span_config(span).model_dump(mode="json", exclude={"path", "max_bad_fraction"})
        content = json.dumps([span.name, span.fingerprint, self._code_hash, settings], sort_keys=True)
        return f"{span.slug}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def _span_config(self, span: SpanState) -> DataConfig:
        plain: dict[str, Any] = {"path": span.folder, "spans": SpansConfig(), "evaluation": "fixed"}
        if span.name == EVALUATION:
            plain |= {"val_fraction": 0.0, "test_fraction": 1.0}  # Where it is not divided, all of it judges.
        return self._config.model_copy(update=plain)

    def _ingest(self, span: SpanState, config: DataConfig, key: str) -> str:
        self._check_unchanged(span)
        folder = self._cache.attempt(key)
        with self._make_pipeline() as pipeline:
            outputs = pipeline | "LabelledImages" >> LabelledImages(config, prefix=f"{span.name}/")
            write_examples(outputs, folder, os.path.join(folder, QUARANTINE))
            write_pictures(outputs, os.path.join(folder, PICTURES), config.label_map)
        self._check_unchanged(span)
        self._cache.complete(key, folder)
        return folder

    def _check_unchanged(self, span: SpanState) -> None:
        if fingerprint(span.folder, file_system(span.folder)) != span.fingerprint:
            raise IncompleteDataError(
                f"{span.folder} is not what it was when it was first looked at: files came, went or changed. If it is "
                "still being copied, run again afterwards; if its test images were fixed to judge, restore it, or say "
                "in data.evaluation what judges from now on"
            )


def write_pictures(outputs: Any, path: str, labels: LabelMap | None) -> None:
    """Writes the scalar columns of all good images to `<path>.parquet`, a row each."""
    if labels is None:
        raise DataError("the label map of data that come in spans is not resolved")
    keys = features.scalar_keys(labels.names)
    floats = (features.BRIGHTNESS, features.CONTRAST, features.VOID_FRACTION)
    kinds = {features.SOURCE: pa.string(), **dict.fromkeys(floats, pa.float32())}
    schema = pa.schema([("split", pa.string()), *((key, kinds.get(key, pa.int64())) for key in keys)])
    rows = [outputs[split] | f"Row[{split}]" >> beam.Map(picture_row, split=split, keys=keys) for split in SPLITS]
    _ = (
        rows
        | "AllRows" >> beam.Flatten()
        | "WriteRows"
        >> beam.io.WriteToParquet(path, schema, file_name_suffix=".parquet", num_shards=1, shard_name_template="")
    )


def picture_row(serialized: bytes, split: str, keys: list[str]) -> dict[str, Any]:
    """The scalar columns of an example, and its split."""
    values = tf.train.Example.FromString(serialized).features.feature
    row: dict[str, Any] = {"split": split}
    for key in keys:
        (value,) = getattr(values[key], values[key].WhichOneof("kind")).value
        row[key] = value.decode() if isinstance(value, bytes) else value
    return row


@dataclass(frozen=True)
class Part:
    """Splits of a span that go into the examples, or that are kept out of them."""

    source: Ingested
    splits: tuple[str, ...]
    used: bool = True
    """False: set aside, neither trained on nor judging."""

    def images(self) -> Iterator[ImageFile]:
        """The images in these splits, in the order of their digests."""
        return (image for image in self.source.images() if image.split in self.splits)


def parts_of(window: list[Ingested], evaluation: Ingested | None) -> list[Part]:
    """What the examples are put together from, the most important first.

    Test images come first, so that none is trained on; then the newest span, whose labels are the latest word.
    """
    newest_first = window[::-1]
    judges = [Part(evaluation, (TEST,))] if evaluation else []
    tests = [Part(source, (TEST,), used=evaluation is None) for source in newest_first]
    return [*judges, *tests, *(Part(source, (TRAIN, VAL)) for source in newest_first)]


#: Index of a part -> split -> keys of images that are left out of it.
Dropped = dict[int, dict[str, set[str]]]


def dropped_keys(parts: list[Part]) -> Dropped:
    """The images of each part that a more important span has too, byte for byte.

    Copies within one span stay: they are that span's own affair.
    """
    dropped: Dropped = {rank: {split: set() for split in part.splits} for rank, part in enumerate(parts)}

    def ranked(rank: int) -> Iterator[tuple[str, int, ImageFile]]:
        return ((image.sha256, rank, image) for image in parts[rank].images())

    merged = heapq.merge(*map(ranked, dropped), key=itemgetter(0, 1))
    for _, copies in groupby(merged, key=itemgetter(0)):
        first = ""
        for _, rank, image in copies:
            folder = parts[rank].source.folder
            first = first or folder
            if folder != first:
                dropped[rank][image.split].add(image.key)
    return dropped


def repeated_share(newest: Ingested, others: list[Ingested]) -> float:
    """The share of the newest span's images that are in it twice, or in another span too."""

    def marked(source: Ingested) -> Iterator[tuple[str, bool]]:
        return ((image.sha256, source is newest) for image in source.images())

    total = repeated = 0
    for _, copies in groupby(heapq.merge(*map(marked, [newest, *others])), key=itemgetter(0)):
        count = Counter(own for _, own in copies)
        total += count[True]
        repeated += count[True] if count[False] else max(count[True] - 1, 0)
    return repeated / total


def put_together(parts: list[Part], dropped: Dropped, examples_uri: str) -> None:
    """Writes the records of the parts, without those dropped, and their manifest."""
    used = [rank for rank, part in enumerate(parts) if part.used]
    for rank in used:
        source = parts[rank].source
        for split, keys in dropped[rank].items():
            folder = split_folder(source.folder, split)
            for name in sorted(file_system(folder).list(folder)):
                target = os.path.join(split_folder(examples_uri, split), f"{source.span.slug}-{name}")
                place(os.path.join(folder, name), target)
                if keys:
                    remove_records(target, keys)

    def kept(rank: int) -> Iterator[ImageFile]:
        return (image for image in parts[rank].images() if image.key not in dropped[rank][image.split])

    merged = heapq.merge(*map(kept, used), key=lambda image: image.sha256)
    for digit, images in groupby(merged, key=lambda image: image.sha256[0]):
        with create(os.path.join(examples_uri, part_name(digit))) as file:
            file.write(pack_part(images))


def remove_records(path: str, keys: set[str]) -> None:
    """Writes a file of records anew without those of some keys; another name of the file keeps them."""
    new = f"{path}.new"
    with tf.io.TFRecordWriter(new, "GZIP") as writer:
        for record in tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator():
            (key,) = tf.train.Example.FromString(record).features.feature[features.KEY].bytes_list.value
            if key.decode() not in keys:
                writer.write(record)
    tf.io.gfile.rename(new, path, overwrite=True)


def write_quarantine(parts: list[Part], dropped: Dropped, quarantine_uri: str) -> None:
    """What was set aside in the spans that the examples come from, and the counts of the examples."""
    images: Counter[tuple[str, str]] = Counter()
    sources: dict[str, Ingested] = {}
    for rank, part in enumerate(parts):
        if part.used:
            counts = part.source.counts["splits"]
            images.update({("split", split): counts[split] - len(keys) for split, keys in dropped[rank].items()})
            sources[part.source.folder] = part.source
    for number, source in enumerate(sources.values()):
        images.update({(BAD, kind): count for kind, count in source.counts["bad"].items()})
        folder = os.path.join(source.folder, QUARANTINE)
        for name in file_system(folder).list(folder):
            if name.startswith(BAD_FILE):
                target = f"{BAD_FILE}-{number:05}{name.removeprefix(BAD_FILE)}"
                place(os.path.join(folder, name), os.path.join(quarantine_uri, target))
    with create(os.path.join(quarantine_uri, COUNTS_FILE)) as file:
        file.write(counts_json(list(images.items())).encode())


class Executor(base_beam_executor.BaseBeamExecutor):
    """Forgets what is not needed, ingests what is new, and puts the window together."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        config = DataConfig.model_validate_json(exec_properties["config"])
        state = WindowState.model_validate_json(exec_properties[SPANS_STATE])
        ingested = exec_properties["ingested"]
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        quarantine = artifact_utils.get_single_uri(output_dict["quarantine"])
        cache = SpanCache(os.path.join(ingested, "spans"))
        ingester = Ingester(cache, config, exec_properties["code_hash"], self._make_beam_pipeline)

        # First of all, so that runs that fail night after night do not fill the disk either.
        cache.keep_only({ingester.key(span) for span in state.all})
        evaluation = ingester.ingest(state.evaluation, "evaluation") if state.evaluation else None
        window, reference, skipped = ingest_all(ingester, state, config)
        parts = parts_of(window, evaluation)
        dropped = dropped_keys(parts)
        put_together(parts, dropped, examples.uri)
        write_quarantine(parts, dropped, quarantine)
        check_splits(quarantine, config)
        if evaluation and config.evaluation == "fixed":
            _fix_evaluation(config, ingested, evaluation.span)
        describe_examples(examples, window, exec_properties[SPANS_STATE])

        spans = [*([evaluation] if evaluation else []), *reference, *window]
        lost: Counter[str] = Counter()
        for rank, part in enumerate(parts):
            lost[part.source.folder] += sum(map(len, dropped[rank].values())) if part.used else 0
        record = WindowRecord(
            spans=[span.record(lost[span.folder] if span.role == "window" else 0) for span in spans],
            skipped=skipped,
            repeated=repeated_share(window[-1], [span for span in spans if span.folder != window[-1].folder]),
        )
        write_record(record, spans, artifact_utils.get_single_uri(output_dict["spans"]))


def ingest_all(
    ingester: Ingester, state: WindowState, config: DataConfig
) -> tuple[list[Ingested], list[Ingested], dict[str, str]]:
    """The window, the reference, and why spans are left out of them.

    A span of the reference that is bad stops nothing: it is not trained on.

    Raises:
        DataError: a span of the window is bad, and data.spans.on_incomplete is "stop"; or no span is left.
    """
    skipped: dict[str, str] = {}

    def usable(spans: tuple[SpanState, ...], role: Role, stop: bool) -> list[Ingested]:
        good = []
        for span in spans:
            try:
                good.append(ingester.ingest(span, role))
            except DataError as error:
                if stop:
                    raise
                skipped[span.name] = str(error)
        return good

    window = usable(state.window, "window", stop=config.spans.on_incomplete == "stop")
    if not window:
        raise DataError("no span of the window can be used:\n" + "\n".join(skipped.values()))
    return window, usable(state.reference, "reference", stop=False), skipped


def describe_examples(examples: types.Artifact, window: list[Ingested], state: str) -> None:
    """Records on the artifact what the examples are made of."""
    newest = window[-1].span
    examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
    examples.span = newest.number
    examples.version = newest.version
    examples.set_string_custom_property("spans", json.dumps([source.span.name for source in window]))
    examples.set_string_custom_property(FINGERPRINT_PROPERTY_NAME, hashlib.sha256(state.encode()).hexdigest())


def write_record(record: WindowRecord, spans: list[Ingested], spans_uri: str) -> None:
    """Fills the `Spans` artifact."""
    for source in spans:
        if source.role != "evaluation":
            place(os.path.join(source.folder, f"{PICTURES}.parquet"), pictures_file(spans_uri, source.span))
    with create(os.path.join(spans_uri, WINDOW_FILE)) as file:
        file.write(record.model_dump_json(indent=2).encode())


class Driver(StateDriver):
    """Makes the cache key depend on which spans there are, and on what is in those that are taken."""

    def state(self, exec_properties: dict[str, Any]) -> dict[str, str]:
        """The JSON of a `WindowState`."""
        config = DataConfig.model_validate_json(exec_properties["config"])
        return {SPANS_STATE: window_state(config, exec_properties["ingested"]).model_dump_json()}


class WindowExampleGenSpec(ComponentSpec):
    """Parameters and outputs of `WindowExampleGen`."""

    PARAMETERS = {
        "config": ExecutionParameter(type=str),
        "ingested": ExecutionParameter(type=str),
        "code_hash": ExecutionParameter(type=str),
        SPANS_STATE: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "quarantine": ChannelParameter(type=Quarantine),
        "spans": ChannelParameter(type=Spans),
    }


class WindowExampleGen(base_beam_component.BaseBeamComponent):
    """See the module.

    Args of the constructor:
        config: The `data` section, its path a pattern, with layout and label map resolved.
        ingested: Folder or URI for what is kept from run to run, of this pipeline alone.
        code_hash: Of the code that this node runs; part of the cache key.
    """

    SPEC_CLASS = WindowExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, config: DataConfig, ingested: str, code_hash: str):
        super().__init__(
            spec=WindowExampleGenSpec(
                config=config.model_dump_json(),
                ingested=ingested,
                code_hash=code_hash,
                examples=types.Channel(type=standard_artifacts.Examples),
                quarantine=types.Channel(type=Quarantine),
                spans=types.Channel(type=Spans),
            )
        )
