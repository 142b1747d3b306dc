"""The poly schedule, by hand."""

import pytest

from models.training.optimizers import PolySchedule


@pytest.mark.parametrize(("step", "rate"), [(0, 0.8), (50, 0.4), (75, 0.2), (100, 0.0), (120, 0.0)])
def test_a_power_of_one_falls_in_a_straight_line(step: int, rate: float) -> None:
    assert float(PolySchedule(0.8, steps=100, power=1.0)(step)) == pytest.approx(rate, abs=1e-7)


def test_the_power_bends_the_line() -> None:
    assert float(PolySchedule(0.007, steps=30_000)(15_000)) == pytest.approx(0.007 * 0.5**0.9)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0)])
def test_the_warm_up_grows_from_its_first_fraction_to_one(step: int, factor: float) -> None:
    constant = PolySchedule(2.0, steps=1000, power=0.0, warmup_steps=10)
    assert float(constant(step)) == pytest.approx(2.0 * factor)


def test_the_schedule_can_be_made_from_its_config() -> None:
    schedule = PolySchedule(0.1, steps=10, power=0.5, warmup_steps=3)
    assert float(PolySchedule.from_config(schedule.get_config())(1)) == float(schedule(1))
