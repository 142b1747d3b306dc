"""s3:// works as local folders do, through Beam's file systems, against moto's server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.ingest.example_gen import Driver
from components.ingest.quarantine import read_counts
from components.publishing.directory import ModelVersion, model_fingerprint, prune, publish, published, served
from components.publishing.pins_and_blocklist import blocked, pin
from components.spans.fixed_test_set import FixedTestSet
from components.spans.records import SpanState
from components.storage.atomic import read_small
from components.storage.beam_files import BeamFiles
from components.storage.fingerprint import fingerprint
from components.storage.trees import copy_tree
from data import features
from data.synthetic import write_dataset
from pipeline.rollback import choose_serving_dir, roll_back, unblock_version
from tests.components.conftest import columns, generate, read_split, resolved
from tests.object_store import make_bucket, object_store, put


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an object store."""
    with object_store() as address:
        yield address


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> str:
    """An empty bucket, as a URI."""
    return make_bucket(request.node.name)


def test_beam_files_see_an_object_store_as_folders(bucket: str):
    files = BeamFiles()
    put(f"{bucket}/data/train/a.png", b"a")
    put(f"{bucket}/data/train/b.png", b"bb")
    put(f"{bucket}/data/train.txt", b"list")
    put(f"{bucket}/other/c.png", b"c")

    assert sorted(files.list(f"{bucket}/data")) == ["train", "train.txt"]
    assert sorted(files.list(f"{bucket}/data/train/")) == ["a.png", "b.png"]
    assert sorted(files.list(bucket)) == ["data", "other"]
    assert list(files.list(f"{bucket}/absent")) == []
    there = [bucket, f"{bucket}/data", f"{bucket}/data/", f"{bucket}/data/train", f"{bucket}/data/train/a.png"]
    assert [files.exists(path) for path in there] == [True] * len(there)
    assert not any(files.exists(f"{bucket}/{path}") for path in ("dat", "data/tra", "data/train/a", "absent/a.png"))
    assert {path: size for path, size, _ in files.stats(f"{bucket}/data")} == {
        "train/a.png": 1,
        "train/b.png": 2,
        "train.txt": 4,
    }
    with files.open(files.join(bucket, "data", "train", "b.png")) as file:
        assert file.read() == b"bb"
    with pytest.raises(FileNotFoundError):
        files.open(f"{bucket}/data/train")


