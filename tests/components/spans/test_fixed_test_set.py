"""The fixed test set: a copy that outlives its span, and is complete or not there."""

import os
import shutil
from pathlib import Path

import pytest

from components.spans.fixed_test_set import COPIES, FixedTestSet
from components.spans.records import SpanState
from components.storage.fingerprint import fingerprint
from data.errors import DataError, IncompleteDataError
from data.files import LocalFiles


def make_span(folder: Path) -> SpanState:
    (folder / "images/val").mkdir(parents=True)
    (folder / "images/a.png").write_bytes(b"image")
    return SpanState(
        number=1, version=0, name="span-1", folder=str(folder), fingerprint=fingerprint(str(folder), LocalFiles())
    )


@pytest.fixture
def fixed(tmp_path: Path) -> FixedTestSet:
    return FixedTestSet("span-{SPAN}", str(tmp_path / "ingested"))


def test_nothing_is_fixed_before_the_first_run(fixed: FixedTestSet):
    assert (fixed.span(), fixed.copy()) == (None, None)


def test_the_copy_has_every_file_and_outlives_the_span(fixed: FixedTestSet, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.png").write_bytes(b"linked")
    (tmp_path / "span-1").mkdir()
    (tmp_path / "span-1/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "span-1/nowhere.png").symlink_to("absent")
    span = make_span(tmp_path / "span-1")

    fixed.fix(span)
    shutil.rmtree(tmp_path / "span-1")
    shutil.rmtree(tmp_path / "elsewhere")

    assert fixed.span() == span
    copy = Path(fixed.copy() or "")
    assert (copy / "images/a.png").read_bytes() == b"image"
    assert (copy / "linked/b.png").read_bytes() == b"linked"
    assert (copy / "images/val").is_dir(), "an empty split is one all the same"
    assert not os.path.lexists(copy / "nowhere.png")


def test_what_is_written_into_the_span_later_is_not_in_the_copy(fixed: FixedTestSet, tmp_path: Path):
    span = make_span(tmp_path / "span-1")
    fixed.fix(span)

    (tmp_path / "span-1/images/a.png").write_bytes(b"corrected")

    assert (Path(fixed.copy() or "") / "images/a.png").read_bytes() == b"image"
    assert fixed.span() == span


def test_a_span_that_changes_while_it_is_copied_does_not_become_the_test_set(fixed: FixedTestSet, tmp_path: Path):
    span = make_span(tmp_path / "span-1")
    (tmp_path / "span-1/images/late.png").touch()

    with pytest.raises(IncompleteDataError, match="span-1 changed while it was copied"):
        fixed.fix(span)
    assert (fixed.span(), fixed.copy()) == (None, None)


def test_a_lost_copy_is_made_again_as_long_as_the_span_is_as_it_was(fixed: FixedTestSet, tmp_path: Path):
    span = make_span(tmp_path / "span-1")
    fixed.fix(span)
    shutil.rmtree(tmp_path / "ingested" / COPIES)

    assert (fixed.span(), fixed.copy()) == (span, None)
    fixed.fix(span)
    assert fixed.copy() is not None

    shutil.rmtree(tmp_path / "ingested" / COPIES)
    shutil.rmtree(tmp_path / "span-1")
    with pytest.raises(DataError, match="remove .*evaluation.json, so that from now on the first span") as told:
        fixed.span()
    assert not told.value.transient


def test_another_pattern_has_another_first_span_and_one_copy_is_kept(fixed: FixedTestSet, tmp_path: Path):
    fixed.fix(make_span(tmp_path / "span-1"))
    other = FixedTestSet("other-{SPAN}", str(tmp_path / "ingested"))

    assert other.span() is None
    span = make_span(tmp_path / "other-1")
    other.fix(span)

    assert other.span() == span
    assert fixed.span() is None
    assert len(list((tmp_path / "ingested" / COPIES).iterdir())) == 1
