"""What a person means by folders, patterns and names is found, however hostile the names are."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from pipeline.prediction.input_image import InputImage
from pipeline.prediction.journal import Journal, Prediction, shard_of
from pipeline.prediction.listing import find_images, matches, split_pattern
from tests.object_store import make_bucket, object_store, put
from tests.pipeline.prediction.conftest import write


def names(images: list[InputImage]) -> list[str]:
    return [image.name for image in images]


def test_folders_keep_their_structure_and_outputs_are_no_images(tmp_path: Path):
    write(tmp_path, b__JPG=b"", a__b__png=b"", note__txt=b"", film__mp4=b"")
    write(tmp_path / "sub", a__png=b"")
    write(tmp_path / "out", old__png=b"")

    assert names(find_images([str(tmp_path)], str(tmp_path / "out"))) == ["a.b", "b", "sub/a"]
    assert names(find_images([str(tmp_path / "out/old.png")], str(tmp_path / "out"))) == ["old"]


def test_patterns_keep_their_structure_and_each_image_comes_once(tmp_path: Path):
    write(tmp_path, a__png=b"", b__png=b"", other=b"", film__mp4=b"")
    write(tmp_path / "deep/er", c__png=b"")
    arguments = [str(tmp_path / name) for name in ("other", "*.png", "**/*.png", "a.png", "**.png", "*.mp4")]

    images = find_images(arguments, str(tmp_path / "out"))

    assert names(images) == ["other", "a", "b", "deep/er/c", "film"]
    assert [image.is_video for image in images] == [False] * 4 + [True]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path):
    write(tmp_path, **{"a[1]__png": b"", "a1__png": b""})
    assert names(find_images([str(tmp_path / "a[1].png")], str(tmp_path / "out"))) == ["a[1]"]


@pytest.mark.parametrize("argument", ["nowhere", "*.png", ".", "x" * 5000])
def test_what_names_no_image_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no image there"):
        find_images([argument], str(tmp_path / "out"))
    if argument in ("*.png", "."):
        assert find_images([argument], str(tmp_path / "out"), allow_none=True) == []


def test_an_address_of_no_known_kind_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="carrier-pigeon://x: Unable to get filesystem"):
        find_images(["carrier-pigeon://x"], str(tmp_path))


@pytest.mark.parametrize("argument", ["", "**", "**/*.png", "*/*.png"])
def test_links_that_lead_in_circles_are_not_followed(tmp_path: Path, argument: str):
    write(tmp_path / "in/sub", a__png=b"")
    for number in range(8):
        (tmp_path / f"in/sub/loop{number}").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/sub/self.png").symlink_to(tmp_path / "in/sub/self.png")
    (tmp_path / "in/sub/gone.png").symlink_to(tmp_path / "gone.png")

    images = find_images([str(tmp_path / "in" / argument)], str(tmp_path / "out"))

    assert {image.name: image.problem for image in images} == {
        "sub/a": "",
        "sub/self.png": "a broken link: Too many levels of symbolic links",
        "sub/gone.png": "a broken link: No such file or directory",
    }


@pytest.mark.parametrize("argument", ["", "*", "pipe.png"])
def test_what_is_no_file_is_a_problem_and_a_folder_is_none(tmp_path: Path, argument: str):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()

    (pipe,) = find_images([str(tmp_path / argument)], str(tmp_path / "out"))

    assert (pipe.name, pipe.problem) == ("pipe.png", "not a regular file: a pipe, a socket or a device")


@pytest.mark.parametrize("argument", ["", "**/*.png"])
def test_what_systems_leave_behind_is_no_image(tmp_path: Path, argument: str):
    for name in ("a.png", "._a.png", "@eaDir/a.png", ".thumbs/a.png", "sub/__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names(find_images([str(tmp_path / argument)], str(tmp_path / "out"))) == ["a"]


def record(out: Path, *names: str) -> None:
    """Makes an output folder of this command: its journal says that the outputs of these names were written."""
    write(out, classes__json=b"[]", legend__png=b"")
    journal = Journal(str(out))
    for name in names:
        image = InputImage(f"/x/{name}.png", name.partition("-")[0], None)
        journal.add(image, Prediction(image=image.path, state=None, model="m", name=name))
        write(out, **{f"{name}{ending}": b"" for ending in ("_mask.png", "_overlay.png")})


def test_what_the_command_wrote_is_no_image_wherever_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, a__png=b"", b__png=b"", own_mask__png=b"", b_probability__png=b"")
    record(tmp_path, "a", "b-01234567")
    monkeypatch.chdir(tmp_path)
    expected = ["a", "b", "b_probability", "own_mask"]

    def found(*arguments: str, out: str = ".") -> list[str]:
        return sorted(names(find_images(arguments, str(tmp_path / out))))

    assert found(*(path.name for path in tmp_path.glob("*.png"))) == expected
    assert found(".") == found("*.png") == found(str(tmp_path)) == expected
    assert found(".", out="new") == found("*_*", "[ab].png", out="new") == expected
    with pytest.raises(DataError, match="a_mask.png: no image there.*What this command wrote"):
        found("a_mask.png", "legend.png", "classes.json")


def test_earlier_folders_of_outputs_are_passed_over(tmp_path: Path):
    write(tmp_path / "in", a__png=b"")
    record(tmp_path / "in/old/masks", "a")
    write(tmp_path / "in/old/masks/deep", unrecorded_mask__png=b"")
    write(tmp_path / "in/predictions", c__png=b"")

    for argument in ("in", "in/**/*.png", "in/**"):
        found = find_images([str(tmp_path / argument)], str(tmp_path / "out"))
        assert sorted(names(found)) == ["a", "predictions/c"]
    with pytest.raises(DataError, match="no image there"):
        find_images([str(tmp_path / "in/old")], str(tmp_path / "out"))


def test_where_only_videos_are_it_is_said_how_they_are_meant(tmp_path: Path):
    write(tmp_path, film__mp4=b"")
    with pytest.raises(DataError, match=r"Videos are used if a name or a pattern such as '\*.mp4' refers to them"):
        find_images([str(tmp_path)], str(tmp_path / "out"))


def test_names_that_no_journal_can_hold_are_images_with_a_problem(tmp_path: Path):
    for name in (b"\xff.png", b"line\nend.png", b"\x1b[2J.png", "ü".encode() + b".png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()

    images = find_images([str(tmp_path)], str(tmp_path / "out"))

    assert {image.name: bool(image.problem) for image in images} == {
        r"\udcff": True,
        r"line\nend": True,
        r"\x1b[2J": True,
        "ü": False,
    }
    assert all((image.path + image.problem).isprintable() for image in images)
    with pytest.raises(DataError, match="has control characters or is not UTF-8; rename the file"):
        next(image for image in images if image.problem).read(1)


def test_a_folder_that_cannot_be_listed_is_a_problem_and_not_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "in/closed", a__png=b"")
    write(tmp_path / "in/open", b__png=b"")
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    problem, good = find_images([str(tmp_path / "in")], str(tmp_path / "out"))

    assert (good.name, good.problem) == ("open/b", "")
    assert (problem.path, problem.problem) == (
        str(tmp_path / "in/closed"),
        "unreadable folder: Permission denied",
    )


@given(st.lists(st.sampled_from(["a.png", "b", "c1.png"]), min_size=1, max_size=4))
def test_paths_in_an_object_store_match_as_pathlib_does_it(tmp_path_factory: pytest.TempPathFactory, parts: list[str]):
    root = tmp_path_factory.mktemp("tree")
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    for pattern in ("*.png", "**/*.png", "*/*", "b/**/*.png", "**/b/*", "**/c?.png", "[ab]*/**/*"):
        assert matches(parts, pattern.split("/")) == (path in root.glob(pattern)), pattern


def test_an_object_store_is_searched_like_folders():
    with object_store():
        bucket = make_bucket("images")
        for key in ("in/a.png", "in/deep/er/b.JPG", "in/../escaped.png", "in/note.txt", "in/film.mp4", "in/out/c.png"):
            put(f"{bucket}/{key}", b"12345")

        def found(*arguments: str) -> list[InputImage]:
            return find_images([f"{bucket}/{argument}" for argument in arguments], f"{bucket}/in/out")

        everything = found("in")
        assert names(everything) == ["../escaped", "a", "deep/er/b"]
        assert "leaves the dataset's folder" in everything[0].problem
        assert [image.state and image.state.size for image in everything[1:]] == [5, 5]
        assert everything[1].read(5) == b"12345"
        assert names(found("in/**/*.JPG", "in/*.mp4", "in/note.txt", "in/a.png")) == ["deep/er/b", "film", "note", "a"]
        with pytest.raises(DataError, match="none: no image there"):
            found("none")
        line = Prediction(image="s3://x/in/a.png", state=None, model="m", name="a").model_dump_json().encode()
        shard = shard_of("a")
        for folder, key in itertools.product(("in", "in/old"), ("classes.json", "a_mask.png")):
            put(f"{bucket}/{folder}/{key}", b"")
            put(f"{bucket}/{folder}/predictions/{shard}.jsonl", line)
        assert names(found("in")) == ["../escaped", "a", "deep/er/b"]
        assert names(found("in/*.png", "in/a_mask.png")) == ["a"]


def test_a_pattern_is_cut_before_its_first_special_character():
    assert split_pattern("s3://bucket/in/*.png") == ("s3://bucket/in", "*.png")
    assert split_pattern("s3://bucket/in/x-[12]/a/**") == ("s3://bucket/in", "x-[12]/a/**/*")
    assert split_pattern("/in/**.png") == ("/in", "*.png")
    assert split_pattern("/*.png") == ("/", "*.png")
    assert split_pattern("/in/a") == ("/in/a", "")
