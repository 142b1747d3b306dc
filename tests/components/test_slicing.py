"""Which slices an image is in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.slicing import Buckets, bucket_names, check_value, slice_values, split_slice, wanted_values

IMAGE = {
    "key": "a.png",
    "source": "dusk: rain",
    "height": 100,
    "width": 400,
    "brightness": 0.25,
    "contrast": 0.05,
    "void_fraction": 0.75,
    "pixels/sky": 12,
    "pixels/car": 0,
    "pixels/a/b": 3,
}


def slices(*names: str) -> dict[str, list[str]]:
    return slice_values(IMAGE, wanted_values(names), Buckets())


def test_a_column_gives_its_value_as_text():
    assert slices("source", "height") == {"source": ["dusk: rain"], "height": ["100"]}


def test_numbers_fall_into_buckets_and_an_edge_belongs_to_the_upper_one():
    # 100 by 400 pixels are as many as in a square of side 200.
    assert slices("size", "brightness", "contrast", "void_fraction") == {
        "size": ["<256"],
        "brightness": ["0.25-0.5"],
        "contrast": ["<0.1"],
        "void_fraction": [">=0.5"],
    }


def test_has_gives_each_class_with_a_pixel():
    assert slices("has") == {"has": ["sky", "a/b"]}


def test_single_slices_leave_the_other_values_of_their_column_out():
    assert slices("has:car", "has:sky", "source:dawn") == {"has": ["sky"], "source": []}
    assert slices("has:car", "has") == slices("has", "has:car") == slices("has")


def test_a_value_may_hold_a_colon():
    assert split_slice("source:dusk: rain") == ("source", "dusk: rain")
    assert slices("source:dusk: rain") == {"source": ["dusk: rain"]}


def test_what_images_have_not_is_an_error_that_says_what_they_have():
    with pytest.raises(ValueError, match="'weather:rain': images cannot be sliced by 'weather'; allowed: source,"):
        split_slice("weather:rain")
    with pytest.raises(
        ValueError, match="'brightness:dark': no such bucket; allowed: brightness:<0.25, brightness:0.2"
    ):
        check_value("brightness:dark", Buckets())


@given(st.lists(st.integers(0, 5000), unique=True, max_size=5).map(sorted), st.integers(1, 3000))
def test_every_image_is_in_one_bucket_whose_name_the_configuration_takes(edges: list[int], side: int):
    buckets = Buckets(size=tuple(edges))
    image = {"height": side, "width": side}
    ((name,),) = slice_values(image, wanted_values(["size"]), buckets).values()
    assert name in bucket_names(buckets.size)
    check_value(f"size:{name}", buckets)
