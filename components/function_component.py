"""Components that are written as a function, and take sections of the configuration as they are."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base.base_component import BaseComponent

from components.code_hash import code_hash


def function_component(files: Path | None = None) -> Callable[[Callable[..., None]], Callable[..., BaseComponent]]:
    """TFX's `@component`, for a function with a parameter `code_hash`.

    A node takes pydantic models, such as sections and label maps, for its string parameters and records their JSON.
    It fills `code_hash` in with the hash of the function's own module, so that its cache key covers the code that it
    runs. An optional input is left out where it is None.

    Args:
        files: A folder of files that are not Python code but part of what the function makes; the hash covers them.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., BaseComponent]:
        make = component(function)

        @functools.wraps(function)
        def node(**arguments: Any) -> BaseComponent:
            given = {
                name: value.model_dump_json() if isinstance(value, BaseModel) else value
                for name, value in arguments.items()
                if value is not None
            }
            return make(**given, code_hash=code_hash(function.__module__, files=files))

        return node

    return decorate
