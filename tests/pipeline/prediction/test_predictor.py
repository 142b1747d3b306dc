"""`predict` writes the masks that evaluation counts, and goes on where it was stopped, whatever images it gets."""

import errno
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.publishing.directory import ModelVersion
from components.storage.beam_files import BeamFiles
from data.errors import WorkspaceError
from data.features import IMAGE, MASK
from data.masks import overlay
from models.export.saved_model import EVALUATE_SIGNATURE
from models.export.segmenter import Segmenter
from models.metrics.confusion import confusion_matrix
from pipeline.prediction import predictor as module
from pipeline.prediction.input_image import InputImage
from pipeline.prediction.listing import find_images
from pipeline.prediction.outputs import encode_outputs, prepare_folder
from tests.object_store import make_bucket, object_store, put
from tests.pipeline.prediction.conftest import LABELS, MakePredictor, blocks, encode, outputs, write


def found(folder: Path) -> list[InputImage]:
    return find_images([str(folder / "in")], str(folder / "out"))


def test_predicted_masks_are_those_that_evaluation_counts(
    served: ModelVersion, predictor: MakePredictor, tmp_path: Path
):
    encoded = {"one": encode(blocks(1)), "two": encode(blocks(2), "JPEG")}
    write(tmp_path / "in", one__png=encoded["one"], two__jpg=encoded["two"])
    labels = np.random.default_rng(3).choice([0, 1, 2, 255], (56, 72)).astype(np.uint8)

    outcomes = list(predictor(tmp_path / "out").predict(found(tmp_path)))

    evaluate = tf.saved_model.load(served.path).signatures[EVALUATE_SIGNATURE]
    assert [(outcome.prediction.name, outcome.new) for outcome in outcomes] == [("one", True), ("two", True)]
    for prediction, _ in outcomes:
        feature = {
            key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            for key, value in ((IMAGE, encoded[prediction.name]), (MASK, encode(labels)))
        }
        example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        counted = evaluate(examples=tf.constant([example]))["confusion"].numpy().reshape(3, 3)
        mask = np.asarray(Image.open(tmp_path / "out" / f"{prediction.name}_mask.png"))
        assert len(np.unique(mask)) > 1
        np.testing.assert_array_equal(counted, confusion_matrix(labels, mask, 3))
        shares = {LABELS.names[i]: float(np.mean(mask == i)) for i in np.unique(mask)}
        assert prediction.fractions == pytest.approx(shares)
        laid = np.asarray(Image.open(tmp_path / "out" / f"{prediction.name}_overlay.png"))
        pixels = np.asarray(Image.open(tmp_path / "in" / Path(prediction.image).name))
        np.testing.assert_array_equal(laid, overlay(pixels, mask))


def test_a_turned_photo_gives_the_mask_of_what_people_see(predictor: MakePredictor, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(blocks(1)))).save(turned, "PNG", exif=exif)
    opaque = BytesIO()
    Image.fromarray(blocks(1)).convert("RGBA").save(opaque, "PNG")
    write(tmp_path / "in", seen__png=encode(blocks(1)), turned__png=turned.getvalue(), opaque__png=opaque.getvalue())

    assert all(not outcome.prediction.error for outcome in predictor(tmp_path / "out").predict(found(tmp_path)))

    for kind in ("mask", "overlay"):
        seen = np.asarray(Image.open(tmp_path / f"out/seen_{kind}.png"))
        for name in ("turned", "opaque"):
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/{name}_{kind}.png")), seen)


def test_an_overlay_that_is_made_in_bands_is_the_same(monkeypatch: pytest.MonkeyPatch):
    mask = np.random.default_rng(0).choice([0, 1, 255], (56, 72)).astype(np.uint8)
    whole = encode_outputs(blocks(1), mask, None, 3)
    monkeypatch.setattr("pipeline.prediction.outputs.BAND", 10)
    assert encode_outputs(blocks(1), mask, None, 3) == whole


