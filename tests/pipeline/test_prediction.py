"""`predict` writes the masks that evaluation counts, finds what a person means, and goes on where it was stopped."""

import io
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.serving_directory import Published, Record
from data.config import PreprocessConfig
from data.errors import DataError
from data.features import IMAGE, MASK
from data.labels import ClassLabel, LabelMap
from models.config import InferenceConfig, ModelConfig
from models.deeplab import build_model
from models.export import EVALUATE_SIGNATURE, export_saved_model, load_segmenter
from models.metrics import confusion_matrix
from pipeline.prediction import command, predictor
from pipeline.prediction.journal import JOURNAL_FILE, Journal, Prediction, State
from pipeline.prediction.pictures import Picture, find_pictures
from pipeline.prediction.predictor import Predictor

LABELS = LabelMap(classes=tuple(ClassLabel(name=name) for name in ("sky", "road", "tree")))
NETWORK = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)


def blocks(seed: int) -> np.ndarray:
    """Random blocks of 8 x 8, (56, 72, 3) uint8."""
    colors = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return colors.repeat(8, axis=0).repeat(8, axis=1)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A model that slides windows over pictures, and sees them mirrored, too."""
    keras.utils.set_random_seed(0)
    model = build_model(NETWORK, 3, mean=[120, 110, 100], variance=[3000, 2900, 3100])
    model(np.stack([blocks(seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    path = tmp_path_factory.mktemp("serving") / "1"
    inference = InferenceConfig(window=32, flip=True)
    export_saved_model(model, path, label_map=LABELS, preprocess=PreprocessConfig(), inference=inference)
    published = Record(version=1, model_fingerprint="", class_names=list(LABELS.names), published_at=datetime.now(UTC))
    return Published(1, str(path), published)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes most of a test's time."""
    monkeypatch.setattr(predictor, "load_segmenter", load_once)


load_once = cache(load_segmenter)


def write(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_bytes(content)


def names(pictures: list[Picture]) -> list[str]:
    return [picture.name for picture in pictures]


def test_predicted_masks_are_those_that_evaluation_counts(served: Published, tmp_path: Path):
    encoded = {"one": encode(blocks(1)), "two": encode(blocks(2), "JPEG")}
    write(tmp_path / "in", one__png=encoded["one"], two__jpg=encoded["two"])
    labels = np.random.default_rng(3).choice([0, 1, 2, 255], (56, 72)).astype(np.uint8)

    pictures = find_pictures([str(tmp_path / "in")], tmp_path / "out")
    predictions = list(Predictor(served, tmp_path / "out", workers=2).predict(pictures))

    evaluate = tf.saved_model.load(served.path).signatures[EVALUATE_SIGNATURE]
    assert [prediction.name for prediction in predictions] == ["one", "two"]
    for prediction in predictions:
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


def test_probabilities_come_on_demand_and_their_mean_is_the_score(served: Published, tmp_path: Path):
    write(tmp_path / "in", one__png=encode(blocks(1)))
    pictures = find_pictures([str(tmp_path / "in")], tmp_path / "out")
    (plain,) = Predictor(served, tmp_path / "out", workers=1).predict(pictures)
    mask = np.asarray(Image.open(tmp_path / "out/one_mask.png"))

    again = Predictor(served, tmp_path / "out", workers=1, probability=True)
    assert again.find(pictures[0]) is None
    (found,) = again.predict(pictures)

    probability = np.asarray(Image.open(tmp_path / "out/one_probability.png"))
    assert (probability.shape, probability.dtype) == ((56, 72), np.uint8)
    assert probability.min() >= 255 // 3
    assert probability.mean() / 255 == pytest.approx(found.score, abs=1 / 255)
    assert found.score == pytest.approx(plain.score)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/one_mask.png")), mask)
    assert again.find(pictures[0]) == found


def test_a_stopped_prediction_goes_on_and_does_again_what_changed(served: Published, tmp_path: Path):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, **{f"{number}__png": encode(blocks(number)) for number in range(4)})
    pictures = find_pictures([str(source)], out)
    stopped = Predictor(served, out, workers=2).predict(pictures)
    first = [next(stopped), next(stopped)]
    stopped.close()
    with (out / JOURNAL_FILE).open("a") as file:
        file.write('{"picture": "/torn')

    again = Predictor(served, out, workers=2)
    rest = list(again.predict(p for p in pictures if again.find(p) is None))

    assert [p.name for p in first + rest] == ["0", "1", "2", "3"]
    assert all(Predictor(served, out, workers=1).find(picture) for picture in pictures)
    write(source, **{"3__png": encode(blocks(9))})
    assert [p.name for p in pictures if again.find(p) is None] == ["3"]


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(served: Published, tmp_path: Path):
    write(tmp_path / "in", a__png=encode(blocks(1)), b__png=b"hello", c__png=encode(blocks(2)))
    pictures = find_pictures([str(tmp_path / "in")], tmp_path / "out")

    found = list(Predictor(served, tmp_path / "out", workers=2).predict(pictures))

    assert [(p.name, bool(p.error), p.score is None) for p in found] == [
        ("a", False, False),
        ("b", True, True),
        ("c", False, False),
    ]
    assert "unreadable image" in found[1].error
    assert not (tmp_path / "out/b_mask.png").exists()


