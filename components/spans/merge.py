"""Several spans become one set of examples: each image is in it once, and no test image is trained on."""

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import tensorflow as tf

from components.ingest.examples import split_folder
from components.ingest.quarantine import BAD, BAD_FILE, COUNTS_FILE, counts_json
from components.spans.cache import place
from components.spans.ingest import Ingested, RunSpans
from components.storage.atomic import write_small
from components.storage.file_systems import file_system
from data import features
from data.layouts.base import TEST, TRAIN, VAL
from data.manifest import ImageFile, pack_part, part_name
from data.splits import hash_position


@dataclass(frozen=True)
class Part:
    """Splits of a span that go into the examples, or that are kept out of them."""

    source: Ingested
    splits: tuple[str, ...]
    used: bool = True
    """False: held out, used neither for training nor for the test."""
    share: float = 1.0
    """Share of the images that is taken, chosen by a hash of the key."""
    chosen_for: str = ""
    """Part of what is hashed: another name chooses other images."""

    def takes(self, key: str) -> bool:
        """Whether an image in these splits is among those chosen."""
        return self.share == 1.0 or hash_position(f"{self.chosen_for}\0{key}") < self.share


def parts_of(spans: RunSpans, replay: float) -> list[Part]:
    """What the examples are put together from, the most important first.

    Test images come first, so that none is trained on; then the newest span, whose labels are the latest.

    Args:
        spans: The spans of the run.
        replay: Share of the training images of the spans before the window.
    """
    window, before = spans.window[::-1], spans.replay[::-1]
    test_set = [Part(spans.evaluation, (TEST,))] if spans.evaluation else []
    tests = [Part(source, (TEST,), used=spans.evaluation is None) for source in window]
    held_out = [Part(source, (TEST,), used=False) for source in before]
    trains = [Part(source, (TRAIN, VAL)) for source in window]
    replayed = [Part(source, (TRAIN,), share=replay, chosen_for=spans.newest.span.name) for source in before]
    return [*test_set, *tests, *held_out, *trains, *replayed]