def test_probabilities_come_on_demand_and_their_mean_is_the_score(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", one__png=encode(blocks(1)))
    ((plain, _),) = predictor(tmp_path / "out").predict(found(tmp_path))
    mask = (tmp_path / "out/one_mask.png").read_bytes()

    again = predictor(tmp_path / "out", probability=True)
    ((prediction, new),) = again.predict(found(tmp_path))

    probability = np.asarray(Image.open(tmp_path / "out/one_probability.png"))
    assert new
    assert (probability.shape, probability.dtype) == ((56, 72), np.uint8)
    assert probability.min() >= 255 // 3
    assert probability.mean() / 255 == pytest.approx(prediction.score, abs=1 / 255)
    assert prediction.score == pytest.approx(plain.score)
    assert (tmp_path / "out/one_mask.png").read_bytes() == mask
    assert list(again.predict(found(tmp_path))) == [(prediction, False)]


def test_a_stopped_prediction_goes_on_and_does_again_what_changed(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", **{f"{number}__png": encode(blocks(number)) for number in range(4)})
    stopped = predictor(tmp_path / "out").predict(found(tmp_path))
    first = [next(stopped), next(stopped)]
    stopped.close()
    for shard in (tmp_path / "out/predictions").iterdir():
        with shard.open("a") as file:
            file.write('{"image": "/torn')

    rest = list(predictor(tmp_path / "out").predict(found(tmp_path)))

    assert [(prediction.name, new) for prediction, new in first] == [("0", True), ("1", True)]
    assert [(prediction.name, new) for prediction, new in rest] == [
        ("0", False),
        ("1", False),
        ("2", True),
        ("3", True),
    ]
    write(tmp_path / "in", **{"3__png": encode(blocks(9))})
    changed = [outcome.new for outcome in predictor(tmp_path / "out").predict(found(tmp_path))]
    assert changed == [False, False, False, True]


def test_outputs_that_no_longer_fit_the_image_are_removed(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", **{f"{name}__png": encode(blocks(1)) for name in "abc"})
    write(tmp_path / "out", d_mask__png=b"somebody's own", d_probability__png=b"somebody's own")
    list(predictor(tmp_path / "out", probability=True).predict(found(tmp_path)))
    write(tmp_path / "in", a__png=b"garbage", b__png=encode(blocks(2)), d__png=b"garbage")

    list(predictor(tmp_path / "out").predict(found(tmp_path)))

    assert sorted(set(outputs(tmp_path / "out")) - {"classes.json", "legend.png"}) == [
        "b_mask.png",
        "b_overlay.png",
        "c_mask.png",
        "c_overlay.png",
        "c_probability.png",
        "d_mask.png",
        "d_probability.png",
    ]


@pytest.mark.long
def test_outputs_that_no_longer_fit_are_removed_from_an_object_store(
    served: ModelVersion, segmenter: Segmenter, tmp_path: Path
):
    write(tmp_path / "in", a__png=encode(blocks(1)))
    with object_store():
        out = f"{make_bucket('stale')}/out"

        def predict(*, probability: bool) -> set[str]:
            job = module.PredictJob(served, out, probability, 10_000)
            job.prepare()
            list(module.Predictor(segmenter, job, workers=1).predict(found(tmp_path)))
            return {path for path, _, _ in BeamFiles().stats(out) if path.startswith("a")}

        assert predict(probability=True) == {"a_mask.png", "a_overlay.png", "a_probability.png"}
        write(tmp_path / "in", a__png=encode(blocks(2)[:48]))
        assert predict(probability=False) == {"a_mask.png", "a_overlay.png"}
        write(tmp_path / "in", a__png=b"garbage")
        assert predict(probability=False) == set()


def test_what_another_model_saw_is_done_again(served: ModelVersion, predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", one__png=encode(blocks(1)))
    images, known = found(tmp_path), predictor(tmp_path / "out")
    assert [outcome.new for outcome in known.predict(images)] == [True]
    other = served._replace(record=served.record.model_copy(update={"model_fingerprint": "other"}))

    newer = module.Predictor(
        known._segmenter, module.PredictJob(other, str(tmp_path / "out"), False, 10_000), workers=1
    )

    assert [outcome.new for outcome in newer.predict(images)] == [True]
    assert predictor(tmp_path / "out").find(images[0]) is None  # Its outputs are those of the other model now.


def test_an_image_that_cannot_be_used_does_not_stop_the_others(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", a__png=encode(blocks(1)), b__png=b"hello", c__png=encode(blocks(2)), d__png=b"", e__png=b"")
    images = found(tmp_path)
    (tmp_path / "in/d.png").unlink()
    (tmp_path / "in/e.png").write_bytes(encode(np.zeros((300, 300, 3), np.uint8)))

    first = list(predictor(tmp_path / "out", max_pixels=80_000).predict(images))

    errors = {prediction.name: prediction.error for prediction, _ in first}
    assert (errors["a"], errors["c"]) == ("", "")
    assert "unreadable image" in errors["b"]
    assert "image missing" in errors["d"]
    assert errors["e"] == "image too large: 300x300 is 90000 pixels; --max-pixels allows 80000"
    assert sorted(outputs(tmp_path / "out")) == [
        "a_mask.png",
        "a_overlay.png",
        "c_mask.png",
        "c_overlay.png",
        "classes.json",
        "legend.png",
    ]
    # What could not be read is tried again, although nothing about the file may have changed but its permissions.
    (tmp_path / "in/d.png").write_bytes(encode(blocks(3)))
    again = {p.name: (new, p.error) for p, new in predictor(tmp_path / "out", max_pixels=80_000).predict(images)}
    assert (again["a"], again["d"]) == ((False, ""), (True, ""))
    assert again["b"] == (False, errors["b"])


def test_a_file_of_absurd_size_is_not_read(predictor: MakePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "in", a__png=b"")
    os.truncate(tmp_path / "in/a.png", 1 << 40)  # All holes: it takes no space.

    ((prediction, _),) = predictor(tmp_path / "out").predict(found(tmp_path))

    assert prediction.error == f"image too large: the file has {1 << 40} bytes, more than the allowed 8000000"


def test_a_name_that_leaves_no_room_for_an_ending_fails_alone(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", **{"x" * 246 + "__png": encode(blocks(1)), "y__png": encode(blocks(2))})
    write(tmp_path / "in/legend.png", z__png=encode(blocks(3)))  # Its outputs would lie in a folder of that name.

    outcomes = list(predictor(tmp_path / "out").predict(found(tmp_path)))

    errors = {prediction.name[:12]: prediction.error for prediction, _ in outcomes}
    assert errors == {
        "x" * 12: "its outputs cannot be written: File name too long",
        "y": "",
        "legend.png/z": "its outputs cannot be written: File exists",
    }
    assert not list((tmp_path / "out").glob("x*"))


def test_a_full_disk_stops_the_run_and_names_the_folder(
    predictor: MakePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "in", a__png=encode(blocks(1)))
    full = predictor(tmp_path / "out")

    def no_space(path: str, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(module, "write_output", no_space)
    with pytest.raises(WorkspaceError, match="out: the outputs cannot be written: No space left on device"):
        list(full.predict(found(tmp_path)))


def test_a_file_of_somebodys_own_is_never_replaced(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path, a__png=encode(blocks(0)), a_mask__png=encode(blocks(1)), b__png=encode(blocks(2)))
    own = (tmp_path / "a_mask.png").read_bytes()
    images = find_images([str(tmp_path / "?.png")], str(tmp_path))

    found = [prediction for prediction, _ in predictor(tmp_path).predict(images)]

    where = tmp_path / "a_mask.png"
    assert [prediction.error for prediction in found] == [
        f"{where} exists already, and predict did not write it: move it, or name another --out",
        "",
    ]
    assert [prediction.score is None for prediction in found] == [True, False]
    assert where.read_bytes() == own
    assert not (tmp_path / "a_overlay.png").exists()
    where.rename(tmp_path / "a_label.png")
    assert [(prediction.error, new) for prediction, new in predictor(tmp_path).predict(images)] == [
        ("", True),
        ("", False),
    ]


def test_outputs_that_a_killed_process_did_not_record_are_replaced(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", a__png=encode(blocks(0)))
    images = find_images([str(tmp_path / "in")], str(tmp_path / "out"))
    list(predictor(tmp_path / "out").predict(images))
    first = outputs(tmp_path / "out")
    for shard in (tmp_path / "out/predictions").glob("*.jsonl"):
        shard.unlink()
    (tmp_path / "out/a_overlay.png").write_bytes(b"")

    [(prediction, new)] = predictor(tmp_path / "out").predict(images)

    assert (prediction.error, new) == ("", True)
    assert outputs(tmp_path / "out") == first


@pytest.mark.parametrize("name", ["legend.png", "classes.json"])
def test_a_folder_with_somebodys_own_explanations_is_refused_and_left_as_it_is(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b'{"mine": 1}')

    with pytest.raises(WorkspaceError, match=rf"{name} exists already, and predict did not write it"):
        prepare_folder(str(tmp_path), LABELS.names)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b'{"mine": 1}'}


def test_outputs_do_not_begin_among_other_objects_of_a_store():
    with object_store():
        out = f"{make_bucket('mine')}/out"
        put(f"{out}/a_mask.png", b"a label")

        with pytest.raises(WorkspaceError, match=rf"{out}/a_mask.png exists already"):
            prepare_folder(out, LABELS.names)

        prepare_folder(f"{out}/masks", LABELS.names)
        prepare_folder(f"{out}/masks", LABELS.names)
        assert {path for path, _, _ in BeamFiles().stats(out)} == {
            "a_mask.png",
            *(f"masks/{name}" for name in ("classes.json", "legend.png", "predictions/README.txt")),
        }


def test_before_the_first_image_the_legend_is_none(tmp_path: Path):
    prepare_folder(str(tmp_path), LABELS.names)

    assert find_images([str(tmp_path)], str(tmp_path), allow_none=True) == []


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_loaded(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="file/out: the outputs cannot be written: Not a directory"):
        prepare_folder(str(tmp_path / "file/out"), LABELS.names)


def test_only_a_few_images_are_in_memory_at_once(predictor: MakePredictor, tmp_path: Path):
    write(tmp_path / "in", a__png=encode(blocks(1)))
    (image,) = found(tmp_path)
    taken = []

    def many() -> Iterator[InputImage]:
        for number in range(20):
            taken.append(number)
            yield InputImage(image.path, f"{number}", image.state)

    outcomes = predictor(tmp_path / "out").predict(many())
    next(outcomes)
    assert len(taken) <= 2 * (2 + 1)
    outcomes.close()
