"""The journal names outputs, remembers what was done, and survives whoever wrote it last."""

from pathlib import Path

from pipeline.prediction.input_image import FileState, InputImage
from pipeline.prediction.journal import Journal, Prediction

STATE = FileState(size=1, modified=1)


def image(path: str, name: str = "a") -> InputImage:
    return InputImage(path, name, STATE)


def prediction(of: InputImage, name: str) -> Prediction:
    return Prediction(image=of.path, state=of.state, model="m", name=name)


def test_outputs_of_the_same_name_are_told_apart_and_keep_their_names(tmp_path: Path):
    one, two = image("/x/a.png"), image("/y/a.png")
    journal = Journal(str(tmp_path))
    names = [journal.name(one), journal.name(two)]
    journal.add(two, prediction(two, names[1]))

    later = Journal(str(tmp_path))

    assert names[0] == "a"
    assert names[1].startswith("a-") and len(names[1]) == len("a-01234567")
    assert [later.name(two), later.name(one)] == [names[1], names[0]]
    assert later.find(two, "m") == prediction(two, names[1])
    assert later.find(one, "m") is None
    assert later.find(two, "another model") is None
    assert later.find(InputImage(two.path, two.name, FileState(size=2, modified=1)), "m") is None


def test_an_image_under_another_name_is_another_one(tmp_path: Path):
    journal = Journal(str(tmp_path))
    for name in ("a", "sub/a"):
        journal.add(image("/x/sub/a.png", name), prediction(image("/x/sub/a.png", name), name))

    assert [Journal(str(tmp_path)).name(image("/x/sub/a.png", name)) for name in ("a", "sub/a")] == ["a", "sub/a"]


def test_separators_of_lines_that_only_unicode_knows_are_part_of_a_name(tmp_path: Path):
    odd = image("/x/a\u2028b\x85.png", "a\u2028b\x85")
    Journal(str(tmp_path)).add(odd, prediction(odd, odd.name))

    assert Journal(str(tmp_path)).find(odd, "m") == prediction(odd, odd.name)


def test_a_journal_that_calls_the_image_a_picture_is_gone_on_with(tmp_path: Path):
    one = image("/x/a.png")
    Journal(str(tmp_path)).add(one, prediction(one, "a"))
    (shard,) = (tmp_path / "predictions").iterdir()
    shard.write_text(shard.read_text().replace('"image":', '"picture":'))

    assert Journal(str(tmp_path)).find(one, "m") == prediction(one, "a")


def test_a_part_of_a_line_is_passed_over_and_not_continued(tmp_path: Path):
    one, two = image("/x/a.png"), image("/y/a.png")
    Journal(str(tmp_path)).add(one, prediction(one, "a"))
    (shard,) = (tmp_path / "predictions").iterdir()
    with shard.open("ab") as file:
        file.write(b'{"image": "/y/\xff')

    again = Journal(str(tmp_path))
    again.add(two, prediction(two, again.name(two)))

    last = Journal(str(tmp_path))
    assert last.find(one, "m") and last.find(two, "m")
    assert len(shard.read_bytes().splitlines()) == 3
