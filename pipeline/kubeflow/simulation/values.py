"""Parameter values between text and `google.protobuf.Value`: v2/metadata/converter.go (`TextToPbValue`,
`PbValueToText`), v2/driver/resolve.go (`handleParamTypeValidationAndConversion`).
"""

import json
from decimal import Decimal
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from kfp.pipeline_spec import pipeline_spec_pb2

Type = pipeline_spec_pb2.ParameterType
_KINDS = {
    Type.STRING: "string_value",
    Type.NUMBER_INTEGER: "number_value",
    Type.NUMBER_DOUBLE: "number_value",
    Type.BOOLEAN: "bool_value",
    Type.LIST: "list_value",
    Type.STRUCT: "struct_value",
}


def from_text(text: str, declared: int) -> Value:
    """A string as it is, any other type from JSON; raises ValueError if the text is none of the declared type."""
    if declared == Type.STRING:
        return Value(string_value=text)
    try:
        value = json_format.Parse(text, Value())
    except json_format.ParseError:
        raise ValueError(f"{text!r} is no {Type.ParameterTypeEnum.Name(declared)}") from None
    require_type(value, declared)
    return value


def require_type(value: Value, declared: int) -> None:
    """Raises ValueError if a value is not of the declared type."""
    right = value.WhichOneof("kind") == _KINDS.get(declared)
    if not right or (declared == Type.NUMBER_INTEGER and not value.number_value.is_integer()):
        raise ValueError(f"{to_text(value)!r} is no {Type.ParameterTypeEnum.Name(declared)}")


def to_text(value: Value) -> str:
    """Numbers without exponent, lists and structs as JSON, null as nothing."""
    python = _whole(json_format.MessageToDict(value))
    if python is None or isinstance(python, str):
        return python or ""
    return f"{Decimal(repr(python)):f}" if isinstance(python, float) else json.dumps(python, separators=(",", ":"))


def to_json(message: Message) -> str:
    """Protobuf's JSON as Go writes it: whole numbers without a decimal point."""
    return json.dumps(_whole(json_format.MessageToDict(message)))


def _whole(python: Any) -> Any:
    if isinstance(python, dict):
        return {key: _whole(value) for key, value in python.items()}
    if isinstance(python, list):
        return [_whole(value) for value in python]
    return int(python) if isinstance(python, float) and python.is_integer() else python
