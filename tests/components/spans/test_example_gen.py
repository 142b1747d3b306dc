"""Spans become one set of examples: what is ingested, what is taken over, which test set, and what stops a run."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from tfx.types.artifact import Artifact

from components.ingest.quarantine import read_bad, read_counts
from components.spans.example_gen import WindowExampleGen
from components.spans.records import WindowRecord, read_columns, read_window
from components.storage.fingerprint import fingerprint
from data import features
from data.dataset import DataConfig
from data.errors import DataError, IncompleteDataError
from data.files import LocalFiles
from data.labels import ClassLabel, LabelMap
from data.layouts.base import SPLITS
from data.manifest import read_manifest
from data.spans import INCOMPLETE
from tests.components.conftest import columns, read_split, run_node

ROOT = Path(__file__).parents[3]
LABELS = LabelMap(
    classes=tuple(ClassLabel(name=name, values=(value,)) for value, name in enumerate(("sky", "road", "car"))),
    ignore_values=(9,),
)


def add(span: Path, split: str, names: dict[str, int], mask: int | None = None) -> None:
    """Puts images into a span of the folder layout: name -> seed of its pixels."""
    for folder in ("images", "masks"):
        (span / folder / split).mkdir(parents=True, exist_ok=True)
    for name, seed in names.items():
        random = np.random.default_rng(seed)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(span / "images" / split / f"{name}.png")
        values = random.choice(np.array([0, 1, 2, 9], np.uint8), (8, 8)) if mask is None else np.full((8, 8), mask)
        Image.fromarray(values.astype(np.uint8)).save(span / "masks" / split / f"{name}.png")


def add_span(root: Path, name: str, seed: int) -> Path:
    """A span with 3 train, 2 val and 2 test images, all different for different seeds."""
    for split, numbers in zip(SPLITS, (range(3), range(3, 5), range(5, 7)), strict=True):
        add(root / name, split, {f"{n}": 100 * seed + n for n in numbers})
    return root / name


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three spans below `data`, and a cache below `ingested` that holds them."""
    folder = tmp_path_factory.mktemp("prepared")
    for number in (1, 2, 3):
        add_span(folder / "data", f"span-{number}", number)
    Runs(folder, f"{folder}/data/span-{{SPAN}}")(spans={"window": "all"}, test_set="window")
    return folder


@pytest.fixture
def spans(prepared: Path, tmp_path: Path) -> Path:
    """Three spans, each with 3 train, 2 val and 2 test images."""
    shutil.copytree(prepared / "data", tmp_path / "data")
    return tmp_path / "data"


class Runs:
    """Runs of `WindowExampleGen` that share a cache."""

    def __init__(self, folder: Path, path: str):
        self._folder = folder
        self._path = path
        self._count = 0

    @property
    def ingested(self) -> Path:
        return self._folder / "ingested"

    def __call__(self, code_hash: str = "", **settings: object) -> dict[str, Artifact]:
        self._count += 1
        config = DataConfig.model_validate(
            {"path": self._path, "layout": "folder", "label_map": LABELS, "max_bad_fraction": 0.3, **settings}
        )
        with patch("components.spans.example_gen.code_hash", lambda module: code_hash):
            node = WindowExampleGen(config, str(self.ingested))
        return run_node(node, self._folder / f"run{self._count}")

    def cached(self) -> list[str]:
        """Names of the spans in the cache."""
        return sorted(path.name.rpartition("-")[0] for path in (self.ingested / "spans").iterdir())


@pytest.fixture
def run(prepared: Path, tmp_path: Path, spans: Path) -> Runs:
    """Runs on the three spans, which are in the cache."""
    shutil.copytree(prepared / "ingested", tmp_path / "ingested")
    return Runs(tmp_path, f"{spans}/span-{{SPAN}}")


def keys(made: dict[str, Artifact], split: str) -> list[str]:
    """The keys of a split's examples."""
    return sorted(columns(record)[features.KEY].decode() for record in read_split(made["examples"], split))


def record(made: dict[str, Artifact]) -> WindowRecord:
    return read_window(made["spans"].uri)


def cached(made: dict[str, Artifact]) -> dict[str, bool]:
    """Span -> whether it was taken over from the cache."""
    return {span.name: span.cached for span in record(made).spans}


