"""The configuration section of the hyperparameter search.

It is separate from the search, so that a command line can check a configuration without importing TFX, and from the
sections of the other components, so that their cache keys do not depend on which fields a search may vary.
"""

import difflib
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, ValidationError, model_validator

from components.training.search_space import FIELDS, SECTIONS, Value, is_integer, is_number, with_values
from data.section import MOST, MOST_STEPS, Section, current_path

#: Hyperband with one halving needs three trials at a third of the steps and one with all of them.
LEAST_HYPERBAND_TRIALS = 4


#: Fields that are the same for all trials, and why.
FIXED = {
    "training.steps": "tuning.steps says how long a trial trains",
    "training.strategy": "it says where a training runs, not how well it learns",
    **dict.fromkeys(
        ("training.warm_start", "training.warm_start_epochs", "training.warm_start_min_steps"),
        "all trials start from the same weights, and tuning.steps says how long they train",
    ),
}


def _tunable(field: str) -> str:
    """The field as it is named now."""
    name, *path = field.split(".")
    if name in SECTIONS:
        field = ".".join((name, *current_path(SECTIONS[name], path)))
    if field in FIXED:
        raise ValueError(FIXED[field])
    if field not in FIELDS:
        near = difflib.get_close_matches(field, FIELDS, n=1)
        raise ValueError("no such field" + (f"; did you mean {near[0]}?" if near else "; see model, training, augment"))
    return field


class Dimension(Section):
    """The values of one field that a search tries: a range or a list."""

    min: float | None = None
    """Lowest value of a range."""
    max: float | None = None
    """Highest value of a range."""
    step: float | None = Field(default=None, gt=0)
    """Difference between neighbouring values, or their ratio with sampling "log"; null allows all values between."""
    sampling: Literal["linear", "log"] = "linear"
    """With "log", values between 0.001 and 0.01 are as likely as values between 0.01 and 0.1."""
    choices: tuple[Annotated[StrictBool | StrictInt | float | str, Field(union_mode="left_to_right")], ...] = ()
    """The values of a list."""

    @model_validator(mode="after")
    def _is_range_or_list(self) -> Self:
        is_range = (self.min, self.max, self.step, self.sampling) != (None, None, None, "linear")
        if bool(self.choices) == is_range:
            raise ValueError("give either choices, or min and max")
        if self.choices:
            self._check_choices()
        else:
            self._check_range()
        return self

    def _check_choices(self) -> None:
        if len(set(self.choices)) < max(2, len(self.choices)):
            raise ValueError(f"choices {list(self.choices)} must be at least two, and all different")
        if len({float if type(choice) is int else type(choice) for choice in self.choices}) > 1:
            raise ValueError(f"choices {list(self.choices)} are of different kinds")

    def _check_range(self) -> None:
        if self.min is None or self.max is None or self.min >= self.max:
            raise ValueError(f"min {self.min} must be less than max {self.max}")
        if self.sampling == "log" and self.min <= 0:
            raise ValueError(f"min {self.min:g} must be greater than 0 with sampling log")
        if self.sampling == "log" and self.step is not None and self.step <= 1:
            raise ValueError(f"step {self.step:g} must be greater than 1 with sampling log")

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The ends of the range, or all choices."""
        return self.choices or tuple(end for end in (self.min, self.max) if end is not None)


class TuningConfig(Section):
    """The search for better hyperparameters before the model is trained; each trial is evaluated on the val split."""

    trials: int = Field(default=0, ge=0, le=MOST)
    """Number of trainings with other values, one after the other; 0: there is no search."""
    algorithm: Literal["random", "hyperband", "bayesian"] = "random"
    """"random" draws values at random; "bayesian" draws half of the trials and then tries what a Gaussian process finds
    promising; "hyperband" gives most trials a third, a ninth, ... of the steps, and only the best third of these three
    times as many."""
    steps: int = Field(default=400, ge=1, le=MOST_STEPS)
    """Steps of training in a trial. Warm-up and ramps of the training are shortened in proportion."""
    space: dict[Annotated[str, AfterValidator(_tunable)], Dimension] = {}
    """Field of `model`, `training` or `augment` -> the values that are tried."""

    @model_validator(mode="after")
    def _can_search(self) -> Self:
        if self.trials and not self.space:
            raise ValueError("tuning.space names no field to search over")
        if self.algorithm == "hyperband" and 0 < self.trials < LEAST_HYPERBAND_TRIALS:
            raise ValueError(f"trials {self.trials} are too few for hyperband, at least {LEAST_HYPERBAND_TRIALS}")
        return self

    @model_validator(mode="after")
    def _ranges_are_of_numbers(self) -> Self:
        for field, dimension in self.space.items():
            if dimension.choices:
                continue
            if not is_number(field):
                raise ValueError(f"{field} takes no range, only choices")
            if is_integer(field) and dimension.step is not None and not dimension.step.is_integer():
                raise ValueError(f"{field} is a whole number, and so must be its step, {dimension.step:g}")
        return self


def check_space(space: Mapping[str, Dimension], sections: Mapping[str, Section]) -> None:
    """Validates the sections with the extreme values of all fields, each pair of fields in every combination.

    Args:
        space: Field -> the values that a search tries.
        sections: `model`, `training` and `augment`, whose other fields stay as they are.

    Raises:
        ValueError: A section refuses some of the values, alone or together.
    """
    tree = {name: sections[name].model_dump(mode="json") for name in SECTIONS}
    for values in _corners(space):
        changed = with_values(tree, values)
        for name, section in SECTIONS.items():
            try:
                section.model_validate(changed[name])
            except ValidationError as error:
                tried = ", ".join(f"{field}={value}" for field, value in values.items() if field.startswith(f"{name}."))
                reasons = "; ".join(_reason(name, item) for item in error.errors())
                raise ValueError(f"tuning.space allows {tried}: {reasons}") from None


def _corners(space: Mapping[str, Dimension]) -> Iterator[dict[str, Value]]:
    first = {field: dimension.extremes[0] for field, dimension in space.items()}
    for fields in combinations(space, min(2, len(space))):
        for values in product(*(space[field].extremes for field in fields)):
            yield {**first, **dict(zip(fields, values, strict=True))}


def _reason(section: str, item: Any) -> str:
    place = ".".join([section, *(str(part) for part in item["loc"])])
    return f"{place}: {item['msg'].removeprefix('Value error, ')}"
