"""CamVid."""

import numpy as np
import pytest

from data.layouts import open_layout
from data.layouts.base import BadEntry, Sample


@pytest.fixture
def camvid(tmp_path, write_image, files):
    for split in ("train", "test"):
        write_image(f"{split}/0001TP_1.png")
        write_image(f"{split}annot/0001TP_1.png")
    return open_layout("auto", str(tmp_path), files)


def test_folders_are_read_where_there_is_no_list(camvid, tmp_path):
    assert camvid.splits() == ("train", "test")
    (sample,) = camvid.samples("test")
    assert (sample.key, sample.source, sample.group) == ("test/0001TP_1.png", "0001TP", "0001TP")
    assert sample.mask.path == str(tmp_path / "testannot/0001TP_1.png")


def test_the_published_prefix_is_resolved_and_nothing_leaves_the_folder(camvid, tmp_path, write_text):
    lines = [
        "/SegNet/CamVid/train/0001TP_1.png /SegNet/CamVid/trainannot/0001TP_1.png",
        "train/0001TP_1.png trainannot/0001TP_1.png",
        "/SegNet/CamVid/../../etc/passwd /SegNet/CamVid/trainannot/0001TP_1.png",
        "train/0001TP_1.png /etc/passwd",
        "train/0001TP_1.png",
    ]
    write_text("train.txt", "\n".join(lines))
    first, second, *bad = camvid.samples("train")
    assert isinstance(first, Sample) and first == second
    assert first.image == str(tmp_path / "train/0001TP_1.png")
    assert all(isinstance(entry, BadEntry) for entry in bad)
    assert [entry.reason.partition(":")[0] for entry in bad] == ["path outside the dataset"] * 2 + ["malformed line"]
    assert bad[2].path == "train.txt:5"


def test_a_pattern_of_ones_own_goes_before_the_sequence(camvid, files):
    assert open_layout("camvid", camvid.root, files, r"_(\d+)").group_of("train/0001TP_1.png") == "1"


def test_cvats_folders_and_colours(drawn, write_image, write_text, files, tmp_path):
    mask = np.zeros((2, 3, 3), np.uint8)
    mask[0, 0], mask[1, 2] = (200, 30, 60), (20, 160, 220)
    write_text("label_colors.txt", "0 0 0 background\n200 30 60 red light\n20 160 220 green\n1 2 3 Void\n")
    write_image("default/p_1.jpg", np.zeros((2, 3), np.uint8))
    write_image("defaultannot/p_1.png", mask)
    write_text("default.txt", "/default/p_1.jpg /defaultannot/p_1.png\n")
    assert drawn("camvid") == {"default/p_1.jpg": ["r..", "..g"]}
    layout = open_layout("camvid", str(tmp_path), files)
    assert layout.label_map().names == ("background", "red light", "green")
    assert layout.group_of("default/p_1.jpg") == "default/p_1.jpg"
    for folder in ("Train", "Validation"):
        write_image(f"{folder}/a.jpg")
        write_image(f"{folder}annot/a.png")
    assert open_layout("camvid", str(tmp_path), files).splits() == ("train", "val")