def test_a_window_is_one_set_of_examples_and_an_unchanged_span_is_ingested_once(tmp_path: Path, spans: Path):
    run = Runs(tmp_path, f"{spans}/span-{{SPAN}}")
    first = run(spans={"window": 1, "span": 1})
    second = run(spans={"window": 2})

    assert keys(first, "train") == [f"span-1/images/train/{n}.png" for n in (0, 1, 2)]
    assert keys(second, "train") == [f"span-{s}/images/train/{n}.png" for s in (2, 3) for n in (0, 1, 2)]
    assert keys(second, "val") == [f"span-{s}/images/val/{n}.png" for s in (2, 3) for n in (3, 4)]
    # The first span is the test set, and the test images of the others are held out.
    assert keys(first, "test") == keys(second, "test") == [f"span-1/images/test/{n}.png" for n in (5, 6)]
    assert cached(first) == {"span-1": False}
    assert cached(second) == {"span-1": True, "span-2": False, "span-3": False}
    assert read_counts(second["quarantine"].uri) == {"splits": {"train": 6, "val": 4, "test": 2}, "bad": {}}
    assert (second["examples"].span, second["examples"].version) == (3, 0)
    assert json.loads(second["examples"].get_string_custom_property("spans")) == ["span-2", "span-3"]
    listed = {(entry.split, entry.key) for entry in read_manifest(second["examples"].uri, LocalFiles())}
    assert listed == {(split, key) for split in SPLITS for key in keys(second, split)}
    row = columns(read_split(second["examples"], "test")[0])
    assert row[features.IMAGE] == (spans / row[features.KEY].decode()).read_bytes()
    assert row[features.SOURCE] == b"all"

    third = run(spans={"window": 2})
    assert set(cached(third).values()) == {True}
    assert [read_split(third["examples"], split) for split in SPLITS] == [
        read_split(second["examples"], split) for split in SPLITS
    ]


def add_voc_span(span: Path, names: tuple[str, str]) -> None:
    """A span in the layout of PASCAL VOC with an image in each split: 2 columns are car and 6 are tree.

    `labels.txt` has the names in an order of its own.
    """
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (span / folder).mkdir(parents=True)
    mask = np.repeat([[names.index("car")] * 2 + [names.index("tree")] * 6], 8, axis=0).astype(np.uint8)
    for number, split in enumerate(SPLITS):
        image = np.random.default_rng([number, len(span.name), *span.name.encode()]).integers(
            0, 256, (8, 8, 3), np.uint8
        )
        Image.fromarray(image).save(span / f"JPEGImages/{split}.png")
        Image.fromarray(mask).save(span / f"SegmentationClass/{split}.png")
        (span / f"ImageSets/Segmentation/{split}.txt").write_text(f"{split}\n")
    (span / "labels.txt").write_text("\n".join(names))


def test_a_class_stays_what_it_is_in_a_span_that_numbers_the_classes_anew(tmp_path: Path):
    add_voc_span(tmp_path / "data/span-1", ("car", "tree"))
    add_voc_span(tmp_path / "data/span-2", ("tree", "car"))
    first = LabelMap(classes=(ClassLabel(name="car", values=(0,)), ClassLabel(name="tree", values=(1,))))

    made = Runs(tmp_path, f"{tmp_path}/data/span-{{SPAN}}")(layout="voc", label_map=first, spans={"window": 2})

    rows = [columns(record) for record in read_split(made["examples"], "train")]
    assert len(rows) == 2
    assert [(row[features.pixels_key("car")], row[features.pixels_key("tree")]) for row in rows] == [(16, 48)] * 2


@pytest.mark.long
def test_only_what_a_run_needs_stays_in_the_cache(run: Runs, spans: Path):
    run(spans={"window": "all"})
    assert run.cached() == ["span-1", "span-2", "span-3"]
    add_span(spans, "span-5", 5)
    left_over = run.ingested / "spans" / "span-9-0123" / "attempt"
    left_over.mkdir(parents=True)

    made = run()

    # The newest one, the one before it, and the test set.
    assert run.cached() == ["span-1", "span-3", "span-5"]
    assert [(span.name, span.role) for span in record(made).spans] == [
        ("span-1", "evaluation"),
        ("span-3", "reference"),
        ("span-5", "window"),
    ]
    assert keys(made, "train") == [f"span-5/images/train/{n}.png" for n in (0, 1, 2)]
    assert len(read_columns(made["spans"].uri, record(made).newest)) == 7


