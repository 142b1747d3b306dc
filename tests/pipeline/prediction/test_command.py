"""What `predict` prints, watches and refuses."""

import json
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from components.publishing.directory import Published, copy_tree, publish
from data.errors import DataError
from pipeline.cli import predict as command
from pipeline.cli.predict import Request
from pipeline.prediction.journal import Prediction
from pipeline.prediction.predictor import Task
from pipeline.prediction.tally import Tally, add_up
from tests.pipeline.conftest import command_line
from tests.pipeline.prediction.conftest import PIXELS, MakePredictor, blocks, encode, write


def test_watching_takes_what_comes_once_it_is_complete(
    served: Published, predictor: MakePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, early__png=encode(blocks(1)), bad__png=b"hello")
    picture, seen = encode(blocks(2)), []

    def looked(seconds: float) -> None:
        """Between two looks: a picture is copied in two parts."""
        seen.append(sorted(path.name for path in out.glob("*_mask.png")))
        if len(seen) < 3:
            write(source, late__png=picture[: 100 * len(seen)])
        elif len(seen) == 3:
            write(source, late__png=picture)
        elif len(seen) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", looked)

    monkeypatch.setattr(command, "load", lambda task: predictor(out))
    request = Request([str(source)], str(out), False, PIXELS, 1)
    command.watch_pictures(request, partial(request.task, str(Path(served.path).parents[1]), None))

    early, both = ["early_mask.png"], ["early_mask.png", "late_mask.png"]
    assert seen == [[], early, early, early, both, both]
    lines = [line for shard in (out / "predictions").glob("*.jsonl") for line in shard.read_text().splitlines()]
    assert len(lines) == 3


def test_watching_goes_on_with_the_version_that_was_pushed_meanwhile(
    served: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    source, out, serving = tmp_path / "in", tmp_path / "out", tmp_path / "serving"
    write(source, a__png=encode(blocks(1)))
    copy_tree(served.path, str(serving / "deeplab/1"))
    copy_tree(served.path, str(tmp_path / "other"))
    write(tmp_path / "other/assets", note__txt=b"It makes another model of it.")
    rounds, journal = iter(range(20)), []

    def looked(seconds: float) -> None:
        """Between two looks: a broken version is pushed, and then a good one of other class names."""
        number = next(rounds)
        if number == 2:
            publish(str(tmp_path / "in"), str(serving / "deeplab"), ["x"], extra={})
        elif number == 6:
            publish(str(tmp_path / "other"), str(serving / "deeplab"), ["earth", "wind", "fire"], extra={})
        elif number == 12:
            raise KeyboardInterrupt
        journal.append([path.read_text().count("\n") for path in (out / "predictions").glob("*.jsonl")])

    monkeypatch.setattr(command.time, "sleep", looked)
    request = Request([str(source)], str(out), False, PIXELS, 1)

    command.watch_pictures(request, partial(request.task, str(serving), None))

    printed = capsys.readouterr().err
    assert printed.count("version 2 cannot be used: ") == 1
    assert "version 3 is used from now on" in printed
    assert [entry["name"] for entry in json.loads((out / "classes.json").read_text())] == ["earth", "wind", "fire"]
    assert (journal[5], journal[-1]) == ([1], [2])  # As if it were started again, the picture is done by both models.


def test_a_person_is_told_how_many_pictures_failed_and_the_first_of_them(
    served: Published, capsys: pytest.CaptureFixture
):
    good = Prediction(picture="/a.png", state=None, model="m", name="a")
    bad = [good.model_copy(update={"picture": f"/{n:02}.png", "error": "truncated image"}) for n in range(60)]
    task = Task(served, "/out", False, PIXELS)

    command.show_tally(Tally.of(good, new=True), task, Console(width=200))
    with pytest.raises(DataError, match=r"^/00.png: truncated image\n(.*\n){49}and 10 more$"):
        command.show_tally(
            add_up([Tally.of(good, new=False), *(Tally.of(one, new=True) for one in reversed(bad))]),
            task,
            Console(width=200),
        )

    assert capsys.readouterr().out.splitlines() == [
        "1 pictures by version 1, 0 were done before, 0 failed; masks, overlays and a legend are in /out",
        "0 pictures by version 1, 1 were done before, 60 failed; masks, overlays and a legend are in /out",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--beam", "--watch"], "--watch goes neither with --beam"),
        (["--set", "beam.workers=2"], "--config and --set go with --beam"),
        (["--beam", "--set", "beam.runner=portable"], "needs beam.endpoint"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, arguments: list[str], reason: str):
    ended = command_line("predict", str(tmp_path), "--out", str(tmp_path / "out"), *arguments)
    assert ended.returncode != 0
    assert reason in " ".join(ended.stderr.split())
