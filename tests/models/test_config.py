"""How many steps a training takes that starts from the served model, and which trainings cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.config import TrainingConfig


def steps(images: int, **settings: float) -> int:
    values = {"steps": 1000, "global_batch_size": 16, "warm_start": True, **settings}
    return TrainingConfig.model_validate(values).warm_start_steps(images)


@pytest.mark.parametrize(
    ("images", "epochs", "expected"),
    [(160, 2, 20), (161, 2, 21), (161, 0.5, 6), (16, 1, 1), (1, 1, 1), (10**6, 2, 1000), (160, 0, 1000)],
)
def test_steps_follow_from_the_passes_over_the_images(images: int, epochs: float, expected: int):
    assert steps(images, warm_start_epochs=epochs) == expected


def test_few_images_take_the_least_number_of_steps():
    assert steps(32, warm_start_epochs=1, warm_start_min_steps=50) == 50
    assert steps(1600, warm_start_epochs=1, warm_start_min_steps=50) == 100
    assert steps(32, warm_start_epochs=1, warm_start_min_steps=2000) == 1000, "steps are never more than training.steps"


@given(st.integers(1, 10**7), st.integers(1, 10**6), st.floats(0.01, 100))
def test_more_images_never_take_fewer_steps(images: int, more: int, epochs: float):
    fewer, many = steps(images, warm_start_epochs=epochs), steps(images + more, warm_start_epochs=epochs)

    assert 1 <= fewer <= many <= 1000


def test_passes_without_a_warm_start_are_refused():
    with pytest.raises(ValidationError, match="warm_start_epochs 2 needs warm_start to be true"):
        TrainingConfig(warm_start_epochs=2)


def test_a_batch_that_does_not_split_into_parts_is_refused():
    with pytest.raises(ValidationError, match="batch_size 16 does not split evenly over 3 parts .* multiples of 3"):
        TrainingConfig(global_batch_size=16, accumulation=3)
    assert TrainingConfig(global_batch_size=15, accumulation=3).accumulation == 3


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker"])
def test_a_step_in_which_replicas_talk_is_not_compiled(strategy: str):
    with pytest.raises(ValidationError, match=f"jit_compile does not go with strategy '{strategy}'"):
        TrainingConfig(strategy=strategy, jit_compile=True)
    assert TrainingConfig(strategy="tpu", jit_compile=True).jit_compile
