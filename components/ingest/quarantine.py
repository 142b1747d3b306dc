"""The quarantine: the images that ExampleGen leaves out with a reason each, how many there are, and how many may be."""

import json
import os
from collections.abc import Mapping
from typing import cast

import apache_beam as beam

from components.storage.file_systems import file_system, read_file
from data.dataset import DataConfig
from data.errors import DataError
from data.layouts.base import SPLITS

#: What Beam's outputs and the counts call the images that are quarantined.
BAD = "bad"
BAD_FILE = "bad.jsonl"
COUNTS_FILE = "counts.json"

#: The kind of reason that stops the run even if it is the only one: it is unknown how many images are missing.
LISTING_FAILED = "listing failed"

#: How many bad files an error message names; the quarantine artifact names all.
REASONS_SHOWN = 20


def reason_kind(reason: str) -> str:
    """The part of a reason before the first colon: 'size mismatch', 'mask missing', ..."""
    return reason.split(":", 1)[0]


def write_quarantine(outputs: Mapping[str, beam.PCollection], quarantine_uri: str) -> None:
    """Adds to a Beam pipeline what writes the bad entries, and the counts of good and bad images.

    Args:
        outputs: Split -> serialized examples, and `BAD` -> {"path", "reason"} of bad entries.
        quarantine_uri: The folder of a `Quarantine` artifact.
    """
    bad = outputs[BAD]
    _ = (
        bad
        | "BadLines" >> beam.Map(json.dumps)
        | "WriteBad" >> beam.io.WriteToText(os.path.join(quarantine_uri, BAD_FILE), num_shards=1)
    )
    counted = [
        outputs[split] | f"Name[{split}]" >> beam.Map(lambda _, name: ("split", name), name=split) for split in SPLITS
    ]
    _ = (
        [*counted, bad | "Kind" >> beam.Map(lambda entry: (BAD, reason_kind(entry["reason"])))]
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
    return cast(dict[str, dict[str, int]], json.loads(read_file(os.path.join(quarantine_uri, COUNTS_FILE))))


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


def check_bad(quarantine_uri: str, config: DataConfig) -> None:
    """Checks that every listing was complete, that an image is good, and that not too many are bad.

    Raises:
        DataError: One of these does not hold; names the first bad entries.
    """
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
    """Checks that every split has an image.

    Raises:
        DataError: A split is empty.
    """
    counts = read_counts(quarantine_uri)["splits"]
    empty = [split for split in SPLITS if counts[split] == 0]
    if empty:
        raise DataError(
            f"{config.path}: split {', '.join(empty)} is empty ({counts}); give it images, or raise "
            f"data.val_fraction={config.val_fraction} or data.test_fraction={config.test_fraction}"
        )
