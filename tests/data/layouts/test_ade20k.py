"""ADE20K."""

import pytest

from data.errors import DataError
from data.layouts import open_layout


@pytest.fixture
def ade20k(tmp_path, write_image, files):
    for folder, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        write_image(f"ADEChallengeData2016/images/{folder}/{name}.jpg")
        write_image(f"ADEChallengeData2016/annotations/{folder}/{name}.png")
    return open_layout("auto", str(tmp_path), files)


def test_official_splits_are_found_in_the_unpacked_archive(ade20k):
    assert ade20k.name == "ade20k"
    assert ade20k.splits() == ("train", "val")
    (sample,) = ade20k.samples("val")
    assert sample.key == "ADEChallengeData2016/images/validation/ADE_val_1.jpg"
    assert sample.mask.path.endswith("ADEChallengeData2016/annotations/validation/ADE_val_1.png")


def test_classes_are_numbered_without_their_names(ade20k):
    label_map = ade20k.label_map()
    assert label_map.classes[0].name == "class 1" and label_map.classes[0].values == (1,)
    assert label_map.num_classes == 150 and label_map.ignore_values == (0,)


def test_synonyms_are_kept_where_the_first_is_not_enough(ade20k, write_text):
    head = "Idx\tRatio\tTrain\tVal\tName\n"
    write_text(
        "ADEChallengeData2016/objectInfo150.txt",
        head + "1\t.1\t1\t1\twall \n2 \t.1\t1\t1\tbar, pub\n3\t.1\t1\t1\tbar, rod\n",
    )
    assert ade20k.label_map().names == ("wall", "bar, pub", "bar, rod")


@pytest.mark.parametrize("line", ["1 0.1 1 1 wall", "x\t0.1\t1\t1\twall", "2\t0.1\t1\t1\twall"])
def test_a_malformed_list_of_classes_is_named(ade20k, write_text, line):
    write_text("ADEChallengeData2016/objectInfo150.txt", f"Idx\tRatio\tTrain\tVal\tName\n{line}\n")
    with pytest.raises(DataError, match=r"malformed class list: .*objectInfo150.txt"):
        ade20k.label_map()
