"""Pins and blocked models: small files that are complete, or an error for whoever would act on them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.publishing.pins_and_blocklist import block, blocked, pin, pinned, unblock, unpin
from data.errors import WorkspaceError


def test_at_first_nothing_is_marked(tmp_path: Path):
    assert pinned(str(tmp_path / "absent")) == frozenset()
    assert blocked(str(tmp_path / "absent")) == {}
    assert not unblock(str(tmp_path), "fingerprint")


def test_pins_come_and_go(tmp_path: Path):
    for version in (3, 1, 3):
        pin(str(tmp_path), version)
    assert pinned(str(tmp_path)) == {1, 3}

    assert unpin(str(tmp_path), 3)
    assert not unpin(str(tmp_path), 7)

    assert pinned(str(tmp_path)) == {1}


def test_pins_that_are_set_at_once_are_all_kept(tmp_path: Path):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda version: pin(str(tmp_path), version), range(1, 25)))

    assert pinned(str(tmp_path)) == set(range(1, 25))


def test_a_blocked_model_is_remembered_with_version_time_and_reason(tmp_path: Path):
    block(str(tmp_path), "one", 4, "blurred")
    block(str(tmp_path), "two", 6, "")
    block(str(tmp_path), "one", 8, "still blurred")

    entries = blocked(str(tmp_path))

    assert {name: (entry.version, entry.reason) for name, entry in entries.items()} == {
        "one": (8, "still blurred"),
        "two": (6, ""),
    }
    assert entries["one"].withdrawn_at.utcoffset() is not None
    assert unblock(str(tmp_path), "one")
    assert list(blocked(str(tmp_path))) == ["two"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("pins.json", b"", "Invalid JSON"),
        ("pins.json", b"[1]", "Input should be an object"),
        ("pins.json", b'{"versions": [0]}', "versions.0: Input should be greater than 0"),
        ("pins.json", b'{"version": [1]}', "version: Extra inputs are not permitted"),
        ("withdrawn.json", b"\xff\xfe", "Invalid JSON"),
        ("withdrawn.json", b'{"models": [{"version": 1}]}', "models.0.model_fingerprint: Field required"),
    ],
)
def test_a_damaged_file_is_named_and_not_written_over(tmp_path: Path, name: str, content: bytes, what: str):
    (tmp_path / name).write_bytes(content)
    reads: list[Callable[[], object]] = (
        [lambda: pinned(str(tmp_path)), lambda: pin(str(tmp_path), 2), lambda: unpin(str(tmp_path), 2)]
        if name == "pins.json"
        else [
            lambda: blocked(str(tmp_path)),
            lambda: block(str(tmp_path), "one", 1, ""),
            lambda: unblock(str(tmp_path), "one"),
        ]
    )
    for read in reads:
        with pytest.raises(WorkspaceError) as caught:
            read()
        assert str(caught.value).startswith(f"{tmp_path / name}: damaged: {what}")
    assert (tmp_path / name).read_bytes() == content
