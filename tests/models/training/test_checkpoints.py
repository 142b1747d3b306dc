"""Checkpoints: what is saved comes back, what is damaged is passed over."""

import logging
from pathlib import Path

import pytest
import tensorflow as tf

from data.errors import TrainingError
from models.training.checkpoints import Checkpoints


def saved(folder: Path, steps: list[int]) -> tuple[Checkpoints, tf.Variable, tf.Variable]:
    """Checkpoints of a vector that holds the step and of a note."""
    vector, note = tf.Variable([0.0] * 100), tf.Variable("")
    checkpoints = Checkpoints(str(folder), [vector, note])
    for step in steps:
        vector.assign([float(step)] * 100)
        note.assign(f"note {step}")
        checkpoints.save(step)
    return checkpoints, vector, note


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_comes_back_with_numbers_and_text(tmp_path: Path) -> None:
    saved(tmp_path, [5, 10])
    checkpoints, vector, note = saved(tmp_path, [])
    assert checkpoints.restore_newest() == 10
    assert vector.numpy().tolist() == [10.0] * 100
    assert note.numpy() == b"note 10"


def test_an_empty_folder_is_a_beginning(tmp_path: Path) -> None:
    assert saved(tmp_path / "none", [])[0].restore_newest() == 0


def test_only_the_last_ones_are_kept_also_over_several_runs(tmp_path: Path) -> None:
    assert saved(tmp_path, [900, 1000, 1100])[0].steps == [1100, 1000]
    assert saved(tmp_path, [1200])[0].steps == [1200, 1100]


@pytest.mark.parametrize("damage", [flip_bit, cut_short, Path.unlink])
@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, damage: object, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, [5, 10])
    damage(tmp_path / f"step-10.{part}")
    checkpoints, vector, _ = saved(tmp_path, [])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore_newest() == 5
    assert vector.numpy().tolist() == [5.0] * 100
    # Without its index a checkpoint is no checkpoint: that is how a write that was killed looks.
    if not (part == "index" and damage is Path.unlink):
        assert "step-10 cannot be read" in caplog.text


def test_when_all_are_damaged_nothing_changes(tmp_path: Path) -> None:
    saved(tmp_path, [5])
    flip_bit(tmp_path / "step-5.data-00000-of-00001")
    checkpoints, vector, note = saved(tmp_path, [])
    assert checkpoints.restore_newest() == 0
    assert vector.numpy().tolist() == [0.0] * 100 and note.numpy() == b""


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [5])
    other = Checkpoints(str(tmp_path), [tf.Variable([0.0] * 3), tf.Variable("")])
    with pytest.raises(TrainingError, match=r"step-5 cannot be read: it holds \(100,\) for .* which has shape \(3,\)"):
        other.restore(5)


def test_an_absent_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step-7 cannot be read"):
        saved(tmp_path, [5])[0].restore(7)


def test_who_does_not_write_reads_what_another_wrote(tmp_path: Path) -> None:
    saved(tmp_path, [5])
    vector, note = tf.Variable([0.0] * 100), tf.Variable("")
    reader = Checkpoints(str(tmp_path), [vector, note], writes=False)
    reader.save(10)
    assert reader.steps == [5] and reader.restore_newest() == 5
    assert note.numpy() == b"note 5"
