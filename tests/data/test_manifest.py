"""The manifest of examples: what it says of an image, its order, and how a file is looked up in it."""

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import LocalFiles
from data.manifest import ImageFile, digests, image_file, pack_part, part_name, read_manifest


def write(folder: Path, *entries: ImageFile) -> None:
    for digit in {entry.sha256[0] for entry in entries}:
        path = folder / part_name(digit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack_part(entry for entry in entries if entry.sha256[0] == digit))


def test_an_entry_says_digest_size_path_and_split() -> None:
    entry = image_file(b"abc", "images/a.png", "val")
    assert entry == ImageFile(
        sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        key="images/a.png",
        size=3,
        split="val",
    )


def test_what_is_written_is_read_back_in_the_order_of_the_digests(tmp_path: Path) -> None:
    entries = [image_file(bytes([number]), f"{number}.png", "train") for number in range(50)]
    write(tmp_path, *entries)
    assert list(read_manifest(str(tmp_path), LocalFiles())) == sorted(entries, key=lambda entry: entry.sha256)


def test_a_part_is_the_same_whatever_order_its_entries_came_in() -> None:
    entries = [image_file(bytes([number]), f"ü{number}.png", "train") for number in range(9)]
    assert pack_part(entries) == pack_part(reversed(entries))
    assert "ü3.png" in gzip.decompress(pack_part(entries)).decode()


def test_examples_without_a_manifest_are_told_from_empty_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_manifest(str(tmp_path), LocalFiles()))


def test_a_file_is_looked_up_by_its_own_digest_and_by_that_of_its_converted_image() -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    files = {}
    for kind in ("PNG", "BMP"):
        stream = io.BytesIO()
        image.save(stream, kind)
        files[kind] = stream.getvalue()
    own = {kind: hashlib.sha256(content).hexdigest() for kind, content in files.items()}
    assert digests(files["PNG"]) == {own["PNG"]}
    assert digests(files["BMP"]) == {own["BMP"], own["PNG"]}
    assert digests(b"no image") == {hashlib.sha256(b"no image").hexdigest()}
