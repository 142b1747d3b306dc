"""Which split an image goes to."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.layouts.base import Sample
from data.splits import plan_splits


def sample(group: str, split: str | None = None, key: str = "a.png") -> Sample:
    return Sample(key=key, image=key, mask=None, split=split, group=group)


def counts(official: tuple[str, ...], split: str | None) -> Counter:
    plan = plan_splits(official)
    return Counter(plan.assign(sample(str(i), split), 0.1, 0.2) for i in range(5000))


def test_three_official_splits_are_used_as_they_are():
    plan = plan_splits(("train", "val", "test"))
    for split in ("train", "val", "test"):
        assert {plan.assign(sample(str(i), split), 0.5, 0.4) for i in range(100)} == {split}


def test_val_is_carved_from_train_where_there_is_none():
    assert set(counts(("train", "test"), "test")) == {"test"}
    carved = counts(("train", "test"), "train")
    assert set(carved) == {"train", "val"}
    assert carved["val"] == pytest.approx(500, abs=75)  # 3.5 standard deviations


def test_the_official_val_judges_where_there_is_no_test():
    assert set(counts(("train", "val"), "val")) == {"test"}
    assert set(counts(("train", "val"), "train")) == {"train", "val"}


@pytest.mark.parametrize("official", [(), ("train",), ("val",), ("test",)])
def test_one_split_or_none_is_divided_by_hash(official):
    divided = counts(official, official[0] if official else None)
    assert divided["val"] == pytest.approx(500, abs=75)
    assert divided["test"] == pytest.approx(1000, abs=100)


def test_splits_to_judge_with_but_none_to_train_on_are_refused():
    with pytest.raises(DataError, match="no training images: the dataset has the splits val, test"):
        plan_splits(("val", "test"))


def test_the_hash_is_the_same_on_every_machine():
    plan = plan_splits(())
    splits = [plan.assign(sample(f"image{i}"), 0.2, 0.3) for i in range(8)]
    assert splits == ["train", "test", "train", "train", "test", "train", "val", "val"]


@given(st.text(st.characters(codec="utf-8")), st.lists(st.text(), min_size=2), st.floats(0, 0.5), st.floats(0, 0.4))
def test_images_of_one_group_stay_together(group, keys, val, test):
    plan = plan_splits(())
    assert len({plan.assign(sample(group, key=key), val, test) for key in keys}) == 1


@given(st.text(st.characters(codec="utf-8")), st.floats(0, 0.5), st.floats(0, 0.4))
def test_more_val_takes_only_from_train(group, val, test):
    plan = plan_splits(())
    before, after = plan.assign(sample(group), val / 2, test), plan.assign(sample(group), val, test)
    assert before == after or (before, after) == ("train", "val")