@pytest.mark.long
def test_a_changed_span_or_setting_is_ingested_again(run: Runs, spans: Path):
    add(spans / "span-3", "train", {"new": 999})
    grown = run(test_set="window", spans={"window": 2})
    assert cached(grown) == {"span-2": True, "span-3": False}
    assert "span-3/images/train/new.png" in keys(grown, "train")
    assert keys(grown, "test") == [f"span-{s}/images/test/{n}.png" for s in (2, 3) for n in (5, 6)]

    only_one: dict = {"test_set": "window", "spans": {"reference": 0}}
    assert cached(run(**only_one)) == {"span-3": True}
    assert cached(run(**only_one, code_hash="new")) == {"span-3": False}
    assert cached(run(**only_one, code_hash="new")) == {"span-3": True}
    assert cached(run(**only_one, code_hash="new", max_pixels=10**6)) == {"span-3": False}


@pytest.mark.long
def test_a_corrected_version_replaces_its_span_but_not_the_test_set(tmp_path: Path):
    data = tmp_path / "data"
    add_span(data, "span-1/v1", 1)
    add_span(data, "span-2/v1", 2)
    run = Runs(tmp_path, f"{data}/span-{{SPAN}}/v{{VERSION}}")
    run(spans={"window": 2})
    for number in (1, 2):
        shutil.copytree(data / f"span-{number}/v1", data / f"span-{number}/v2")
        add(data / f"span-{number}/v2", "train", {"corrected": 50 + number})

    made = run(spans={"window": 2})

    assert [span.name for span in record(made).window] == ["span-1/v2", "span-2/v2"]
    assert (made["examples"].span, made["examples"].version) == (2, 2)
    assert {key.partition("/images")[0] for key in keys(made, "train")} == {"span-1/v2", "span-2/v2"}
    assert len(keys(made, "train")) == 8
    assert keys(made, "test") == [f"span-1/v1/images/test/{n}.png" for n in (5, 6)]


def test_the_test_set_stays_although_its_span_is_gone(run: Runs, spans: Path):
    before = run(spans={"window": 1})
    add(spans / "span-1", "test", {"late": 77})
    assert keys(run(spans={"window": 1}), "test") == keys(before, "test")
    shutil.rmtree(spans / "span-1")

    assert keys(run(spans={"window": 1}), "test") == keys(before, "test")
    upgraded = run(spans={"window": 1}, code_hash="new", max_pixels=10**6)
    assert read_split(upgraded["examples"], "test") == read_split(before["examples"], "test")


@pytest.mark.long
def test_a_corrected_first_span_is_trained_on_while_what_it_was_is_the_test_set(tmp_path: Path):
    data = tmp_path / "data"
    add_span(data, "span-1", 1)
    run = Runs(tmp_path, f"{data}/span-{{SPAN}}")
    before = run()
    for split, name in (("train", "0"), ("test", "5")):
        add(data / "span-1", split, {name: 100 + int(name)}, mask=2)

    corrected = run(max_pixels=10**6)

    assert read_split(corrected["examples"], "test") == read_split(before["examples"], "test")
    assert read_split(corrected["examples"], "train") != read_split(before["examples"], "train")
    assert keys(corrected, "train") == keys(before, "train")
    assert record(corrected).repeated == 0.0


@pytest.mark.long
def test_a_copy_of_the_test_set_that_is_lost_is_told_before_anything_is_removed(run: Runs, spans: Path):
    before = run()
    (copy,) = (run.ingested / "evaluation").glob("*/*/images/test/5.png")
    copy.unlink()
    original = spans / "span-1/images/test/5.png"
    changed = original.stat().st_mtime_ns
    os.utime(original, ns=(changed, changed + 10**9))
    kept = run.cached()

    with pytest.raises(
        DataError, match=r"copy of span span-1.*is gone or damaged.*data.test_set.*evaluation.json"
    ) as told:
        run(code_hash="new")
    assert not told.value.transient
    assert run.cached() == kept

    os.utime(original, ns=(changed, changed))
    again = run(code_hash="new")
    assert read_split(again["examples"], "test") == read_split(before["examples"], "test")
    shutil.rmtree(spans / "span-1")
    assert keys(run(code_hash="newer"), "test") == keys(before, "test")