class Merge:
    """One pass over the manifests of all spans of a run: what the examples hold, and what is left out.

    An image that several spans have, byte for byte, is kept in the most important part only. Copies within one span
    are all kept. `images` makes the pass; the counts are complete at its end.

    Args of the constructor:
        spans: The spans of the run.
        parts: The parts as `parts_of` orders them.
    """

    def __init__(self, spans: RunSpans, parts: list[Part]):
        self._spans = spans
        self._parts = parts
        self._ranks = {
            (part.source.folder, split): rank
            for rank, part in reversed(list(enumerate(parts)))
            for split in part.splits
        }
        self._newest = self._repeated = 0
        self.kept: Counter[tuple[int, str]] = Counter()
        """(Rank of a part, split) -> images of it in the examples."""
        self.dropped: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Rank of a part -> split -> keys of images that a more important part has too."""

    @property
    def repeated(self) -> float:
        """The share of the newest span's images that are in it twice, or in another span too.

        A test set that is a separate dataset, or the newest span as it was before a correction, is not another span.
        """
        return self._repeated / self._newest

    def images(self) -> Iterator[ImageFile]:
        """The images of the examples, in the order of their digests."""
        sources, newest = {source.folder: source for source in self._spans.all}, self._spans.newest
        not_another_span = {
            folder
            for folder, source in sources.items()
            if folder != newest.folder and (source.span.is_separate or source.span.number == newest.span.number)
        }
        merged = heapq.merge(*map(_with_folder, sources.values()), key=_digest)
        for _, copies in groupby(merged, key=_digest):
            found = list(copies)
            own = Counter(folder == newest.folder for folder, _ in found if folder not in not_another_span)
            self._newest += own[True]
            self._repeated += own[True] if own[False] else max(own[True] - 1, 0)
            yield from self._survivors(found)

    def dropped_of(self, folder: str) -> int:
        """How many images of a span are left out because another one has them too."""
        lost = (
            self.dropped[rank] for rank, part in enumerate(self._parts) if part.used and part.source.folder == folder
        )
        return sum(len(keys) for splits in lost for keys in splits.values())

    def replayed_of(self, folder: str) -> int:
        """How many images of a span before the window are trained on again."""
        replayed = (rank for rank, part in enumerate(self._parts) if part.chosen_for and part.source.folder == folder)
        return sum(self.kept[rank, TRAIN] for rank in replayed)

    def _survivors(self, copies: list[tuple[str, ImageFile]]) -> Iterator[ImageFile]:
        ranked = [(rank, image) for folder, image in copies if (rank := self._rank(folder, image)) is not None]
        ranked.sort(key=lambda item: item[0])
        for rank, image in ranked:
            part = self._parts[rank]
            if part.source.folder != self._parts[ranked[0][0]].source.folder:
                self.dropped[rank][image.split].add(image.key)
            elif part.used:
                self.kept[rank, image.split] += 1
                yield image

    def _rank(self, folder: str, image: ImageFile) -> int | None:
        """The rank of the part that takes an image; None if no part does."""
        rank = self._ranks.get((folder, image.split))
        return rank if rank is not None and self._parts[rank].takes(image.key) else None


def _with_folder(source: Ingested) -> Iterator[tuple[str, ImageFile]]:
    return ((source.folder, image) for image in source.images())


def _digest(item: tuple[str, ImageFile]) -> str:
    return item[1].sha256


def put_together(spans: RunSpans, replay: float, examples_uri: str, quarantine_uri: str) -> Merge:
    """Writes the examples with their manifest, and the quarantine.

    Args:
        spans: The spans of the run.
        replay: Share of the training images of the spans before the window.
        examples_uri: The folder of the `Examples` artifact.
        quarantine_uri: The folder of the `Quarantine` artifact.
    """
    parts = parts_of(spans, replay)
    merge = Merge(spans, parts)
    for digit, images in groupby(merge.images(), key=lambda image: image.sha256[0]):
        write_small(os.path.join(examples_uri, part_name(digit)), pack_part(images))
    for rank, part in enumerate(parts):
        if part.used:
            for split in part.splits:
                write_records(part, split, merge.dropped[rank][split], examples_uri)
    gather_quarantine(spans, merge.kept, quarantine_uri)
    return merge


def write_records(part: Part, split: str, dropped: set[str], examples_uri: str) -> None:
    """Puts the records of one split of a span into the examples, without those that are dropped or not chosen."""
    folder = split_folder(part.source.folder, split)
    for name in sorted(file_system(folder).list(folder)):
        target = os.path.join(split_folder(examples_uri, split), f"{part.source.span.slug}-{name}")
        place(os.path.join(folder, name), target)
        if dropped or part.share < 1.0:
            keep_records(target, lambda key: key not in dropped and part.takes(key))


def keep_records(path: str, wanted: Callable[[str], bool]) -> None:
    """Replaces a file of records by one with the wanted keys only; a hard link to the old file keeps all of them."""
    new = f"{path}.new"
    with tf.io.TFRecordWriter(new, "GZIP") as writer:
        for record in tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator():
            (key,) = tf.train.Example.FromString(record).features.feature[features.KEY].bytes_list.value
            if wanted(key.decode()):
                writer.write(record)
    tf.io.gfile.rename(new, path, overwrite=True)


def gather_quarantine(spans: RunSpans, kept: Counter[tuple[int, str]], quarantine_uri: str) -> None:
    """Writes what is quarantined in the window and the test set, and the counts of the examples."""
    counts: Counter[tuple[str, str]] = Counter()
    for (_, split), images in kept.items():
        counts["split", split] += images
    sources = {source.folder: source for source in spans.all if source.role in ("window", "evaluation")}
    for number, source in enumerate(sources.values()):
        counts.update({(BAD, kind): count for kind, count in source.counts["bad"].items()})
        for name in file_system(source.quarantine).list(source.quarantine):
            if name.startswith(BAD_FILE):
                target = f"{BAD_FILE}-{number:05}{name.removeprefix(BAD_FILE)}"
                place(os.path.join(source.quarantine, name), os.path.join(quarantine_uri, target))
    write_small(os.path.join(quarantine_uri, COUNTS_FILE), counts_json(list(counts.items())).encode())
