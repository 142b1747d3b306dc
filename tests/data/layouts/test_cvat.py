"""CVAT for images 1.1."""

import numpy as np
import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>1</id>
      <name>fruit</name>
      <size>1</size>
      <mode>annotation</mode>
      <labels>
        <label><name>red</name><color>#c81e3c</color><type>any</type><attributes></attributes></label>
        <label><name>green</name><color>#14a0dc</color><type>any</type><attributes></attributes></label>
      </labels>
      <dumped>2024-05-01 10:00:00.000000+00:00</dumped>
    </task>
  </meta>
"""
POLYGON = (
    '<polygon label="red" source="manual" occluded="0" points="1.00,1.00;5.00,1.00;5.00,4.00;1.00,4.00" z_order="0">'
    "</polygon>"
)
MASK = (
    '<mask label="green" source="manual" occluded="0" rle="1, 3, 1, 1" left="6" top="2" width="3" height="2" '
    'z_order="0"></mask>'
)


def image(*regions: str, number: int = 0, subset: str = "") -> str:
    subset = subset and f' subset="{subset}" task_id="1"'
    name = f'<image id="{number}" name="p{number:03}.jpg"{subset} width="10" height="5">'
    return f"{name}{''.join(regions)}</image>"


@pytest.fixture
def cvat(tmp_path, write_text, write_image, files):
    def make(*images: str, head: str = HEAD):
        write_text("annotations.xml", f"{head}{''.join(images)}</annotations>")
        return open_layout("cvat", str(tmp_path), files)

    for number in range(2):
        write_image(f"images/p{number:03}.jpg", np.zeros((5, 10), np.uint8))
    return make


def test_polygons_and_masks_are_drawn_over_the_background(cvat, drawn):
    (remark,) = cvat(image(POLYGON, MASK), image(number=1)).remarks()
    assert "1 of 2 images have no annotation" in remark
    expected = ["..........", ".rrrr.....", ".rrrr..gg.", ".rrrr.g.g.", ".........."]
    assert drawn("cvat") == {"images/p000.jpg": expected, "images/p001.jpg": ["." * 10] * 5}


def test_higher_regions_are_on_top(cvat, drawn):
    box = '<box label="green" xtl="0" ytl="0" xbr="3" ybr="5" z_order="{}" rotation="180.0"></box>'
    cvat(image(box.format(-1), POLYGON))
    assert drawn("cvat")["images/p000.jpg"][1] == "grrrr....."
    cvat(image(box.format(1), POLYGON))
    assert drawn("cvat")["images/p000.jpg"][1] == "gggrr....."


def test_an_ellipse_is_rotated_about_its_centre(cvat, drawn):
    cvat(image('<ellipse label="red" cx="5" cy="2.5" rx="2.4" ry="1.1" z_order="0" rotation="90"></ellipse>'))
    assert drawn("cvat")["images/p000.jpg"] == ["....rr....", "....rr....", "....rr....", "....rr....", "....rr...."]


def test_subsets_are_splits_if_every_image_is_in_one(cvat):
    layout = cvat(image(POLYGON, subset="Train"), image(number=1, subset="Validation"))
    assert layout.splits() == ("train", "val")
    assert [sample.key for sample in layout.samples("val")] == ["images/p001.jpg"]
    assert cvat(image(subset="Train"), image(number=1, subset="default")).splits() == ()


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ('<polygon points="1,1;5,1;5,4"></polygon>', "a polygon has no label"),
        ('<polygon label="red" points="1,1;5;5,4"></polygon>', "points of a polygon are '1,1;5;5,4'"),
        ('<box label="red" xtl="a" ytl="0" xbr="3" ybr="5"></box>', "'xtl' of a box must be a number, not 'a'"),
        ('<ellipse label="red" cx="1" cy="1" rx="1" ry="1" rotation="inf"></ellipse>', "must be a number, not 'inf'"),
        ('<mask label="red" rle="1" left="0" top="0" width="-1" height="1"></mask>', "'width' of a mask must be"),
        ('<polyline label="red" points="1,1;5,1"></polyline>', "unsupported shape: polyline; allowed: mask, polygon"),
    ],
)
def test_a_bad_region_quarantines_its_image(cvat, region, reason):
    bad, good = cvat(image(region, POLYGON), image(number=1)).samples(None)
    assert isinstance(bad, BadEntry) and reason in bad.reason and bad.annotations == 2
    assert good.key == "images/p001.jpg"


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + HEAD.partition("?>\n")[2], "invalid XML: annotations.xml: DTDForbidden"),
        (HEAD.replace("utf-8", "x"), "invalid XML: annotations.xml: unknown encoding"),
        (HEAD + "<image>", "invalid XML: annotations.xml: mismatched tag"),
        (HEAD + '<track id="0" label="red"></track>', "tracks of a video"),
    ],
)
def test_an_unreadable_file_stops(cvat, head, reason):
    layout = cvat(head=head)
    with pytest.raises(DataError, match=reason):
        list(layout.samples(None))
