"""The Open Inference Protocol, version 2, over REST: converts between bodies and arrays.

https://github.com/kserve/open-inference-protocol. JSON cannot hold bytes, and the protocol does not specify how to
encode them; here, elements of BYTES tensors are base64, as with `content_type: base64` in other servers.
"""

import base64
import math
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError
from pydantic_core import to_json

from models.export.saved_model import SERVING_SIGNATURE
from pipeline.serving.model import LoadedModel
from pipeline.serving.tensors import RequestError, Tensor, from_base64, require_shape, to_array

_DATATYPES = {tf.string: "BYTES", tf.uint8: "UINT8", tf.int64: "INT64", tf.float32: "FP32"}
_SIGNATURE = "signature_name"
#: A header that marks a body of JSON followed by raw tensors: the protocol's extension for binary data, which is not
#: supported.
BINARY_HEADER = "Inference-Header-Content-Length"


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
    given, taken = [entry.name for entry in request.inputs], [tensor.name for tensor in signature.inputs]
    if sorted(given) != sorted(taken):
        raise RequestError(f"inputs: has {', '.join(given)}; the signature takes {', '.join(taken)}")
    entries = {entry.name: entry for entry in request.inputs}
    computed = model.run(name, {tensor.name: _array(entries[tensor.name], tensor) for tensor in signature.inputs})
    known = {tensor.name: tensor for tensor in signature.outputs}
    for output in request.outputs:
        if output.name not in known:
            raise RequestError(f"outputs: {output.name!r} is not among {', '.join(known)}")
    outputs = []
    for output_name in [output.name for output in request.outputs] or known:  # All, if the request names none.
        described = _description(known[output_name]) | {"shape": list(computed[output_name].shape)}
        data = computed[output_name].ravel().tolist()
        if known[output_name].dtype == tf.string:
            described["parameters"] = {"content_type": "base64"}
            data = [base64.b64encode(content).decode() for content in data]
        outputs.append({**described, "data": data})
    answer = {"model_name": model.name, "model_version": str(model.version), "outputs": outputs}
    return to_json(answer if request.id is None else {**answer, "id": request.id})


def _array(entry: InferenceInput, tensor: Tensor) -> np.ndarray:
    datatype = _DATATYPES[tensor.dtype]
    if entry.datatype != datatype:
        raise RequestError(f"{entry.name}: has datatype {entry.datatype}; the signature takes {datatype}")
    array = to_array(entry.data, tensor, _bytes)
    shape = tuple(entry.shape)
    if array.size != math.prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise RequestError(f"{entry.name}: data of shape {list(array.shape)} do not fill shape {entry.shape}")
    array = array.reshape(shape)
    require_shape(array, tensor)
    return array


def _bytes(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise RequestError(f"{name}: BYTES must be base64 strings")
    return from_base64(value, name)


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