def test_watching_takes_what_comes_once_it_is_complete(
    served: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, early__png=encode(blocks(1)))
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

    command.watch_pictures([str(source)], out, Predictor(served, out, workers=2))

    early, both = ["early_mask.png"], ["early_mask.png", "late_mask.png"]
    assert seen == [[], early, early, early, both, both]
    assert len((out / JOURNAL_FILE).read_text().splitlines()) == 2


def test_a_person_is_told_which_pictures_could_not_be_read():
    state = State(size=1, modified=1)
    good = Prediction(picture=Path("a.png"), state=state, model="m", name="a")
    bad = [good.model_copy(update={"picture": Path(f"{n}.png"), "error": "truncated image"}) for n in range(60)]

    command.require_readable([good])
    with pytest.raises(DataError, match=r"^0.png: truncated image\n(.*\n){49}and 10 more$"):
        command.require_readable([good, *bad])


def test_folders_keep_their_structure_and_outputs_are_no_pictures(tmp_path: Path):
    picture = encode(blocks(1))
    write(tmp_path, b__JPG=picture, note__txt=b"")
    write(tmp_path / "sub", a__png=picture)
    write(tmp_path / "out", old__png=picture)

    assert names(find_pictures([str(tmp_path)], tmp_path / "out")) == ["b", "sub/a"]


def test_patterns_and_names_are_taken_each_picture_once(tmp_path: Path):
    picture = encode(blocks(1))
    write(tmp_path, a__png=picture, b__png=picture, other=picture)
    write(tmp_path / "deep/er", c__png=picture)
    arguments = [str(tmp_path / "other"), str(tmp_path / "*.png"), str(tmp_path / "**/*.png"), str(tmp_path / "a.png")]

    assert names(find_pictures(arguments, tmp_path / "out")) == ["other", "a", "b", "c"]


@pytest.mark.parametrize("argument", ["nowhere", "*.png", "."])
def test_what_names_no_picture_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no picture there"):
        find_pictures([argument], tmp_path / "out")
    if argument != "nowhere":
        assert find_pictures([argument], tmp_path / "out", allow_none=True) == []


def test_pictures_of_the_same_name_are_numbered_and_keep_their_numbers(tmp_path: Path):
    pictures = [Picture(tmp_path / folder / "a.png", "a") for folder in ("x", "y")]
    journal = Journal(tmp_path)
    assert [journal.name(picture) for picture in pictures] == ["a", "a-2"]
    state = State(size=1, modified=1)
    journal.add(Prediction(picture=pictures[1].path, state=state, model="m", name="a-2"))

    later = Journal(tmp_path)

    assert [later.name(picture) for picture in reversed(pictures)] == ["a-2", "a"]