def test_example_gen_reads_a_dataset_from_an_object_store(bucket: str, tmp_path: Path):
    local = write_dataset(tmp_path / "data", num_train=2, num_val=1, num_test=1)
    copy_tree(str(local), f"{bucket}/data")
    config = resolved(f"{bucket}/data")
    driver = Driver(None)
    before = driver.state({"config": config.model_dump_json()})

    examples, quarantine = generate(config, tmp_path / "s3")

    assert config.layout == "voc"
    assert read_counts(quarantine.uri) == {"splits": {"train": 2, "val": 1, "test": 1}, "bad": {}}
    for split in ("train", "val", "test"):
        for row in map(columns, read_split(examples, split)):
            assert row[features.IMAGE] == (local / row[features.KEY].decode()).read_bytes()
    assert driver.state({"config": config.model_dump_json()}) == before
    put(f"{bucket}/data/JPEGImages/more.jpg", b"")
    assert driver.state({"config": config.model_dump_json()}) != before


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A folder that looks like a SavedModel."""
    for name in ("saved_model.pb", "variables/variables.index", "assets/label_map.json", "zz_last.txt"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "model"


def push(model: Path, bucket: str) -> ModelVersion:
    return publish(str(model), f"{bucket}/serving/name", ["sky"], {"assets.extra/warmup": b"requests"})


def test_a_version_is_published_with_its_record_last_and_read_back(
    bucket: str, small_model: Path, monkeypatch: pytest.MonkeyPatch
):
    written, create = [], BeamFiles.create
    monkeypatch.setattr(BeamFiles, "create", lambda files, path: written.append(path) or create(files, path))

    first = push(small_model, bucket)

    assert first.path == f"{bucket}/serving/name/1"
    assert written[-2:] == [f"{first.path}/saved_model.pb", f"{first.path}/PUBLISHED"]
    assert len(written) == 6
    assert served(f"{bucket}/serving/name") == first
    assert first.record.model_fingerprint == model_fingerprint(str(small_model))
    second = push(small_model, bucket)
    assert [version.version for version in published(f"{bucket}/serving/name")] == [1, 2]
    copy_tree(second.path, str(small_model.parent / "back"))
    assert (small_model.parent / "back/assets.extra/warmup").read_bytes() == b"requests"
    assert (small_model.parent / "back/saved_model.pb").read_text() == "content of saved_model.pb"


@pytest.mark.long
@pytest.mark.parametrize("fails_at", [0, 4, 5], ids=["first file", "saved_model.pb", "record"])
def test_a_half_uploaded_version_is_not_seen(
    bucket: str, small_model: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
):
    whole = push(small_model, bucket)
    uploads, create = iter(range(100)), BeamFiles.create

    def breaks_off(files: BeamFiles, path: str) -> object:
        if next(uploads) == fails_at:
            raise OSError("connection reset")
        return create(files, path)

    with monkeypatch.context() as patched:
        patched.setattr(BeamFiles, "create", breaks_off)
        with pytest.raises(OSError, match="connection reset"):
            push(small_model, bucket)

    assert published(f"{bucket}/serving/name") == [whole]
    assert push(small_model, bucket).version == (2 if fails_at == 0 else 3)


@pytest.mark.long
def test_prune_removes_the_oldest_versions_wholly(bucket: str, small_model: Path):
    for _ in range(3):
        push(small_model, bucket)

    assert prune(f"{bucket}/serving/name", 1) == [1, 2]

    assert list(BeamFiles().list(f"{bucket}/serving/name")) == ["3"]
    assert served(f"{bucket}/serving/name").version == 3


@pytest.mark.long
def test_an_earlier_version_is_rolled_back_to_and_pinned_ones_stay(
    bucket: str, small_model: Path, monkeypatch: pytest.MonkeyPatch
):
    first = push(small_model, bucket)
    (small_model / "saved_model.pb").write_text("worse")
    second = push(small_model, bucket)
    serving = choose_serving_dir(f"{bucket}/serving", None)
    written, create = [], BeamFiles.create
    monkeypatch.setattr(BeamFiles, "create", lambda files, path: written.append(path) or create(files, path))

    restored = roll_back(serving, None, "too slow")

    assert (restored.version, restored.record.restored_from, restored.record.rollback_of) == (3, 1, 2)
    assert written[-2:] == [f"{restored.path}/saved_model.pb", f"{restored.path}/PUBLISHED"]
    assert written.count(f"{restored.path}/PUBLISHED") == 1
    assert model_fingerprint(restored.path) == first.record.model_fingerprint
    copy_tree(restored.path, str(small_model.parent / "back"))
    assert (small_model.parent / "back/assets.extra/warmup").read_bytes() == b"requests"
    assert blocked(serving)[second.record.model_fingerprint].reason == "too slow"
    pin(serving, 1)
    assert prune(serving, 1) == [2]
    assert [version.version for version in published(serving)] == [1, 3]
    assert unblock_version(serving, 2)
    assert blocked(serving) == {}


@pytest.mark.long
def test_the_fixed_test_set_is_copied_within_an_object_store(bucket: str):
    for name in ("images/a.png", "masks/a.png"):
        put(f"{bucket}/span-1/{name}", name.encode())
    state = fingerprint(f"{bucket}/span-1", BeamFiles())
    span = SpanState(number=1, version=0, name="span-1", folder=f"{bucket}/span-1", fingerprint=state)
    fixed = FixedTestSet(f"{bucket}/span-{{SPAN}}", f"{bucket}/ingested")

    fixed.fix(span)
    put(f"{bucket}/span-1/images/a.png", b"corrected")

    assert fixed.span() == span
    copy = fixed.copy()
    assert [read_small(f"{copy}/{name}") for name in ("images/a.png", "masks/a.png")] == [
        b"images/a.png",
        b"masks/a.png",
    ]
