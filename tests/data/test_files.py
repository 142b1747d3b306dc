"""Local files, and paths from annotation files."""

import os
import socket
from contextlib import chdir

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.files import LocalFiles, inside, is_litter, names, read_bytes, read_json, read_lines, relative_path, walk

OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "\\share\\x", "C:\\x", "gs://bucket/x", "..", "..\\x", "a/../.."]


@pytest.mark.parametrize("root", ["/data/set", "gs://bucket/set"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_cannot_leave_the_dataset(root, path, files):
    with pytest.raises(DataError, match="path outside the dataset"):
        inside(root, path, files)


@pytest.mark.parametrize("path", ["", " ", ".", "a/..", "a\0b", "a\nb", "a\ud800b"])
def test_a_path_that_names_no_file_is_refused(path):
    with pytest.raises(DataError, match="invalid path"):
        relative_path(path)


def test_a_name_that_cannot_be_written_down_is_told_to_be_changed():
    with pytest.raises(DataError, match=r"'bad\\udcff' has control characters or is not UTF-8; rename the file"):
        relative_path("bad\udcff")


def test_paths_are_normalised_and_joined(files, tmp_path):
    assert relative_path("a//b/./c.png") == "a/b/c.png"
    assert relative_path("b\\c.png") == "b/c.png"
    assert relative_path("a/../b.png") == "b.png"
    assert relative_path("\u4e2d\u6587 \u202f1.png") == "\u4e2d\u6587 \u202f1.png"
    assert inside(str(tmp_path), "a/b.png", files) == str(tmp_path / "a" / "b.png")


@given(st.text(alphabet=st.sampled_from("./\\ab:")))
def test_whatever_is_accepted_stays_below_the_folder(text):
    try:
        path = relative_path(text)
    except DataError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


def test_links_are_followed_for_reading_and_for_listing_but_never_in_circles(files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.png").write_bytes(b"image")
    root = tmp_path / "set"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (root / "one.png").symlink_to(tmp_path / "elsewhere/a.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (tmp_path / "elsewhere/again").symlink_to(root)
    assert read_bytes(inside(str(root), "images/a.png", files), files) == b"image"
    assert read_bytes(inside(str(root), "one.png", files), files) == b"image"
    found = sorted(path for path, _, _ in walk(str(root), files))
    assert found == ["images/a.png", "loop.png", "one.png"]


def test_a_linked_folder_that_changes_is_seen(files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "elsewhere")
    before = list(walk(str(tmp_path / "set"), files))
    (tmp_path / "elsewhere/a.png").write_bytes(b"image")
    assert [path for path, _, _ in walk(str(tmp_path / "set"), files)] == ["images/a.png"] != before


def test_what_is_no_file_is_named_and_never_opened(files, tmp_path, caplog):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server, chdir(tmp_path):  # A socket's path may have 108 characters.
        server.bind("socket.png")
    assert list(walk(str(tmp_path), files)) == []
    assert "pipe.png is a named pipe, not a file" in caplog.text and "socket.png is a socket" in caplog.text
    with pytest.raises(DataError, match="unreadable image: .*pipe.png: it is a named pipe, not a file"):
        read_bytes(str(tmp_path / "pipe.png"), files, "image")


LITTER = (
    ".DS_Store ._a.jpg Thumbs.db THUMBS.DB desktop.ini a.png~ ~$list.xlsx @eaDir/a.jpg __MACOSX/images/a.jpg "
    ".ipynb_checkpoints/a-checkpoint.png sub/.git/config $RECYCLE.BIN/a.jpg"
)


def test_litter_of_systems_and_tools_is_no_data(files, tmp_path):
    for name in (*LITTER.split(), "Icon\r", "a.jpg", "sub/b~c.jpg", ".incomplete"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert sorted(path for path, _, _ in walk(str(tmp_path), files)) == [".incomplete", "a.jpg", "sub/b~c.jpg"]
    assert sorted(names(str(tmp_path), files)) == [".incomplete", "a.jpg", "sub"]
    assert not is_litter("..")  # It leads out of a folder, which others refuse by name.


@pytest.mark.parametrize(
    ("there", "sought"),
    [("caf\u00e9.JPG", "cafe\u0301.jpg"), ("cafe\u0301.jpg", "caf\u00e9.jpg"), ("a.PNG", "a.png"), ("a.Tif", "a.TIF")],
)
def test_a_file_is_found_whatever_the_unicode_form_and_the_case_of_its_ending(files, tmp_path, there, sought):
    (tmp_path / there).write_bytes(b"image")
    assert read_bytes(str(tmp_path / sought), files) == b"image"
    with pytest.raises(DataError, match="file missing"):
        read_bytes(str(tmp_path / sought.replace("a", "A", 1)), files)


def test_a_dataset_behind_a_symbolic_link_is_read(files, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert inside(str(tmp_path / "link"), "a.png", files) == str(tmp_path / "link" / "a.png")


def test_local_files_lists_names_and_tells_what_exists(files, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("x")
    assert sorted(files.list(str(tmp_path / "a"))) == ["b.txt"]
    assert list(files.list(str(tmp_path / "absent"))) == []
    assert list(files.list(str(tmp_path / "a" / "b.txt"))) == []
    assert files.exists(files.join(str(tmp_path), "a", "b.txt"))
    assert not files.exists(files.join(str(tmp_path), "a", "c.txt"))


def test_listing_is_streamed(tmp_path):
    for i in range(50):
        (tmp_path / f"{i}.txt").touch()
    names = LocalFiles().list(str(tmp_path))
    assert next(names).endswith(".txt")
    names.close()


def test_lines_come_with_their_numbers_without_blanks_and_byte_order_mark(files, tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n  two \nthr\xffee")
    assert list(read_lines(str(tmp_path / "list.txt"), files)) == [(1, "one"), (3, "two"), (4, "thr\\xffee")]


def test_an_absent_file_and_a_folder_are_named(files, tmp_path):
    with pytest.raises(DataError, match=r"^mask missing: no file .*absent\.png"):
        read_bytes(str(tmp_path / "absent.png"), files, "mask")
    with pytest.raises(DataError, match="^unreadable image: "):
        read_bytes(str(tmp_path), files, "image")
    with pytest.raises(DataError, match="^list missing: "):
        list(read_lines(str(tmp_path / "absent.txt"), files))


@pytest.mark.parametrize(
    ("content", "place"),
    [(b'{"a":\n 1,}', "line 2, column 4"), (b'"\xff"', "byte 1"), (b"[" * 100_000, "nested too deeply")],
)
def test_invalid_json_is_named_with_its_position(content, place, files, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=f"invalid JSON: .*a.json.*{place}"):
        read_json(str(tmp_path / "a.json"), files)
