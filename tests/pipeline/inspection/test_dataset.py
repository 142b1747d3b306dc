"""Looking at a dataset: what is counted, what is advised, what is refused, and the page."""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from rich.console import Console

from data.dataset import DataConfig
from data.errors import ConfigError, DataError, WorkspaceError
from data.files import LocalFiles
from data.labels import ClassLabel, LabelMap
from data.layouts.base import Sample
from data.masks import palette
from data.splits import plan_splits
from data.synthetic import render
from pipeline.config import load_config, load_section, resolve
from pipeline.inspection import config_writer
from pipeline.inspection.advice import on_balance
from pipeline.inspection.config_writer import write_config
from pipeline.inspection.console import show_inspection
from pipeline.inspection.dataset import NO_ANSWERS, _chance, inspect_dataset
from pipeline.inspection.findings import ClassCount, Inspection
from pipeline.inspection.proposal import Answers, parse_answers

FILES = LocalFiles()
SPLITS = ("train", "val", "test")
BINARY_CLASSES = (ClassLabel(name="ground", values=(0,)), ClassLabel(name="thing", values=(255,)))

Inspect = Callable[..., Inspection]
Fill = Callable[..., Path]


@pytest.fixture
def inspect(tmp_path: Path) -> Inspect:
    """Inspects a folder; the page is `tmp_path / "page.html"`."""

    def run(root: Path, limit: int = 100, answers: Answers = NO_ANSWERS, **settings: object) -> Inspection:
        config = DataConfig.model_validate({"path": str(root), **settings})
        return inspect_dataset(config, FILES, limit=limit, out=tmp_path / "page.html", answers=answers)

    return run


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Writes images/<split> and masks/<split>: scenes of the sample dataset, the masks through a function."""

    def write(of_mask: Callable[[np.ndarray], np.ndarray], counts: tuple[int, int, int] = (4, 2, 2)) -> Path:
        root, index = tmp_path / "mine", 0
        for split, count in zip(SPLITS, counts, strict=True):
            for _ in range(count):
                image, mask = render(index)
                save(root / f"images/{split}/{index}.jpg", image)
                save(root / f"masks/{split}/{index}.png", of_mask(mask))
                index += 1
        return root

    return write


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def as_is(mask: np.ndarray) -> np.ndarray:
    return mask


def halves(*values: int | tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Masks whose columns hold the given values in turn, in parts of equal width."""

    def make(mask: np.ndarray) -> np.ndarray:
        columns = np.arange(mask.shape[1]) * len(values) // mask.shape[1]
        return np.broadcast_to(np.array(values, np.uint8)[columns], (*mask.shape, *np.shape(values)[1:])).copy()

    return make


def texts(found: Inspection) -> str:
    return "\n".join(f"{advice.tone}: {advice.text}" for advice in found.advice)


