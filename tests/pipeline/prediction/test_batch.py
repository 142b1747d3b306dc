"""`predict --beam` gives byte for byte what `predict` gives, knows what was done, and names what is bad."""

import json
import shutil
from pathlib import Path

import boto3
import pytest

from components.publishing.directory import ModelVersion
from components.storage.beam_files import BeamFiles
from components.storage.trees import copy_tree
from models.export.segmenter import Segmenter
from pipeline.prediction import batch
from pipeline.prediction import predictor as module
from pipeline.prediction.batch import NO_VIDEOS, predict_on_beam
from pipeline.prediction.listing import find_images
from pipeline.prediction.outputs import prepare_folder
from pipeline.prediction.predictor import PredictionCounts, PredictJob, load_model
from pipeline.sections.beam import BeamConfig
from tests.object_store import make_bucket, object_store, put
from tests.pipeline.conftest import command_line
from tests.pipeline.prediction.conftest import LABELS, PIXELS, MakePredictor, blocks, encode, outputs, write

DIRECT = BeamConfig().arguments()

LOADED: dict[str, Segmenter] = {}


@pytest.fixture(autouse=True)
def loaded_once(served: ModelVersion, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes most of a test's time; the workers of the direct runner are in this process."""
    LOADED[served.path] = segmenter

    def load(model: ModelVersion) -> Segmenter:
        if model.path not in LOADED:
            LOADED[model.path] = load_model(model)
        return LOADED[model.path]

    monkeypatch.setattr(batch, "load_model", load)


def run(out: str, served: ModelVersion, *arguments: str, probability: bool = False) -> PredictionCounts:
    prepare_folder(out, LABELS.names)
    return predict_on_beam(arguments, PredictJob(served, out, probability, PIXELS), DIRECT)


def journal(out: Path) -> list[dict]:
    lines = [line for shard in (out / "predictions").glob("*.jsonl") for line in shard.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda line: line["image"])


def make_images(folder: Path) -> None:
    """Seven good ones, two of them of one name, a bad one, and outputs of something else."""
    write(folder, **{f"{number}__png": encode(blocks(number)) for number in range(4)})
    write(folder / "sub", a__jpg=encode(blocks(4), "JPEG"), a__png=encode(blocks(5)), b__bmp=encode(blocks(6), "BMP"))
    write(folder, bad__png=b"hello")


def test_both_give_the_same_bytes_and_the_same_journal(served: ModelVersion, predictor: MakePredictor, tmp_path: Path):
    make_images(tmp_path / "in")
    argument = str(tmp_path / "in")
    alone, shared = tmp_path / "in/alone", tmp_path / "in/shared"  # In the folder that is read: they are left out.
    counts = run(str(shared), served, argument, probability=True)
    shutil.move(shared, tmp_path / "shared")
    outcomes = list(predictor(alone, probability=True).predict(find_images([argument], str(alone))))

    assert (counts.done, counts.before, counts.failed) == (7, 0, 1)
    assert counts.failures == (f"{argument}/bad.png: {outcomes[4].prediction.error}",)
    written = outputs(tmp_path / "shared")
    assert len(written) == 7 * 3 + 2
    assert written == outputs(alone)
    assert len({content for name, content in written.items() if name.endswith("_mask.png")}) == 7
    assert journal(tmp_path / "shared") == journal(alone)
    assert json.loads((tmp_path / "shared/predictions/summary.json").read_text()) == json.loads(
        counts.model_dump_json()
    )


def test_what_is_done_is_not_done_again_by_either(served: ModelVersion, predictor: MakePredictor, tmp_path: Path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, one__png=encode(blocks(1)), two__png=encode(blocks(2)))
    images = find_images([str(source)], str(out))
    list(predictor(out).predict(images[:1]))

    second = run(str(out), served, str(source))
    write(source, two__png=encode(blocks(7)), three__png=encode(blocks(3)))
    third = run(str(out), served, str(source), f"{source}/*.png")
    again = [outcome.new for outcome in predictor(out).predict(find_images([str(source)], str(out)))]

    assert (second.done, second.before) == (1, 1)
    assert (third.done, third.before) == (2, 1)
    assert again == [False] * 3


def test_a_run_that_broke_off_is_gone_on_with(served: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, **{f"{number}__png": encode(blocks(number)) for number in range(6)})
    encode_outputs, calls = module.encode_outputs, []

    def breaks(*arguments: object) -> dict[str, bytes]:
        calls.append(arguments)
        if len(calls) == 4:
            raise RuntimeError("the power went")
        return encode_outputs(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "encode_outputs", breaks)
        with pytest.raises(RuntimeError, match="the power went"):
            run(str(out), served, str(source))

    counts = run(str(out), served, str(source))

    assert (counts.done, counts.before) == (3, 3)
    assert len(outputs(out)) == 6 * 2 + 2


def test_an_argument_that_names_nothing_is_a_failure_among_others(served: ModelVersion, tmp_path: Path):
    write(tmp_path / "in", one__png=encode(blocks(1)), film__mp4=b"")

    counts = run(
        str(tmp_path / "out"), served, *(f"{tmp_path}/{name}" for name in ("in/one.png", "none/*", "in/*.mp4"))
    )

    assert (counts.done, counts.failed) == (1, 2)
    assert counts.failures[0] == f"{tmp_path}/in/film.mp4: {NO_VIDEOS}"
    assert counts.failures[1].startswith(f"{tmp_path}/none/*: no image there")


@pytest.mark.long
def test_images_model_and_outputs_may_lie_in_an_object_store(
    served: ModelVersion, predictor: MakePredictor, tmp_path: Path, request: pytest.FixtureRequest
):
    write(tmp_path / "in", one__png=encode(blocks(1)))
    list(predictor(tmp_path / "out").predict(find_images([str(tmp_path / "in")], str(tmp_path / "out"))))
    with object_store():
        bucket = make_bucket(request.node.name)
        copy_tree(served.path, f"{bucket}/model")
        for key in ("in/one.png", "in/sub/two.png", "in/../escaped.png", "other/three.png"):
            put(f"{bucket}/{key}", encode(blocks(1)))
        remote = served._replace(path=f"{bucket}/model")
        arguments = [f"{bucket}/in", f"{bucket}/other/three.png", f"{bucket}/in/**/two.*"]

        counts = run(f"{bucket}/out", remote, *arguments)
        again = run(f"{bucket}/out", remote, *arguments)

        files = BeamFiles()
        written = {path for path, _, _ in files.stats(f"{bucket}/out") if not path.startswith("predictions/")}
        with files.open(f"{bucket}/out/sub/two_overlay.png") as file:
            assert file.read() == (tmp_path / "out/one_overlay.png").read_bytes()
        objects = boto3.client("s3").list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    assert (counts.done, counts.before, counts.failed) == (3, 0, 1)
    assert (again.done, again.before, again.failed) == (0, 3, 1)
    assert "leaves the dataset's folder" in counts.failures[0]
    stems = ("one", "sub/two", "three")
    expected = {f"{stem}_{kind}.png" for stem in stems for kind in ("mask", "overlay")}
    assert written == expected | {"classes.json", "legend.png"}
    assert not [entry["Key"] for entry in objects if "escaped_" in entry["Key"]]


@pytest.mark.long
def test_two_worker_processes_give_the_same(served: ModelVersion, predictor: MakePredictor, tmp_path: Path):
    require_the_same(served, predictor, tmp_path, runner="multi_processing", workers="2")


@pytest.mark.long
def test_a_job_server_with_a_worker_pool_gives_the_same(
    served: ModelVersion, predictor: MakePredictor, tmp_path: Path, job_server: str, worker_pool: str
):
    require_the_same(served, predictor, tmp_path, runner="portable", endpoint=job_server, worker_pool=worker_pool)


@pytest.mark.long
@pytest.mark.platform(reason="Flink is Java, and its jars are fetched where DEEPLAB_TEST_FLINK asks for it")
def test_a_flink_cluster_gives_the_same(
    served: ModelVersion, predictor: MakePredictor, tmp_path: Path, flink: str, worker_pool: str
):
    require_the_same(served, predictor, tmp_path, runner="flink", workers="2", endpoint=flink, worker_pool=worker_pool)


def require_the_same(served: ModelVersion, predictor: MakePredictor, folder: Path, **beam: str) -> None:
    """The command gives on a runner what a predictor alone gives; typed again, it does nothing again."""
    make_images(folder / "in")
    list(predictor(folder / "alone").predict(find_images([str(folder / "in")], str(folder / "alone"))))
    settings = [part for name, value in beam.items() for part in ("--set", f"beam.{name}={value}")]
    arguments = ["predict", str(folder / "in"), "--out", str(folder / "shared"), "--beam", *settings]
    arguments += ["--serving", str(Path(served.path).parents[1])]

    first, second = command_line(*arguments), command_line(*arguments)

    assert (first.returncode, second.returncode) == (1, 1), first.stderr
    assert "7 images by version 1, 0 were done before, 1 failed" in " ".join(first.stdout.split())
    assert "0 images by version 1, 7 were done before, 1 failed" in " ".join(second.stdout.split())
    assert "bad.png: unreadable image" in first.stderr
    assert outputs(folder / "shared") == outputs(folder / "alone")
    assert journal(folder / "shared") == journal(folder / "alone")