def test_what_is_no_span_although_it_looks_like_one_is_named(
    run: Runs, spans: Path, capsys: pytest.CaptureFixture[str]
):
    (spans / "span_4").mkdir()

    made = run()

    reason = "not taken for a span: span_4 is not quite like span-{SPAN}"
    assert record(made).skipped["span_4"].startswith(reason)
    assert f"warning: span_4: {reason}" in capsys.readouterr().err
    assert [span.name for span in record(made).window] == ["span-3"]


@pytest.mark.long
def test_an_older_span_takes_the_place_of_an_empty_one_that_is_skipped(run: Runs, spans: Path):
    (spans / "span-4").mkdir()
    (spans / "span-4/labels.txt").write_text("sky")

    with pytest.raises(DataError, match="span span-4 is empty: .*span-4 contains no image"):
        run(test_set="window")
    made = run(test_set="window", spans={"on_incomplete": "skip"})

    assert [span.name for span in record(made).window] == ["span-3"]
    assert record(made).skipped == {"span-4": "empty: it contains no image"}


@pytest.mark.long
def test_a_separate_test_set_is_used_with_its_test_split_or_with_all_of_it(run: Runs, tmp_path: Path):
    add_span(tmp_path, "divided", 8)
    add(tmp_path / "whole", "", {"a": 801, "b": 802, "c": 803})

    assert keys(run(test_set=str(tmp_path / "divided")), "test") == [f"evaluation/images/test/{n}.png" for n in (5, 6)]
    assert keys(run(test_set=str(tmp_path / "whole")), "test") == [f"evaluation/images/{n}.png" for n in "abc"]


def test_the_same_image_in_two_spans_counts_once_and_never_for_training_and_test(run: Runs, spans: Path):
    add(spans / "span-2", "train", {"again": 105})  # a test image of span 1, the test set
    add(spans / "span-3", "val", {"again": 200})  # a training image of span 2
    add(spans / "span-3", "train", {"aside": 206})  # a test image of span 2, held out
    add(spans / "span-3", "train", {"copy1": 900, "copy2": 900})

    made = run(spans={"window": 2})

    assert "span-2/images/train/again.png" not in keys(made, "train")
    assert "span-2/images/train/0.png" not in keys(made, "train")
    assert "span-3/images/val/again.png" in keys(made, "val")
    assert "span-3/images/train/aside.png" not in keys(made, "train")
    assert {"span-3/images/train/copy1.png", "span-3/images/train/copy2.png"} <= set(keys(made, "train"))
    assert {span.name: span.dropped for span in record(made).window} == {"span-2": 2, "span-3": 1}
    assert record(made).repeated == pytest.approx((2 + 1) / 11)
    counts = read_counts(made["quarantine"].uri)["splits"]
    assert counts == {split: len(keys(made, split)) for split in SPLITS}
    listed = {entry.key for entry in read_manifest(made["examples"].uri, LocalFiles())}
    assert listed == {key for split in SPLITS for key in keys(made, split)}
    # What was dropped here is still in the cache.
    assert len(keys(run(spans={"window": 1, "span": 2}), "train")) == 3


def test_older_spans_lend_training_images_alone(run: Runs, spans: Path):
    add_span(spans, "span-4", 4)
    add(spans / "span-2", "train", {"copied": 401})  # a training image of span 4
    add(spans / "span-1", "train", {"leaked": 205})  # a test image of span 2

    made = run(spans={"replay": 1.0})

    trained = {f"span-{s}/images/train/{n}.png" for s in (1, 2, 3, 4) for n in (0, 1, 2)}
    assert set(keys(made, "train")) == trained
    assert keys(made, "val") == [f"span-4/images/val/{n}.png" for n in (3, 4)]
    assert keys(made, "test") == keys(run(), "test") == [f"span-1/images/test/{n}.png" for n in (5, 6)]
    found = record(made)
    assert found.replayed == {"span-1": 3, "span-2": 3, "span-3": 3}
    assert [(span.name, span.role) for span in found.spans] == [
        ("span-1", "evaluation"),
        ("span-1", "replay"),
        ("span-2", "replay"),
        ("span-3", "replay"),
        ("span-3", "reference"),
        ("span-4", "window"),
    ]
    assert [span.name for span in found.older] == ["span-3"]
    assert json.loads(made["examples"].get_string_custom_property("spans")) == ["span-4"]
    assert json.loads(made["examples"].get_string_custom_property("replayed")) == found.replayed
    assert read_counts(made["quarantine"].uri)["splits"] == {"train": 12, "val": 2, "test": 2}
    listed = {(entry.split, entry.key) for entry in read_manifest(made["examples"].uri, LocalFiles())}
    assert listed == {(split, key) for split in SPLITS for key in keys(made, split)}


