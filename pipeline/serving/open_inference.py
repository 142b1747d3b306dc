"""The Open Inference Protocol, version 2, over REST: converts between bodies and arrays.

https://github.com/kserve/open-inference-protocol. JSON cannot hold bytes, and the protocol does not specify how to
encode them; here, elements of BYTES tensors are base64, as with `content_type: base64` in other servers.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError
from pydantic_core import to_json

from models.export.saved_model import SERVING_SIGNATURE
from pipeline.serving.errors import RequestError
from pipeline.serving.model import Arrays, LoadedModel
from pipeline.serving.tensors import Tensor, from_base64, require_shape, to_array, to_base64

_DATATYPES = {tf.string: "BYTES", tf.uint8: "UINT8", tf.int64: "INT64", tf.float32: "FP32"}
_SIGNATURE = "signature_name"
#: A header that marks a body of JSON followed by raw tensors: the protocol's extension for binary data.
_BINARY = "Inference-Header-Content-Length"


class InferenceInput(BaseModel):
    """`$request_input`."""

    name: str
    shape: list[NonNegativeInt]
    datatype: str
    data: list[Any]


class InferenceOutput(BaseModel):
    """`$request_output`."""

    name: str


class InferenceRequest(BaseModel):
    """`$inference_request`."""

    id: str | None = None
    parameters: dict[str, str | float | bool] = {}
    inputs: list[InferenceInput] = Field(min_length=1)
    outputs: list[InferenceOutput] = []


def require_json(headers: Mapping[str, str]) -> None:
    """Rejects a request whose body contains more than JSON.

    Raises:
        RequestError: The headers, whose names are case-insensitive, announce binary data.
    """
    if _BINARY in headers:
        raise RequestError(
            f"{_BINARY}: binary tensor data are not supported; send all data in the JSON, BYTES as base64"
        )


def infer(body: bytes, model: LoadedModel) -> bytes:
    """Answers `POST /v2/models/NAME/infer`; the parameter `signature_name` chooses a signature.

    Raises:
        RequestError: The request is malformed, or its content is rejected.
    """
    try:
        request = InferenceRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RequestError(f"{place or 'the body'}: {first['msg']}") from None
    name = str(request.parameters.get(_SIGNATURE, SERVING_SIGNATURE))
    signature = model.signature(name)
    outputs = model.run(name, _arrays(request.inputs, signature.inputs))
    answer = {
        "model_name": model.name,
        "model_version": str(model.version),
        "outputs": [_output(tensor, outputs[tensor.name]) for tensor in _chosen(request.outputs, signature.outputs)],
    }
    return to_json(answer if request.id is None else {**answer, "id": request.id})


def _chosen(asked: list[InferenceOutput], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The requested outputs; all outputs if none is named."""
    known = {tensor.name: tensor for tensor in tensors}
    for output in asked:
        if output.name not in known:
            raise RequestError(f"outputs: {output.name!r} is not among {', '.join(known)}")
    return [known[output.name] for output in asked] or list(tensors)


def _arrays(given: list[InferenceInput], tensors: tuple[Tensor, ...]) -> Arrays:
    names = [entry.name for entry in given]
    if sorted(names) != sorted(tensor.name for tensor in tensors):
        raise RequestError(
            f"inputs: has {', '.join(names)}; the signature takes {', '.join(tensor.name for tensor in tensors)}"
        )
    by_name = {entry.name: entry for entry in given}
    return {tensor.name: _array(by_name[tensor.name], tensor) for tensor in tensors}


def _array(entry: InferenceInput, tensor: Tensor) -> np.ndarray:
    datatype = _DATATYPES[tensor.dtype]
    if entry.datatype != datatype:
        raise RequestError(f"{entry.name}: has datatype {entry.datatype}; the signature takes {datatype}")

    def read(value: Any) -> bytes:
        if not isinstance(value, str):
            raise RequestError(f"{entry.name}: BYTES must be base64 strings")
        return from_base64(value, entry.name)

    array = to_array(entry.data, tensor, read)
    shape = tuple(entry.shape)
    if array.size != math.prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise RequestError(f"{entry.name}: data of shape {list(array.shape)} do not fill shape {entry.shape}")
    array = array.reshape(shape)
    require_shape(array, tensor)
    return array


def _output(tensor: Tensor, array: np.ndarray) -> dict[str, Any]:
    described = {"name": tensor.name, "datatype": _DATATYPES[tensor.dtype], "shape": list(array.shape)}
    flat = array.ravel().tolist()
    if tensor.dtype != tf.string:
        return {**described, "data": flat}
    encoded = [to_base64(content) for content in flat]
    return {**described, "parameters": {"content_type": "base64"}, "data": encoded}


def model_metadata(model: LoadedModel) -> dict[str, Any]:
    """Answers `GET /v2/models/NAME`: the default signature."""
    signature = model.signature(SERVING_SIGNATURE)
    return {
        "name": model.name,
        "versions": [str(model.version)],
        "platform": "tensorflow_savedmodel",
        "inputs": [_description(tensor) for tensor in signature.inputs],
        "outputs": [_description(tensor) for tensor in signature.outputs],
    }


def _description(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": _DATATYPES[tensor.dtype], "shape": list(tensor.shape)}
