"""TensorFlow Serving's REST API: converts bodies to arrays, and arrays and states to bodies.

https://www.tensorflow.org/tfx/serving/api_rest; states and metadata are its own protos, in its JSON format.
"""

import base64
from typing import Any

import numpy as np
from google.protobuf import json_format, message
from pydantic_core import from_json, to_json
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from models.export.saved_model import SERVING_SIGNATURE
from pipeline.serving.model import LoadedModel, Signature
from pipeline.serving.tensors import RequestError, from_base64, require_shape, to_array
from pipeline.serving.versions import VersionStatus

_INSTANCES, _INPUTS, _B64 = "instances", "inputs", "b64"
#: Outputs whose names have this suffix are bytes, by TensorFlow Serving's convention.
_BYTES_SUFFIX = "_bytes"
_UNKNOWN_ERROR = 2


def predict(body: bytes, model: LoadedModel) -> bytes:
    """Answers `POST /v1/models/NAME:predict`.

    Args:
        body: JSON with `instances` (a list of rows) or `inputs` (columns), and optionally `signature_name`.
        model: The model that answers.

    Returns:
        JSON with `predictions` or `outputs`, in the form of the request.

    Raises:
        RequestError: The request is malformed, or its content is rejected.
    """
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise RequestError("JSON Parse error: the body is no object")
    name = document.get("signature_name") or SERVING_SIGNATURE
    if not isinstance(name, str):
        raise RequestError(f"signature_name: {name!r} is no string")
    signature = model.signature(name)
    in_rows = _INSTANCES in document
    if in_rows == (_INPUTS in document):
        raise RequestError(f"give one of '{_INSTANCES}' and '{_INPUTS}'")
    if in_rows:
        instances = document[_INSTANCES]
        if not isinstance(instances, list) or not instances:
            raise RequestError(f"'{_INSTANCES}': must be a list of at least one row")
        rows = [_named(row, signature) for row in instances]
        columns = {tensor.name: [row[tensor.name] for row in rows] for tensor in signature.inputs}
    else:
        columns = _named(document[_INPUTS], signature)
    arrays = {}
    for tensor in signature.inputs:
        arrays[tensor.name] = to_array(columns[tensor.name], tensor, _bytes)
        require_shape(arrays[tensor.name], tensor)
    outputs = {output: _json_values(output, array) for output, array in model.run(name, arrays).items()}
    answer: Any = outputs
    if len(outputs) == 1:  # A single output goes without its name.
        [answer] = outputs.values()
    elif in_rows:
        answer = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    return to_json({"predictions" if in_rows else "outputs": answer})


def _named(values: Any, signature: Signature) -> dict[str, Any]:
    """Input -> values of a row or of all columns, which may omit the name if there is only one input."""
    names = [tensor.name for tensor in signature.inputs]
    if not isinstance(values, dict) or values.keys() == {_B64}:
        if len(names) > 1:
            raise RequestError(f"the signature takes {', '.join(names)}: name the values")
        return {names[0]: values}
    if values.keys() != set(names):
        raise RequestError(f"has the inputs {', '.join(values) or 'none'}; the signature takes {', '.join(names)}")
    return values


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {_B64} and isinstance(value[_B64], str):
        return from_base64(value[_B64], name)
    raise RequestError(f'{name}: must be strings or {{"{_B64}": "base64"}}')


def _json_values(name: str, array: np.ndarray) -> list[Any]:
    if array.dtype != object:
        return array.tolist()
    if name.endswith(_BYTES_SUFFIX):
        return [{_B64: base64.b64encode(content).decode()} for content in array.tolist()]
    return [content.decode() for content in array.tolist()]


def status(statuses: list[VersionStatus]) -> bytes:
    """Answers `GET /v1/models/NAME`: a GetModelStatusResponse."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for found in statuses:
        entry = response.model_version_status.add(version=found.version, state=found.state)
        if found.error:
            entry.status.error_code, entry.status.error_message = _UNKNOWN_ERROR, found.error
        else:
            entry.status.SetInParent()
    return _printed(response)


def metadata(model: LoadedModel) -> bytes:
    """Answers `GET /v1/models/NAME/metadata`: the signatures as the SavedModel describes them."""
    spec = model_pb2.ModelSpec(name=model.name)
    spec.version.value = model.version
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signature_defs)
    return b'{"model_spec": %s, "metadata": {"signature_def": %s}}' % (_printed(spec), _printed(signatures))


def _printed(proto: message.Message) -> bytes:
    return json_format.MessageToJson(
        proto, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    ).encode()