@pytest.mark.long
def test_replayed_images_are_the_same_ones_for_a_newest_span_and_others_for_the_next(tmp_path: Path):
    for number in (1, 2, 3):
        names = {f"{n}": 100 * number + n for n in range(24 if number == 1 else 2)}
        add(tmp_path / f"data/{number}", "train", names)
        for split in ("val", "test"):
            add(
                tmp_path / f"data/{number}", split, {f"{split}{n}": 1000 * number + 10 * len(split) + n for n in (0, 1)}
            )
    run = Runs(tmp_path, f"{tmp_path}/data/{{SPAN}}")

    def replayed(newest: int) -> set[str]:
        made = run(spans={"replay": 0.5, "span": newest})
        chosen = {key for key in keys(made, "train") if key.startswith("1/")}
        assert record(made).replayed["1"] == len(chosen)
        return chosen

    for_two = replayed(2)
    for_three = replayed(3)

    assert replayed(2) == for_two
    assert for_two != for_three
    assert 4 <= len(for_two) <= 20  # of 24, each with probability 1/2: outside once in 2000
    assert run.cached() == ["1", "2"]


@pytest.mark.long
def test_a_bad_span_before_the_window_is_left_out_of_the_replay(run: Runs, spans: Path):
    for path in (spans / "span-2/masks").rglob("*.png"):
        path.unlink()

    made = run(spans={"replay": 1.0})

    assert record(made).replayed == {"span-1": 3}
    assert list(record(made).skipped) == ["span-2"]


@pytest.mark.long
def test_what_is_bad_in_any_span_is_named_with_its_span(run: Runs, spans: Path):
    for number in (2, 3):
        (spans / f"span-{number}/images/train/bad.png").write_bytes(b"")
    add(spans / "span-3", "val", {"alien": 5}, mask=7)

    made = run(spans={"window": 2})

    reasons = {entry["path"]: entry["reason"].partition(":")[0] for entry in read_bad(made["quarantine"].uri)}
    assert reasons == {
        "span-2/images/train/bad.png": "mask missing",
        "span-3/images/train/bad.png": "mask missing",
        "span-3/images/val/alien.png": "label outside the label map",
    }
    assert sum(read_counts(made["quarantine"].uri)["bad"].values()) == 3
    assert record(made).newest.unknown_label.startswith("span-3/images/val/alien.png: label outside the label map: 7")


@pytest.mark.long
def test_a_half_copied_span_stops_the_run_or_is_left_out(run: Runs, spans: Path):
    add_span(spans, "span-4", 4)
    shutil.rmtree(spans / "span-4/masks/train")
    (spans / "span-4/masks/train").mkdir()
    text = r"span-4: 3 of 7 images are bad.*\n  span-4/images/train/.*: mask missing"

    with pytest.raises(DataError, match=text):
        run(spans={"window": 2})
    made = run(spans={"window": 2, "on_incomplete": "skip"})

    assert [span.name for span in record(made).window] == ["span-3"]
    assert list(record(made).skipped) == ["span-4"]
    with pytest.raises(DataError, match="no span of the window can be used"):
        run(spans={"on_incomplete": "skip"})


@pytest.mark.long
def test_a_span_that_is_being_copied_stops_the_run_before_anything_is_read(run: Runs, spans: Path):
    (spans / "span-3" / INCOMPLETE).touch()

    with pytest.raises(IncompleteDataError, match="span-3 is still being copied"):
        run()


@pytest.mark.long
def test_a_span_that_grows_while_it_is_read_is_not_kept(run: Runs, spans: Path, monkeypatch: pytest.MonkeyPatch):
    looked = iter(range(100))

    def grows(folder: str, files: LocalFiles) -> str:
        if folder.endswith("span-3") and next(looked) == 2:  # the driver, before reading, after reading
            add(spans / "span-3", "train", {"late": 3})
        return fingerprint(folder, files)

    shutil.rmtree(run.ingested)
    monkeypatch.setattr("components.spans.state.fingerprint", grows)
    monkeypatch.setattr("components.spans.ingest.fingerprint", grows)

    with pytest.raises(IncompleteDataError, match="span-3 is not what it was when the run began"):
        run(spans={"reference": 0})
    assert "span-3/images/train/late.png" in keys(run(spans={"reference": 0}), "train")


