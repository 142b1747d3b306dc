"""Which images of several spans the examples hold: by hand, then whatever the spans have in common."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.spans.ingest import Ingested, RunSpans
from components.spans.merge import Merge, Part, parts_of
from components.spans.records import Role, SpanState
from data.layouts.base import SPLITS, TEST, TRAIN
from data.manifest import ImageFile


@dataclass(frozen=True)
class Listed(Ingested):
    """A span whose manifest is a list."""

    listed: tuple[ImageFile, ...] = ()

    def images(self) -> Iterator[ImageFile]:
        return iter(sorted(self.listed, key=lambda image: image.sha256))


def span(number: int, role: Role = "window", **contents: str) -> Listed:
    """A span: split -> its images, a letter for what each shows."""
    images = tuple(
        ImageFile(sha256=letter, key=f"{number}/{split}/{place}{letter}", size=1, split=split)
        for split, letters in contents.items()
        for place, letter in enumerate(letters)
    )
    state = SpanState(number=number, version=0, name=str(number), folder="", fingerprint="")
    return Listed(state, role, folder=f"cache/{number}", cached=True, listed=images)


def merged(
    *window: Listed, evaluation: Listed | None = None, replay: tuple[Listed, ...] = (), share: float = 1.0
) -> tuple[Merge, list[ImageFile]]:
    """The merge, and the images that it kept."""
    spans = RunSpans(evaluation, list(replay), [], list(window), {})
    merge = Merge(spans, parts_of(spans, share))
    return merge, list(merge.images())


def kept(images: list[ImageFile]) -> set[str]:
    """Span, split and content of images."""
    return {f"{image.key.split('/')[0]} {image.split} {image.sha256}" for image in images}


def test_a_copy_stays_in_the_newest_span():
    merge, images = merged(span(1, train="ab"), span(2, train="b", val="c"))

    assert kept(images) == {"1 train a", "2 train b", "2 val c"}
    assert (merge.dropped_of("cache/1"), merge.dropped_of("cache/2")) == (1, 0)
    assert merge.repeated == 0.5


def test_a_test_image_of_any_span_is_not_trained_on():
    _, images = merged(span(1, train="x", test="a"), span(2, train="ay", test="b"))
    assert kept(images) == {"1 train x", "1 test a", "2 train y", "2 test b"}

    _, images = merged(span(2, train="aby"), span(3, train="z", test="b"), evaluation=span(1, "evaluation", test="a"))
    assert kept(images) == {"1 test a", "2 train y", "3 train z"}, "held out, and still not trained on"


def test_copies_within_a_span_stay_and_count_as_repeated():
    merge, images = merged(span(1, train="aab"))

    assert len(images) == 3
    assert merge.repeated == pytest.approx(1 / 3)


def test_the_test_set_may_be_in_the_window_too():
    merge, images = merged(span(1, train="a", test="bc"), evaluation=span(1, "evaluation", train="a", test="bc"))

    assert kept(images) == {"1 train a", "1 test b", "1 test c"}
    assert len(images) == 3
    assert merge.repeated == 0.0


def test_what_the_newest_span_was_before_it_was_corrected_is_no_other_span():
    newest, test_set = (
        span(1, train="ab", test="c"),
        replace(span(1, "evaluation", train="ab", test="c"), folder="cache/0"),
    )
    merge, _ = merged(newest, evaluation=test_set)
    assert merge.repeated == 0.0

    merge, _ = merged(span(2, train="a"), newest, evaluation=test_set)
    assert merge.repeated == pytest.approx(1 / 3)


def test_a_separate_test_set_is_not_another_span():
    merge, images = merged(span(1, train="ab"), evaluation=span(-1, "evaluation", test="b"))

    assert kept(images) == {"1 train a", "-1 test b"}
    assert (merge.repeated, merge.dropped_of("cache/1")) == (0.0, 1)


def test_older_spans_lend_what_nobody_else_has_and_only_from_train():
    older = (span(1, "replay", train="abt", val="c", test="d"), span(2, "replay", train="aned", test="t"))
    merge, images = merged(span(3, train="n", val="v", test="j"), replay=older)

    assert kept(images) == {"1 train b", "2 train a", "2 train e", "3 train n", "3 val v", "3 test j"}
    assert (merge.replayed_of("cache/1"), merge.replayed_of("cache/2"), merge.replayed_of("cache/3")) == (1, 2, 0)


def test_the_share_of_a_part_is_kept_on_average_and_chosen_differently_for_each_name():
    keys = [str(number) for number in range(4000)]
    chosen = [{key for key in keys if Part(span(1), (TRAIN,), share=0.25, chosen_for=name).takes(key)} for name in "xy"]

    # Standard deviations: 27 for a quarter of 4000, 15 for a sixteenth.
    assert all(abs(len(some) - 1000) < 5 * 27 for some in chosen)
    assert abs(len(chosen[0] & chosen[1]) - 250) < 5 * 15


CONTENTS = st.fixed_dictionaries(dict.fromkeys(SPLITS, st.text("abcdef0123", max_size=5)))


@given(st.lists(CONTENTS, min_size=1, max_size=3), st.lists(CONTENTS, max_size=2), st.none() | CONTENTS)
def test_an_image_stands_in_one_span_and_is_never_trained_on_if_another_span_tests_with_it(
    window: list[dict[str, str]], older: list[dict[str, str]], test_set: dict[str, str] | None
):
    window[-1]["train"] += "a"  # the newest span is never empty
    spans = [span(number, **contents) for number, contents in enumerate(window, start=10)]
    replay = tuple(span(number, "replay", **contents) for number, contents in enumerate(older))
    evaluation = None if test_set is None else span(99, "evaluation", **test_set)

    merge, images = merged(*spans, replay=replay, evaluation=evaluation)

    assert [image.sha256 for image in images] == sorted(image.sha256 for image in images)
    places: dict[str, set[str]] = {}
    for image in images:
        places.setdefault(image.sha256, set()).add(image.key.split("/")[0])
    assert all(len(found) == 1 for found in places.values())
    everything = [*spans, *replay, *([evaluation] if evaluation else [])]
    tests = {
        (source.span.name, image.sha256) for source in everything for image in source.images() if image.split == TEST
    }
    for image in images:
        # A copy among the test images of its own span is that span's affair.
        if (image.key.split("/")[0], image.sha256) not in tests:
            assert image.sha256 not in {digest for _, digest in tests}
    assert sum(merge.kept.values()) == len(images)
    assert 0.0 <= merge.repeated <= 1.0
