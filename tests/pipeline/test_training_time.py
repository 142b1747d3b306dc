"""How long a training is expected to take, and the settings that a first one gets."""

import pytest

from components.training.trainer import TrainerConfig
from data.config import AugmentConfig
from models.config import ModelConfig, TrainingConfig
from pipeline import training_time
from pipeline.config import Config
from pipeline.dry_run import training_seconds
from pipeline.pipeline import trainer_config
from pipeline.records.executions import StageRecord
from pipeline.training_time import BUDGET, expected_seconds, first_settings, work

RESIZING = {"after": 0.75, "crop": [200, 300], "scale_min": 1.0, "scale_max": 1.0}


def config(**sections: object) -> Config:
    """A configuration whose label map is stated, with some settings."""
    data = {"path": "none", "label_map": {"classes": [{"name": "sky"}, {"name": "road"}]}}
    return Config.model_validate({"data": data, **sections})


def test_work_is_pixels_over_both_phases():
    training = TrainingConfig(steps=100, global_batch_size=4)
    assert work(training, AugmentConfig(crop=(10, 20))) == 100 * 4 * 200
    resized = AugmentConfig.model_validate({"crop": (10, 20), "progressive_resizing": RESIZING})
    assert work(training, resized) == 4 * (75 * 200 + 25 * 60_000)


def test_a_longer_training_is_expected_to_take_as_much_longer():
    before = config(training={"steps": 100, "global_batch_size": 8}, augment={"crop": 128})
    recorded: TrainerConfig = trainer_config(before, "checkpoints")
    last = StageRecord("Trainer", "ran", 50.0, {"custom_config": recorded.model_dump_json()}, {})
    now = config(training={"steps": 3000, "global_batch_size": 16}, augment={"crop": 256})
    assert training_seconds(now, last) == pytest.approx(50 * 30 * 2 * 4)
    assert training_seconds(before, last) == 50.0
    assert training_seconds(now, StageRecord("Trainer", "ran", 50.0, {"custom_config": "{}"}, {})) == 50.0


def test_what_was_never_measured_is_not_told(monkeypatch: pytest.MonkeyPatch):
    training, augment = TrainingConfig(steps=10), AugmentConfig(crop=64)
    assert expected_seconds(ModelConfig(), training, augment)
    assert expected_seconds(ModelConfig(backbone="xception65"), training, augment) is None
    monkeypatch.setattr(training_time, "has_gpu", lambda: True)
    assert expected_seconds(ModelConfig(), training, augment) is None


def test_without_a_record_the_measured_rate_tells(monkeypatch: pytest.MonkeyPatch):
    """9.5 or 11.8 images/s at 256x256 on the machine of the measurement; a product there took 2 x 1536^3 / 290e9 s."""
    ticks = iter([0.0, 3 * 2 * 1536**3 / 290e9])
    monkeypatch.setattr("pipeline.hardware.time.perf_counter", lambda: next(ticks))
    monkeypatch.setattr(
        training_time, "matrix_speed", training_time.matrix_speed.__wrapped__
    )  # not what was timed before
    seconds = training_seconds(config(training={"steps": 190, "global_batch_size": 1}, augment={"crop": 256}), None)
    assert seconds == pytest.approx(190 / 9.5)


@pytest.mark.parametrize(
    ("images", "size"), [(3, (40, 60)), (100, (480, 640)), (367, (360, 480)), (50_000, (1000, 1300))]
)
def test_a_first_training_suits_the_dataset_and_ends_in_reasonable_time(images: int, size: tuple[int, int]):
    training, augment, model = first_settings(images, *size)
    assert training.global_batch_size <= max(2, images) and all(32 <= side <= 256 for side in augment.crop_size)
    assert all(crop <= max(32, side) for crop, side in zip(augment.crop_size, size, strict=True))
    assert model.batch_norm_momentum**training.steps < 1e-6
    seconds = expected_seconds(model, training, augment)
    assert training.steps == 200 or (seconds is not None and seconds < 3 * BUDGET)