@pytest.mark.long
@pytest.mark.parametrize("look", [0, 1])
def test_a_span_that_is_deleted_during_a_run_is_not_taken_for_bad_data(
    look: int, run: Runs, spans: Path, monkeypatch: pytest.MonkeyPatch
):
    looked = iter(range(100))

    def vanishes(folder: str, files: LocalFiles) -> str:
        found = fingerprint(folder, files)
        if folder.endswith("span-3") and next(looked) == look:  # after the driver's look, after the one before reading
            shutil.rmtree(spans / "span-3")
        return found

    shutil.rmtree(run.ingested)
    monkeypatch.setattr("components.spans.state.fingerprint", vanishes)
    monkeypatch.setattr("components.spans.ingest.fingerprint", vanishes)

    with pytest.raises(IncompleteDataError, match="span-3 is not what it was when the run began"):
        run(spans={"reference": 0})
    assert [span.name for span in record(run(spans={"reference": 0})).window] == ["span-2"]


@pytest.mark.long
def test_an_empty_split_is_checked_over_the_whole_window(run: Runs, spans: Path):
    shutil.rmtree(spans / "span-3/images/val")
    (spans / "span-3/images/val").mkdir()

    assert len(keys(run(spans={"window": 2}), "val")) == 2
    with pytest.raises(DataError, match="split val is empty"):
        run(spans={"window": 1})


@pytest.mark.long
def test_groups_stay_in_their_split_when_spans_are_added(tmp_path: Path):
    for number in (1, 2, 3):
        add(tmp_path / f"data/{number}", "", {f"scene{n}_{number}": 100 * number + n for n in range(24)})
    run = Runs(tmp_path, f"{tmp_path}/data/{{SPAN}}")

    made = run(
        spans={"window": "all"},
        test_set="window",
        group_pattern="(scene[0-9]+)_",
        val_fraction=0.3,
        test_fraction=0.3,
    )

    splits_of: dict[str, set[str]] = {}
    for split in SPLITS:
        for key in keys(made, split):
            splits_of.setdefault(Path(key).name.partition("_")[0], set()).add(split)
    assert len(splits_of) == 24
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert sum(len(keys(made, split)) for split in SPLITS) == 72


@pytest.mark.long
def test_a_damaged_cache_is_written_again(run: Runs):
    before = run(test_set="window", spans={"reference": 0})
    (path,) = (run.ingested / "spans").glob("*/*/Split-train/*")
    path.unlink()
    path.write_bytes(b"cut short")

    after = run(test_set="window", spans={"reference": 0})

    assert cached(after) == {"span-3": False}
    assert read_split(after["examples"], "train") == read_split(before["examples"], "train")


#: Ingests all spans; slowly, so that it can be killed at any point.
SCRIPT = """
import sys
from pathlib import Path
from tests.components.spans.test_example_gen import Runs
Runs(Path(sys.argv[1]), sys.argv[2])(spans={"window": "all"}, test_set="window")
"""


@pytest.mark.long
def test_a_killed_process_leaves_no_half_result(run: Runs, tmp_path: Path, spans: Path):
    undisturbed = run(spans={"window": "all"}, test_set="window")
    work = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(work), f"{spans}/span-{{SPAN}}"], cwd=ROOT)
    waits_for: list[Callable[[], bool]] = [
        lambda: any(work.glob("ingested/spans/span-1-*/COMPLETE")),
        lambda: any(work.glob("ingested/spans/span-2-*/*/*")),
    ]
    deadline = time.monotonic() + 300
    while not all(seen() for seen in waits_for):
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    begun = {path.name for path in work.glob("ingested/spans/span-2-*/*")}

    shutil.rmtree(work / "run1")
    made = Runs(work, f"{spans}/span-{{SPAN}}")(spans={"window": "all"}, test_set="window")

    assert begun
    assert "COMPLETE" not in begun
    assert cached(made) == {"span-1": True, "span-2": False, "span-3": False}
    assert all(keys(made, split) == keys(undisturbed, split) for split in SPLITS)
    assert not any(os.path.basename(path) in begun for path in work.glob("ingested/spans/span-2-*/*"))
