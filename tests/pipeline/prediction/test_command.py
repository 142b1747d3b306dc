"""What `predict` prints, watches and refuses."""

import json
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from components.publishing.directory import ModelVersion, publish
from components.storage.trees import copy_tree
from data.errors import DataError
from models.export.segmenter import Segmenter
from pipeline.cli import predict as command
from pipeline.cli.predict import PredictOptions
from pipeline.prediction.journal import Prediction
from pipeline.prediction.predictor import (
    PredictedImage,
    PredictionCounts,
    PredictJob,
    Predictor,
    load_model,
    sum_counts,
)
from tests.pipeline.conftest import in_process
from tests.pipeline.prediction.conftest import PIXELS, MakePredictor, blocks, encode, write


def test_watching_takes_what_comes_once_it_is_complete(
    served: ModelVersion, predictor: MakePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, early__png=encode(blocks(1)), bad__png=b"hello")
    image, seen = encode(blocks(2)), []

    def looked(seconds: float) -> None:
        """Between two looks: an image is copied in two parts."""
        seen.append(sorted(path.name for path in out.glob("*_mask.png")))
        if len(seen) < 3:
            write(source, late__png=image[: 100 * len(seen)])
        elif len(seen) == 3:
            write(source, late__png=image)
        elif len(seen) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", looked)

    monkeypatch.setattr(command, "load", lambda job: predictor(out))
    options = PredictOptions([str(source)], str(out), False, PIXELS, 1)
    command.watch_images(options, partial(options.job, str(Path(served.path).parents[1]), None))

    early, both = ["early_mask.png"], ["early_mask.png", "late_mask.png"]
    assert seen == [[], early, early, early, both, both]
    lines = [line for shard in (out / "predictions").glob("*.jsonl") for line in shard.read_text().splitlines()]
    assert len(lines) == 3


def test_watching_goes_on_with_the_version_that_was_pushed_meanwhile(
    served: ModelVersion,
    segmenter: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
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

    def load(job: PredictJob) -> Predictor:
        """Versions 1 and 3 hold the same network."""
        return Predictor(load_model(job.model) if job.model.version == 2 else segmenter, job, workers=2)

    monkeypatch.setattr(command, "load", load)
    monkeypatch.setattr(time, "sleep", looked)
    options = PredictOptions([str(source)], str(out), False, PIXELS, 1)

    command.watch_images(options, partial(options.job, str(serving), None))

    printed = capsys.readouterr().err
    assert printed.count("version 2 cannot be used: ") == 1
    assert "version 3 is used from now on" in printed
    assert [entry["name"] for entry in json.loads((out / "classes.json").read_text())] == ["earth", "wind", "fire"]
    assert (journal[5], journal[-1]) == ([1], [2])  # As if it were started again, the image is done by both models.


def test_a_person_is_told_how_many_images_failed_and_the_first_of_them(
    served: ModelVersion, capsys: pytest.CaptureFixture
):
    good = Prediction(image="/a.png", state=None, model="m", name="a")
    bad = [good.model_copy(update={"image": f"/{n:02}.png", "error": "truncated image"}) for n in range(60)]
    job = PredictJob(served, "/out", False, PIXELS)

    command.show_counts(PredictionCounts.of(PredictedImage(good, new=True)), job, Console(width=200))
    results = [PredictedImage(good, new=False), *(PredictedImage(one, new=True) for one in reversed(bad))]
    with pytest.raises(DataError, match=r"^/00.png: truncated image\n(.*\n){49}and 10 more$"):
        command.show_counts(sum_counts(map(PredictionCounts.of, results)), job, Console(width=200))

    assert capsys.readouterr().out.splitlines() == [
        "1 images by version 1, 0 were done before, 0 failed; masks, overlays and a legend are in /out",
        "0 images by version 1, 1 were done before, 60 failed; masks, overlays and a legend are in /out",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--beam", "--watch"], "--watch cannot be combined with --beam"),
        (["--set", "beam.workers=2"], "--config and --set need --beam"),
        (["--beam", "--set", "beam.runner=portable"], "needs beam.endpoint"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, arguments: list[str], reason: str):
    ended = in_process("predict", str(tmp_path), "--out", str(tmp_path / "out"), *arguments)
    assert ended.returncode != 0
    assert reason in " ".join(ended.stderr.split())