class Page(HTMLParser):
    """Elements, with a check that they are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)


# What is counted


def test_pixels_images_and_void_are_counted(tmp_path: Path, inspect: Inspect) -> None:
    masks = {"train": [[0, 0, 1, 255]], "val": [[0, 1, 1, 1]], "test": [[0, 0, 0, 0]]}
    for split, mask in masks.items():
        save(tmp_path / f"d/images/{split}/a_{split}.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / f"d/masks/{split}/a_{split}.png", np.array(mask, np.uint8))
    label_map = LabelMap(
        classes=(ClassLabel(name="sky", values=(0,)), ClassLabel(name="sea", values=(1,))), ignore_values=(255,)
    )
    found = inspect(tmp_path / "d", label_map=label_map)
    assert [(c.name, c.pixels, c.images) for c in found.classes] == [("sky", 7, 3), ("sea", 4, 2)]
    assert found.classes[1].share == pytest.approx(4 / 11)
    assert found.void == pytest.approx(1 / 12)
    assert (found.widths, found.heights) == ((4, 4, 4), (1, 1, 1))
    assert found.proposal is None


def test_all_images_are_listed_and_only_some_looked_at(fill: Fill, inspect: Inspect) -> None:
    root = fill(as_is, (7, 2, 3))
    found, again = inspect(root, limit=5), inspect(root, limit=5)
    assert found.layout == "folder"
    assert [(split.name, split.listed) for split in found.splits] == [("train", 7), ("val", 2), ("test", 3)]
    assert found.looked_at == 5 and found.listed == 12
    assert found == again


def test_without_official_splits_the_page_says_how_they_are_made(tmp_path: Path, inspect: Inspect) -> None:
    for index in range(6):
        image, mask = render(index)
        save(tmp_path / f"d/images/{index}.png", image)
        save(tmp_path / f"d/masks/{index}.png", mask)
    found = inspect(tmp_path / "d", test_fraction=0.3)
    assert {split.name: split.origin for split in found.splits} == {
        "train": "the images left over",
        "val": "10% of all images, by a hash of the group",
        "test": "30% of all images, by a hash of the group",
    }


def test_bad_files_are_listed_with_reasons(fill: Fill, inspect: Inspect) -> None:
    root = fill(as_is)
    (root / "images/train/0.jpg").write_bytes((root / "images/train/0.jpg").read_bytes()[:-500])
    save(root / "masks/train/1.png", np.zeros((5, 5), np.uint8))
    (root / "masks/val/4.png").unlink()
    found = inspect(root)
    reasons = {entry.path: entry.reason for entry in found.bad}
    assert found.num_bad == 3 and found.looked_at == 5
    assert reasons["images/train/0.jpg"].startswith("truncated image")
    assert reasons["images/train/1.jpg"].startswith("size mismatch")
    assert reasons["images/val/4.jpg"].startswith("mask missing")
    assert "bad: Bad files: 3; a run would stop at so many (data.max_bad_fraction: 0.05)." in texts(found)


def test_a_value_outside_the_label_map_is_a_bad_file(fill: Fill, inspect: Inspect) -> None:
    root = fill(halves(0, 255))
    save(root / "masks/test/6.png", halves(0, 7)(render(6)[1]))
    found = inspect(root, label_map=LabelMap(classes=BINARY_CLASSES))
    assert [entry.path for entry in found.bad] == ["images/test/6.jpg"]
    assert "label outside the label map: 7" in found.bad[0].reason


def test_a_folder_without_usable_images_is_an_error_with_reasons(tmp_path: Path, inspect: Inspect) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "d" / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="no images: no file below "):
        inspect(tmp_path / "d")
    save(tmp_path / "d/masks/a.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "d/images/a.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"no usable image among the 1 looked at in .*\n  images/a.png: unreadable image"
    ):
        inspect(tmp_path / "d")


def test_a_page_that_cannot_be_written_is_an_error(fill: Fill, tmp_path: Path) -> None:
    root = fill(as_is)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="the page cannot be written"):
        inspect_dataset(DataConfig(path=str(root)), FILES, limit=9, out=tmp_path / "file" / "page.html")


# Near-duplicates


def test_copies_across_splits_are_found_at_other_sizes_and_qualities(fill: Fill, inspect: Inspect) -> None:
    root = fill(as_is, (6, 3, 3))
    image, mask = (Image.fromarray(pixels) for pixels in render(2))
    size = (image.width * 3 // 4, image.height * 3 // 4)
    ImageEnhance.Brightness(image.resize(size)).enhance(1.1).save(root / "images/test/copy.jpg", quality=50)
    mask.resize(size, Image.Resampling.NEAREST).save(root / "masks/test/copy.png")
    found = inspect(root)
    assert [(pair.first, pair.second) for pair in found.duplicates] == [("images/train/2.jpg", "images/test/copy.jpg")]
    assert found.num_duplicates == 1
    assert "warn: Near-duplicates across splits (pairs: 1, among all images) make scores too good." in texts(found)
    assert "The splits are the dataset's own" in texts(found)


def test_copies_are_found_among_all_images_not_only_those_whose_masks_are_read(fill: Fill, inspect: Inspect) -> None:
    root = fill(as_is, (6, 3, 3))
    for side, ending in (("images", "jpg"), ("masks", "png")):
        (root / f"{side}/test/copy.{ending}").write_bytes((root / f"{side}/train/2.{ending}").read_bytes())
    found = inspect(root, limit=1)
    assert found.looked_at == 1 and found.compared == 13
    assert [(pair.first, pair.second) for pair in found.duplicates] == [("images/train/2.jpg", "images/test/copy.jpg")]


def test_the_written_configuration_has_a_first_training_and_its_time(
    fill: Fill, inspect: Inspect, tmp_path: Path
) -> None:
    write_config(inspect(fill(as_is, (6, 3, 3))), tmp_path / "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text()
    config = load_config([tmp_path / "mine.yaml"])
    assert config.training.steps == 200 and config.training.global_batch_size == 6
    assert config.training.initial_weights == "random" and 'initial_weights: "random"' in text
    assert re.search(r"# Expected time here: about \d+ minutes|How long it takes on this machine is not known", text)


def test_what_was_not_compared_is_said(fill: Fill, inspect: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inspection.dataset.MOST_COMPARED", 4)
    found = inspect(fill(as_is, (7, 2, 3)), limit=2)
    assert "among 4 of 12 images; the others were not compared" in texts(found)


def test_the_sample_has_nothing_to_do_with_the_splits(tmp_path: Path) -> None:
    layout = [(Sample(key=f"images/{i}.png", image="", mask=None, group=f"images/{i}.png"), "") for i in range(2000)]
    plan = plan_splits(())
    first = sorted(layout, key=_chance)[:500]
    splits = Counter(plan.assign(sample, 0.1, 0.1) for sample, _ in first)
    assert splits["test"] == pytest.approx(50, abs=25) and splits["val"] == pytest.approx(50, abs=25)


@pytest.mark.parametrize("images", [5, 6, 10, 24])
def test_a_small_dataset_gets_an_image_in_every_split(images: int, tmp_path: Path, inspect: Inspect) -> None:
    for index in range(images):
        image, mask = render(index)
        save(tmp_path / f"d/images/{index}.png", image)
        save(tmp_path / f"d/masks/{index}.png", mask)
    found = inspect(tmp_path / "d")
    write_config(found, tmp_path / "mine.yaml")
    section = load_section([tmp_path / "mine.yaml"], [], DataConfig)
    again = inspect_dataset(section, FILES, limit=9, out=tmp_path / "page.html")
    assert all(split.listed for split in again.splits)
    assert ("split is empty" in texts(found)) == (found.fractions is not None)


def test_copies_within_a_split_are_no_matter(fill: Fill, inspect: Inspect) -> None:
    root = fill(as_is)
    for side, ending in (("images", "jpg"), ("masks", "png")):
        (root / f"{side}/train/copy.{ending}").write_bytes((root / f"{side}/train/0.{ending}").read_bytes())
    assert inspect(root).duplicates == ()


def test_where_splits_are_made_the_remedy_is_a_group(tmp_path: Path, inspect: Inspect) -> None:
    image, mask = render(0)
    for index in range(30):
        save(tmp_path / f"d/images/{index}.png", image)
        save(tmp_path / f"d/masks/{index}.png", mask)
    assert "Set data.group_pattern to a regular expression" in texts(inspect(tmp_path / "d"))
    assert inspect(tmp_path / "d", group_pattern="images/").duplicates == ()


# Advice


def count(name: str, pixels: int, images: int = 9) -> ClassCount:
    return ClassCount(name, pixels, pixels / 1000, images, (0, 0, 0))


def test_balanced_classes_need_no_weights() -> None:
    advice = on_balance([count("a", 600), count("b", 400)])
    assert advice.tone == "good"
    assert advice.text == (
        "training.class_balance: none will do. a has 1.5 times as many pixels as b (60.0% and 40.00%)."
    )


def test_unequal_classes_are_advised_the_weights_that_training_would_use() -> None:
    advice = on_balance([count("common", 980), count("rare", 20), count("never", 0)])
    # log: ln(1.02 + 0.98) / ln(1.02 + 0.02) = 0.6931 / 0.0392 = 17.7; median: 980 / 20 = 49
    assert advice.tone == "warn"
    assert "Set training.class_balance: log. common has 49 times as many pixels as rare" in advice.text
    assert "weigh 17.7 times as much in the loss, median 49 times" in advice.text


def test_a_single_class_is_nothing_to_learn() -> None:
    assert on_balance([count("a", 1000), count("b", 0)]).tone == "bad"


def test_absent_and_rare_classes_and_empty_splits_are_named(tmp_path: Path, inspect: Inspect) -> None:
    save(tmp_path / "d/images/a.png", np.zeros((2, 4, 3), np.uint8))
    save(tmp_path / "d/masks/a.png", np.array([[0, 0, 1, 1]] * 2, np.uint8))
    classes = tuple(ClassLabel(name=name, values=(i,)) for i, name in enumerate(("sky", "sea", "ship")))
    advice = texts(inspect(tmp_path / "d", label_map=LabelMap(classes=classes)))
    assert "warn: Not in the masks looked at: ship." in advice
    assert "warn: In fewer than 5 of the images looked at: sky (1), sea (1)." in advice
    assert len(re.findall("bad: The (train|val|test) split is empty", advice)) == 2


def test_mostly_void_masks_are_doubted(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves(0, 1, 255, 255, 255)))
    assert found.void == pytest.approx(0.6, abs=0.01)
    assert "warn: 60% of the pixels are void" in texts(found)


# Label maps that nobody has stated


def ask(found: Inspection) -> str:
    assert found.proposal is not None
    return found.proposal.question or ""


def test_whether_255_is_an_object_is_asked(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves(0, 255)))
    question = "Is 255 an object or void? `inspect --object 255` or `inspect --ignore 255` says so."
    assert ask(found) == question
    assert f"bad: {question} A run refuses to begin until it is said." in texts(found)
    assert found.proposal is not None
    assert "hold only 0, 255, and no label map says what that means." in found.proposal.text
    assert '- {name: "background", values: [0]}  # in 8 masks' in found.proposal.text
    assert '- {name: "foreground", values: [255]}  # in 8 masks' in found.proposal.text
    assert [c.share for c in found.classes] == pytest.approx([0.5, 0.5], abs=0.01)


def test_masks_of_zero_and_one_are_background_and_foreground(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves(0, 1)))
    assert found.labels.names == ("background", "foreground") and not ask(found)
    assert "warn: Nobody has stated the label map" in texts(found)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_masks_of_one_value_are_shown_as_they_are(fill: Fill, inspect: Inspect, value: int) -> None:
    found = inspect(fill(halves(value)))
    assert [label.values for label in found.labels.classes] == [(value,)]
    assert bool(ask(found)) == (value == 255)
    assert "Fewer than two classes" in texts(found)


def test_black_and_white_rgb_masks_are_binary_too(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves((0, 0, 0), (255, 255, 255))))
    assert ask(found).startswith("Is 255,255,255 an object or void? `inspect --object 255,255,255`")
    assert [label.colors for label in found.labels.classes] == [((0, 0, 0),), ((255, 255, 255),)]


@pytest.mark.parametrize(
    ("values", "names", "void"),
    [
        ((0, 128, 255), ("class_0", "class_128", "class_255"), ()),
        ((0, 254, 255), ("class_0", "class_254", "class_255"), ()),
        ((0, 3, 7, 255), ("class_0", "class_3", "class_7", "class_255"), ()),
        ((0, 1, 2, 255), ("class_0", "class_1", "class_2"), (255,)),
    ],
)
def test_255_is_never_void_because_something_else_is_there(
    fill: Fill, inspect: Inspect, values: tuple[int, ...], names: tuple[str, ...], void: tuple[int, ...]
) -> None:
    root = fill(halves(*values))
    found = inspect(root)
    assert (found.labels.names, found.labels.ignore_values) == (names, void)
    assert ask(found).startswith("Is 255 an object or void?")
    assert ("254 beside 255" in texts(found)) == (254 in values)
    said = inspect(root, answers=parse_answers(["255"], [], None))
    assert "class_255" in said.labels.names and not ask(said)
    said = inspect(root, answers=parse_answers([], ["255"], None))
    assert said.labels.ignore_values == (255,) and not ask(said)
    assert said.void == pytest.approx(1 / len(values), abs=0.02)


def test_what_is_said_of_codes_is_checked() -> None:
    assert parse_answers(["255"], ["224,224,192"], "ignore") == Answers(
        frozenset({255}), frozenset({(224, 224, 192)}), "ignore"
    )
    for objects, ignored, edges, text in (
        (["white"], [], None, "--object 'white': neither a label value, such as 255, nor a colour"),
        ([], ["1,2,300"], None, "--ignore '1,2,300': neither"),
        (["255"], ["255"], None, "--object and --ignore both name 255; give one of them"),
        ([], [], "blur", "--soft-edges 'blur'; allowed: nearest, ignore"),
    ):
        with pytest.raises(ConfigError, match=text):
            parse_answers(objects, ignored, edges)


def test_instance_ids_are_recognised(tmp_path: Path, inspect: Inspect) -> None:
    for index, count in enumerate((12, 97, 30, 5)):
        save(tmp_path / f"d/images/{index}.png", render(index)[0])
        save(tmp_path / f"d/masks/{index}.png", halves(*range(count + 1))(render(index)[1]))
    found = inspect(tmp_path / "d")
    assert ask(found).startswith("Do the values, which count from 1 in each mask (up to 97), number instances of one")
    assert found.labels.names == ("background", "object") and found.num_bad == 0


@pytest.mark.parametrize("values", [(0, 255), (0, 1)])
def test_binary_masks_in_a_layout_with_classes_of_its_own_are_doubted(
    tmp_path: Path, inspect: Inspect, values: tuple[int, int]
) -> None:
    for index in range(4):
        image, mask = render(index)
        save(tmp_path / f"d/JPEGImages/{index}.jpg", image)
        save(tmp_path / f"d/SegmentationClass/{index}.png", halves(*values)(mask))
    found = inspect(tmp_path / "d")
    assert found.layout == "voc"
    assert found.labels.names == ("background", "foreground")


def test_two_classes_that_the_dataset_names_are_not_doubted(tmp_path: Path, inspect: Inspect) -> None:
    for index in range(4):
        image, mask = render(index)
        save(tmp_path / f"d/JPEGImages/{index}.jpg", image)
        save(tmp_path / f"d/SegmentationClass/{index}.png", halves(0, 1)(mask))
    (tmp_path / "d/labels.txt").write_text("ground\nthing\n")
    found = inspect(tmp_path / "d")
    assert found.proposal is None and found.labels.names == ("ground", "thing")


def test_a_configured_label_map_settles_binary_masks(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves(0, 255)), label_map=LabelMap(classes=BINARY_CLASSES))
    assert found.proposal is None and found.question is None and found.num_bad == 0


def test_names_that_nobody_has_stated_are_a_warning(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves(0, 3, 7)))
    assert found.labels.names == ("class_0", "class_3", "class_7") and not ask(found)
    assert "Nobody has named the classes class_0, class_3, class_7." in texts(found)


def test_a_list_beside_the_folders_names_the_classes(fill: Fill, inspect: Inspect) -> None:
    root = fill(halves(0, 1, 2))
    (root / "classes.txt").write_text("ground\ntree\nroof\n")
    found = inspect(root)
    assert found.proposal is None and found.labels.names == ("ground", "tree", "roof")
    (root / "classes.txt").write_text("tree\nroof\n")
    found = inspect(root)
    assert found.labels.names == ("background", "tree", "roof") and found.num_bad == 0
    assert ask(found) == (
        "The list names 2 classes, and the masks hold 3 values: is 0 the background, which the list leaves out, as "
        "proposed?"
    )


def test_255_beside_stated_names_is_asked_about(fill: Fill, inspect: Inspect) -> None:
    root = fill(halves(0, 1, 2, 255))
    (root / "classes.txt").write_text("ground\ntree\nroof\n")
    found = inspect(root)
    assert found.labels.names == ("ground", "tree", "roof") and found.labels.ignore_values == (255,)
    assert ask(found).startswith("Is 255 an object or void?")


# Colours on the page


@pytest.mark.parametrize("as_palette", [False, True])
def test_masks_are_drawn_in_their_own_colours(fill: Fill, inspect: Inspect, tmp_path: Path, as_palette: bool) -> None:
    root = fill(thirds)
    if as_palette:
        for path in root.glob("masks/*/*.png"):
            indexed = Image.fromarray(
                halves(0, 1, 2)(np.zeros(Image.open(BytesIO(path.read_bytes())).size[::-1], np.uint8))
            ).convert("P")
            indexed.putpalette(COLORS.ravel().tolist())
            indexed.save(path)
    found = inspect(root)
    assert sorted(count.color for count in found.classes) == sorted(map(tuple, COLORS.tolist()))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    swatches = {attributes["style"] for attributes in page.all("span") if attributes.get("class") == "swatch"}
    assert swatches == {f"background: rgb{color}" for color in map(tuple, COLORS.tolist())}
    laid = [picture["src"] for picture in page.all("img")][1]
    drawn = np.asarray(Image.open(BytesIO(base64.b64decode((laid or "").partition(",")[2]))).convert("RGB")).astype(int)
    right = drawn[:, -drawn.shape[1] // 4 :].mean(axis=(0, 1))  # Blue is laid over it.
    assert right[2] > right[0] + 40


def test_gray_masks_are_drawn_in_colours_that_can_be_told_apart(fill: Fill, inspect: Inspect) -> None:
    assert [count.color for count in inspect(fill(halves(0, 1, 2))).classes] == palette(3)


# Masks that were compressed, scaled or smoothed

COLORS = np.array([(0, 0, 0), (200, 30, 60), (20, 160, 220)], np.uint8)


def thirds(mask: np.ndarray) -> np.ndarray:
    return COLORS[np.arange(mask.shape[1]) * 3 // mask.shape[1]][None].repeat(mask.shape[0], 0)


def noisy(mask: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(mask.sum())).integers(-2, 3, (*mask.shape, 3))
    return (thirds(mask) + noise).clip(0, 255).astype(np.uint8)


def compressed(mask: np.ndarray) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(thirds(mask)).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def smoothed(mask: np.ndarray) -> np.ndarray:
    image = Image.fromarray(thirds(mask)).resize((40, 40), Image.Resampling.NEAREST)
    return np.asarray(image.resize(mask.shape[::-1], Image.Resampling.BILINEAR))


def rotated(mask: np.ndarray) -> np.ndarray:
    """A bicubic filter goes beyond the colours on both sides of an edge."""
    large = Image.fromarray(thirds(mask)).resize((mask.shape[1] * 3, mask.shape[0] * 3), Image.Resampling.NEAREST)
    turned = large.rotate(3, Image.Resampling.BICUBIC).resize(mask.shape[::-1], Image.Resampling.BOX)
    return np.asarray(turned)


def near(color: tuple[int, ...], other: np.ndarray, reach: int) -> bool:
    return bool(np.abs(np.array(color) - other.astype(int)).max() <= reach)


@pytest.mark.parametrize(
    ("of_mask", "reach", "edges"), [(noisy, 1, False), (compressed, 4, None), (smoothed, 0, True), (rotated, 0, True)]
)
def test_near_colours_are_few_classes(
    fill: Fill, inspect: Inspect, tmp_path: Path, of_mask: Callable[..., np.ndarray], reach: int, edges: bool | None
) -> None:
    root = fill(of_mask)
    found = inspect(root, answers=parse_answers([], [], "ignore"))
    assert found.labels.num_classes == 3
    for label, color in zip(found.labels.classes, sorted(COLORS.tolist()), strict=True):
        assert near(label.colors[0], np.array(color), reach)
    assert found.num_bad == 0
    # In the order of the colours: black, blue, red.
    assert [c.share for c in found.classes] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert "warn: Masks are corrected: " in texts(found)
    if edges is not None:
        assert (found.void > 0) == edges
        assert ("Do smoothed edges become" in ask(inspect(root))) == edges
    write_config(found, tmp_path / "mine.yaml")
    data = load_config([tmp_path / "mine.yaml"]).data
    again = inspect(root, **data.model_dump(exclude={"path"}))
    assert again.classes == found.classes and again.num_bad == 0


@pytest.mark.parametrize("quality", [0, 75])
def test_smoothed_gray_masks_are_two_values(fill: Fill, inspect: Inspect, quality: int) -> None:
    def gray(mask: np.ndarray) -> np.ndarray:
        image = Image.fromarray(halves(0, 255)(mask))
        if not quality:
            small = image.resize((40, 40), Image.Resampling.NEAREST)
            return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR))
        buffer = BytesIO()
        image.rotate(20, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    root = fill(gray)
    found = inspect(root, answers=parse_answers(["255"], [], "nearest"))
    assert [label.values for label in found.labels.classes] == [(0,), (255,)]
    assert found.num_bad == 0 and found.void == 0 and not ask(found)
    assert "Do smoothed edges become the nearest class or void?" in ask(inspect(root))


def test_a_question_stands_in_the_configuration_until_it_is_answered(
    fill: Fill, inspect: Inspect, tmp_path: Path
) -> None:
    found = inspect(fill(halves(0, 255)))
    write_config(found, tmp_path / "mine.yaml")
    config = load_config([tmp_path / "mine.yaml"])
    with pytest.raises(DataError, match=r"^data\.question: Is 255 an object or void\? .* delete data\.question\.$"):
        resolve(config, FILES)
    again = inspect(Path(config.data.path), **config.data.model_dump(exclude={"path"}))
    assert again.question == ask(found) and again.proposal is None
    answered = load_config([tmp_path / "mine.yaml"], ["data.question=null"])
    assert resolve(answered, FILES).data.label_map == found.labels


def test_colours_become_classes(fill: Fill, inspect: Inspect) -> None:
    found = inspect(fill(halves((255, 0, 0), (0, 0, 128), (0, 0, 0))))
    assert found.labels.names == ("color_000000", "color_000080", "color_ff0000")
    assert found.num_bad == 0


def test_photos_as_masks_are_recognised(fill: Fill, inspect: Inspect) -> None:
    with pytest.raises(
        DataError, match="too many labels: .* over 255 different values or colours; they look like photos"
    ):
        inspect(fill(lambda mask: np.random.default_rng(0).integers(0, 255, (*mask.shape, 3), np.uint8)))


def test_16_bit_masks_are_proposed_by_their_values(fill: Fill, inspect: Inspect) -> None:
    root = fill(lambda mask: halves(0, 7)(mask).astype(np.uint16) * 100)
    assert [label.values for label in inspect(root).labels.classes] == [(0,), (700,)]
    with pytest.raises(DataError, match="no readable mask"):
        inspect(root, max_pixels=100)


# The configuration to edit


def test_the_written_configuration_loads_and_settles_the_question(
    fill: Fill, inspect: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(halves(0, 3, 255))
    monkeypatch.chdir(tmp_path)
    found = inspect(Path("mine"), max_bad_fraction=0.2)
    write_config(found, tmp_path / "mine.yaml")
    data = load_config([tmp_path / "mine.yaml"]).data
    assert (data.path, data.layout, data.max_bad_fraction) == (str(root), "folder", 0.2)
    assert data.label_map == found.labels
    settled = inspect(root, label_map=data.label_map)
    assert settled.proposal is None and settled.classes == found.classes
    assert "PROPOSED from the masks" in (tmp_path / "mine.yaml").read_text()
    with pytest.raises(ConfigError, match=r"mine.yaml: the file exists, and is not overwritten"):
        write_config(found, tmp_path / "mine.yaml")


def test_names_that_mean_something_in_yaml_survive(fill: Fill, inspect: Inspect, tmp_path: Path) -> None:
    names = ("no", "a: b # c", "'\"- x", "ünïcode 😀", "</pre><script>")
    classes = tuple(ClassLabel(name=name, values=(i,), colors=((i, 0, 0),)) for i, name in enumerate(names))
    label_map = LabelMap(classes=classes, ignore_values=(5, 255), ignore_colors=((1, 2, 3),))
    write_config(inspect(fill(as_is), label_map=label_map), tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert LabelMap.model_validate(written["data"]["label_map"]) == label_map


letters = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
names = st.sampled_from(["no", "on", "true", "~", "0100", "1e3", "2:30", "0o17"]) | st.text(letters, min_size=1).filter(
    str.strip
)
texts_of_any_kind = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{"))


def test_whatever_names_and_texts_hold_a_written_configuration_reads_back_as_the_same(
    fill: Fill, inspect: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected, path = inspect(fill(as_is)), tmp_path / "config.yaml"
    monkeypatch.setattr(config_writer, "_training_sections", lambda _: ())  # They depend on no name, and take long.

    @given(st.lists(names, min_size=1, max_size=4, unique=True), texts_of_any_kind, texts_of_any_kind)
    def reads_back(classes: list[str], license_: str, name: str) -> None:
        label_map = LabelMap(classes=tuple(ClassLabel(name=name, values=(i,)) for i, name in enumerate(classes)))
        data = DataConfig(path=f"s3://bucket/{name}", layout=inspected.layout, license=license_)
        path.unlink(missing_ok=True)
        write_config(
            replace(inspected, config=data, labels=label_map, patterns=None, fractions=None, proposal=None), path
        )
        assert load_config([path]).data == data.model_copy(update={"label_map": label_map})

    reads_back()


# The terminal


def test_the_terminal_shows_classes_bad_files_and_advice_as_they_are_named(fill: Fill, inspect: Inspect) -> None:
    root = fill(halves(0, 1))
    (root / "images/train/[red]notes.svg").write_text("")
    names = ("[bold]ground[/]", "thing")
    classes = tuple(ClassLabel(name=name, values=(i,)) for i, name in enumerate(names))
    console = Console(record=True, width=200, file=StringIO())
    show_inspection(inspect(root, label_map=LabelMap(classes=classes)), console)
    shown = console.export_text()
    for text in ("8 images in the folder layout", *names, "[red]notes.svg: no image", "Bad files: 1"):
        assert text in shown


# The page


def test_the_page_stands_alone_and_is_well_formed(fill: Fill, inspect: Inspect, tmp_path: Path) -> None:
    found = inspect(fill(as_is))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    pictures = list(page.all("img"))
    assert len(pictures) == 2 * found.looked_at
    assert all((picture["src"] or "").startswith("data:image/") and picture["alt"] for picture in pictures)
    assert not list(page.all("script")) and not re.search(r"https?://|url\(|@import", text)
    assert {attributes.get("name") for attributes in page.all("meta")} >= {"viewport"}
    shown = " ".join(page.text)
    for name in (*found.labels.names, "images/train/0.jpg", "Label map to confirm"):
        assert name in shown


def test_names_are_escaped(tmp_path: Path, inspect: Inspect) -> None:
    evil = "<script>alert(1)</script>"
    root = tmp_path / "<img src=x onerror=alert(2)>"
    for index in range(2):
        image, mask = render(index)
        save(root / f"images/train/{index}<b>.png", image)
        save(root / f"masks/train/{index}<b>.png", halves(0, 1)(mask))
    (root / "images/train/<i>.svg").write_text("")
    found = inspect(
        root,
        label_map=LabelMap(
            classes=tuple(
                ClassLabel(name=name, values=(i,)) for i, name in enumerate((evil, "'\"><svg onload=alert(3)>"))
            )
        ),
    )
    assert found.num_bad == 1
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "svg", "i"})
    assert all((picture["src"] or "").startswith("data:") for picture in page.all("img"))
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert evil in " ".join(page.text)


# Real datasets


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "coco_panoptic", "coco_polygons", "labelme_json", "voc"])
def test_real_layouts_are_fully_readable(test_data: Path, inspect: Inspect, tmp_path: Path, name: str) -> None:
    found = inspect(test_data / "layouts" / name)
    assert found.num_bad == 0 and found.proposal is None
    assert found.looked_at == found.listed > 0
    assert sum(c.images > 0 for c in found.classes) >= 5
    Page((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_camvid_is_unequal_and_its_splits_are_official(test_data: Path, inspect: Inspect) -> None:
    found = inspect(test_data / "camvid", limit=40)
    assert [(split.listed, split.origin) for split in found.splits] == [
        (367, "the dataset's train"),
        (101, "the dataset's val"),
        (233, "the dataset's test"),
    ]
    assert (found.widths, found.heights) == ((480, 480, 480), (360, 360, 360))
    assert "Set training.class_balance: log." in texts(found)
