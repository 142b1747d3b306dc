"""ExampleGen lists the files that it put into examples."""

import hashlib
from pathlib import Path

from tfx.types.artifact import Artifact

from data.files import LocalFiles
from data.manifest import read_manifest
from tests.components.conftest import columns, read_split


def test_the_manifest_names_every_picture_in_the_examples_by_the_content_of_its_file(
    dataset: Path, examples: Artifact
) -> None:
    entries = list(read_manifest(examples.uri, LocalFiles()))
    listed = {(entry.split, entry.key) for entry in entries}
    held = {
        (split, columns(record)["key"].decode())
        for split in ("train", "val", "test")
        for record in read_split(examples, split)
    }
    assert listed == held
    assert len(entries) == 15
    for entry in entries:
        content = (dataset / entry.key).read_bytes()
        assert (entry.sha256, entry.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [entry.sha256 for entry in entries] == sorted(entry.sha256 for entry in entries)
