"""Which mask belongs to which image, found from names as people give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.dataset import DataConfig
from data.errors import DataError
from data.layouts.pairing import find_rules, images_pattern, masks_pattern, only_rule

SPLIT_WORDS = ("train", "valid", "test")

#: Names as in the patterns that are to be found, of 12 images: `#` is the number, `%` a split's name, `$` a site.
KEPT = [
    ("images/p#.jpg", "labels/p#.png", "images/{stem}.jpg", "labels/{stem}.png"),
    ("Images/P#.JPG", "Masks/P#.PNG", "Images/{stem}.jpg", "Masks/{stem}.png"),
    ("imgs/p#.jpg", "imgs/masks/p#.png", "imgs/{stem}.jpg", "imgs/masks/{stem}.png"),
    ("p#.jpg", "masks/p#.png", "{stem}.jpg", "masks/{stem}.png"),
    ("p#.jpg", "p#.png", "{stem}.jpg", "{stem}.png"),
    ("p#.jpg", "p#_mask.png", "{stem}.jpg", "{stem}_mask.png"),
    ("p#.png", "p#_L.png", "{stem}.png", "{stem}_L.png"),
    ("p#.png", "p#.mask.png", "{stem}.png", "{stem}.mask.png"),
    ("img/p#.jpg", "ann/p#.jpg.png", "img/{stem}.jpg", "ann/{stem}.jpg.png"),
    ("images/image_#.png", "masks/mask_#.png", "images/image_{stem}.png", "masks/mask_{stem}.png"),
    ("image_#.png", "mask_#.png", "image_{stem}.png", "mask_{stem}.png"),
    ("a/img#.png", "a/mask#.png", "a/img{stem}.png", "a/mask{stem}.png"),
    (
        "images/#_image.png",
        "annotations/#_annotation.png",
        "images/{stem}_image.png",
        "annotations/{stem}_annotation.png",
    ),
    ("photos/p#.jpg", "unusual/p#.png", "photos/{stem}.jpg", "unusual/{stem}.png"),
    ("one/p#.jpg", "two/p#.png", "one/{stem}.jpg", "two/{stem}.png"),
    ("one/p#.jpg", "two/p#_x.png", "one/{stem}.jpg", "two/{stem}_x.png"),
    ("%/images/p#.jpg", "%/masks/p#.png", "{split}/images/{stem}.jpg", "{split}/masks/{stem}.png"),
    ("images/%/p#.jpg", "masks/%/p#.png", "images/{split}/{stem}.jpg", "masks/{split}/{stem}.png"),
    ("%/p#.jpg", "%annot/p#.png", "{split}/{stem}.jpg", "{split}annot/{stem}.png"),
    ("%_img/p#.jpg", "%_mask/p#.png", "{split}_img/{stem}.jpg", "{split}_mask/{stem}.png"),
    ("%/p#.jpg", "%/p#_mask.png", "{split}/{stem}.jpg", "{split}/{stem}_mask.png"),
    ("imagesTr/p#.png", "labelsTr/p#.png", "images{split}/{stem}.png", "labels{split}/{stem}.png"),
    (
        "data/v1/original/p#.png",
        "data/v1/groundTruth/p#.png",
        "data/v1/original/{stem}.png",
        "data/v1/groundTruth/{stem}.png",
    ),
    ("$/images/p#.jpg", "$/masks/p#.png", "{dir}/images/{stem}.jpg", "{dir}/masks/{stem}.png"),
    ("images/$/p#.jpg", "masks/$/p#.png", "images/{subdir}/{stem}.jpg", "masks/{subdir}/{stem}.png"),
    ("%/img/$/p#.jpg", "%/gt/$/p#.png", "{split}/img/{subdir}/{stem}.jpg", "{split}/gt/{subdir}/{stem}.png"),
    ("x/%/img/p#.tif", "x/%/gt/p#.tif", "x/{split}/img/{stem}.tif", "x/{split}/gt/{stem}.tif"),
    ("photos/%/p#.jpg", "gt/p#.png", "photos/{split}/{stem}.jpg", "gt/{stem}.png"),
    ("JPEGImages/p#.jpg", "SegmentationClass/p#.png", "JPEGImages/{stem}.jpg", "SegmentationClass/{stem}.png"),
]


def names(pattern: str) -> list[str]:
    return [
        pattern.replace("#", f"{i:03}").replace("%", SPLIT_WORDS[i % 3]).replace("$", f"site{i % 4}") for i in range(12)
    ]


@pytest.mark.parametrize(("image", "mask", "images", "masks"), KEPT, ids=[f"{kept[0]} {kept[1]}" for kept in KEPT])
def test_the_rule_is_found_from_the_names(image, mask, images, masks):
    paths = [*names(image), *names(mask)]
    rule = only_rule(find_rules(paths), "set", paths)
    assert (rule.images.text, rule.masks.text, rule.pairs) == (images, masks, 12)
    for one, other in zip(names(image), names(mask), strict=True):
        values = rule.images.match(one)
        assert values is not None
        assert other.lower() in [path.lower() for path in rule.masks.paths(values)]


def test_several_endings_become_a_placeholder():
    paths = ["images/a.jpg", "images/b.PNG", "images/c.bmp", *(f"masks/{name}.png" for name in "abc")]
    (rule,) = find_rules(paths)
    assert (rule.images.text, rule.masks.text) == ("images/{stem}.{ext}", "masks/{stem}.png")


def test_two_readings_are_both_shown_and_none_is_chosen():
    paths = [*names("images/#_image.png"), *names("annotations/#_annotation.png"), *names("masks/#_mask.png")]
    rules = find_rules(paths)
    with pytest.raises(DataError, match="can be read in 2 ways; choose one by data.masks") as error:
        only_rule(rules, "set", paths)
    for text in ("masks/{stem}_mask.png (12 pairs)", "images/001_image.png  +  annotations/001_annotation.png"):
        assert text in str(error.value)
    chosen = masks_pattern("annotations/{stem}_annotation.png")
    (rule,) = find_rules(paths, None, chosen)
    assert (rule.images.text, rule.masks) == ("images/{stem}_image.png", chosen)


def test_two_folders_that_say_nothing_are_two_readings():
    paths = [*names("left/p#.png"), *names("right/p#.png")]
    assert {rule.masks.text for rule in find_rules(paths)} == {"left/{stem}.png", "right/{stem}.png"}


def test_what_programs_made_of_the_data_is_no_reading():
    paths = [*names("images/p#.png"), *names("masks/p#.png"), *names("overlays/p#.png"), *names("aug/images/p#.png")]
    (rule,) = find_rules([*paths, *names("aug/masks/p#.png"), *names("images/p#_prediction.png")])
    assert rule.masks.text == "masks/{stem}.png"


def test_objects_named_alike_are_no_pairs():
    paths = [f"images/{kind}_{i}.jpg" for kind in ("cat", "dog") for i in range(9)]
    paths += [f"masks/{kind}_{i}.png" for kind in ("cat", "dog") for i in range(9)]
    (rule,) = find_rules(paths)
    assert (rule.images.text, rule.pairs) == ("images/{stem}.jpg", 18)


def test_masks_of_another_folder_with_the_same_names_are_no_reading():
    paths = [f"{part}/{kind}/{i}.png" for part in ("v1", "v2") for kind in ("rgb", "labels") for i in range(9)]
    (rule,) = find_rules(paths)
    assert (rule.images.text, rule.masks.text, rule.pairs) == ("{dir}/rgb/{stem}.png", "{dir}/labels/{stem}.png", 18)
    (same,) = find_rules(paths, None, masks_pattern("{dir}/labels/{stem}.png"))
    assert same == rule


def test_where_nothing_corresponds_the_folders_are_named():
    paths = [*names("x/a#.jpg"), *names("y/b-#-z.png")]
    assert find_rules(paths) == []
    with pytest.raises(DataError, match=r"x has 12, such as a000.jpg; y has 12, such as b-000-z.png"):
        only_rule([], "set", paths)


def test_a_large_dataset_is_judged_by_a_sample_of_its_names():
    paths = [f"images/p{i}.jpg" for i in range(40_000)] + [f"labels/p{i}_gt.png" for i in range(40_000)]
    (rule,) = find_rules(paths)
    assert (rule.images.text, rule.masks.text) == ("images/{stem}.jpg", "labels/{stem}_gt.png")
    assert rule.pairs < 20_000


FOLDER = st.from_regex(r"[a-z]{1,6}[0-9]{1,3}", fullmatch=True)


@given(st.lists(FOLDER, max_size=3), st.lists(FOLDER, max_size=2), st.sets(st.integers(0, 999), min_size=3, max_size=9))
def test_any_common_folders_above_and_below_are_kept(above, below, numbers):
    def path(kind: str, number: int, ending: str) -> str:
        return "/".join([*above, kind, *below, f"{number:03}{ending}"])

    paths = [path("images", n, ".jpg") for n in numbers] + [path("masks", n, ".png") for n in numbers]
    (rule,) = find_rules(paths)
    assert rule.images.text == "/".join([*above, "images", *below, "{stem}.jpg"])
    assert rule.pairs == len(numbers)


@pytest.mark.parametrize(
    "text",
    [
        "images/*.jpg",
        "images/{name}.jpg",
        "/abs/{stem}.jpg",
        "../{stem}.jpg",
        "{stem}/{stem}.jpg",
        "x{dir}/{stem}.jpg",
        "",
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="is no pattern of paths"):
        images_pattern(text)


def test_a_mask_must_follow_from_its_image():
    with pytest.raises(ValueError, match=r"has \{split\}, which images .* has not"):
        DataConfig(path="d", images="images/{stem}.jpg", masks="{split}/{stem}.png")
    with pytest.raises(ValueError, match="patterns of the layout folder, but layout is 'voc'"):
        DataConfig(path="d", layout="voc", images="images/{stem}.jpg")
