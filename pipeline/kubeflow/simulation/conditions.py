"""`triggerPolicy.condition`: the part of the Common Expression Language (CEL) that compilers write.

The server evaluates all of CEL on the fields of ExecutorInput: v2/expression/expression.go. What is written: KFP's
sdk/python/kfp/compiler/pipeline_spec_builder.py (`_single_binary_operation_to_cel_condition`), and TFX 1.21's
tfx/orchestration/kubeflow/v2/compiler_utils.py (`placeholder_to_cel`). Any other expression is refused.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from data.errors import ProjectError

_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|&&|\|\||!(?=\s*\()|\b(?:true|false)\b""")
_PYTHON = {"&&": " and ", "||": " or ", "!": "_not", "true": "True", "false": "False"}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class DriverError(ProjectError):
    """The driver of a task fails, so its container never starts."""


def holds(condition: str, executor_input: pipeline_spec_pb2.ExecutorInput) -> bool:
    """Whether a task runs; raises DriverError if the expression cannot be evaluated."""
    python = _TOKEN.sub(lambda token: _PYTHON.get(token[0], token[0]), condition)
    given = json_format.MessageToDict(executor_input.inputs, preserving_proto_field_name=True)
    names = {"inputs": {"parameter_values": {}, "artifacts": {}, **given}}
    try:
        return _boolean(_evaluate(ast.parse(python.strip(), mode="eval").body, names))
    except (LookupError, SyntaxError, TypeError, ValueError) as error:
        raise DriverError(f"condition {condition!r}: {type(error).__name__}: {error}") from None


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is no boolean")
    return value


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "double": float,
    "_not": lambda value: not _boolean(value),
}


def _evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Attribute(value=inner, attr=key):
            return _evaluate(inner, names)[key]
        case ast.Subscript(value=inner, slice=key):
            return _evaluate(inner, names)[_evaluate(key, names)]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_boolean(_evaluate(part, names)) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=parts):
            return any(_boolean(_evaluate(part, names)) for part in parts)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            sides = _evaluate(left, names), _evaluate(right, names)
            if isinstance(sides[0], bool) != isinstance(sides[1], bool):
                raise TypeError(f"{sides[0]!r} and {sides[1]!r} cannot be compared")  # in Python, True == 1
            return _COMPARISONS[type(op)](*sides)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_evaluate(argument, names))
    raise ValueError(f"{ast.unparse(node)!r} is not simulated")
