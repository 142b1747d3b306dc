"""Bodies to arrays and back: TensorFlow Serving's REST API and the Open Inference Protocol."""

import base64
import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.serving import open_inference, tf_serving
from pipeline.serving.model import Arrays, LoadedModel, Signature
from pipeline.serving.tensors import RequestError, Tensor

PIXELS = Tensor("pixels", tf.uint8, (-1, -1, -1, 3))
IMAGES = Tensor("image_bytes", tf.string, (-1,))
MASKS = Tensor("mask_bytes", tf.string, (-1,))
SCORES = Tensor("scores", tf.float32, (-1,))
CLASS_IDS = Tensor("class_ids", tf.uint8, (-1, -1, -1))

OUTPUTS = {
    "serving_default": {"mask_bytes": np.array([b"\x00a", b"\xff"], object), "scores": np.float32([0.5, 0.25])},
    "predict_pixels": {"class_ids": np.uint8([[[1, 2]]])},
}


class FakeModel(LoadedModel):
    """Remembers what it was asked, answers what is written down."""

    def __init__(self) -> None:
        self.name = "tiny"
        self.version = 7
        self.signatures = {
            "serving_default": Signature((IMAGES,), (MASKS, SCORES)),
            "predict_pixels": Signature((PIXELS,), (CLASS_IDS,)),
        }
        self.asked: tuple[str, Arrays] | None = None

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        self.asked = signature, inputs
        return OUTPUTS[signature]


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def predict(model: FakeModel, **document: Any) -> Any:
    return json.loads(tf_serving.predict(json.dumps(document).encode(), model))


def infer(model: FakeModel, data: list[Any], shape: list[int], datatype: str = "BYTES", **more: Any) -> Any:
    name = "pixels" if datatype == "UINT8" else "image_bytes"
    tensor = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    return json.loads(open_inference.infer(json.dumps({"inputs": [tensor], **more}).encode(), model))


ROWS = [
    {"instances": [{"b64": b64(b"\x89one")}, {"b64": b64(b"two")}]},
    {"instances": [{"image_bytes": {"b64": b64(b"\x89one")}}, {"image_bytes": {"b64": b64(b"two")}}]},
    {"inputs": [{"b64": b64(b"\x89one")}, "two"]},
    {"inputs": {"image_bytes": [{"b64": b64(b"\x89one")}, "two"]}},
]


@pytest.mark.parametrize("document", ROWS)
def test_images_come_in_rows_and_columns_with_and_without_their_name(model: FakeModel, document: dict[str, Any]):
    answer = predict(model, **document)

    assert model.asked is not None
    signature, inputs = model.asked
    assert signature == "serving_default"
    assert inputs["image_bytes"].tolist() == [b"\x89one", b"two"]
    masks = [{"b64": b64(b"\x00a")}, {"b64": b64(b"\xff")}]
    if "instances" in document:
        rows = [{"mask_bytes": mask, "scores": score} for mask, score in zip(masks, [0.5, 0.25], strict=True)]
        assert answer == {"predictions": rows}
    else:
        assert answer == {"outputs": {"mask_bytes": masks, "scores": [0.5, 0.25]}}


@pytest.mark.parametrize(("form", "key"), [("instances", "predictions"), ("inputs", "outputs")])
def test_a_single_output_goes_without_its_name(model: FakeModel, form: str, key: str):
    answer = predict(model, **{"signature_name": "predict_pixels", form: [[[[1, 2, 3], [4, 5, 6]]]]})
    assert answer == {key: [[[1, 2]]]}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "give one of 'instances' and 'inputs'"),
        ({"instances": [], "inputs": []}, "give one of 'instances' and 'inputs'"),
        ({"instances": []}, "'instances': must be a list of at least one row"),
        ({"inputs": []}, r"image_bytes: has shape \[0\]; the signature takes \[-1\], not empty"),
        ({"instances": {"b64": "aa"}}, "'instances': must be a list"),
        ({"instances": [{"b64": "a"}]}, "image_bytes: no base64"),
        ({"instances": [7]}, r'image_bytes: must be strings or {"b64": "base64"}'),
        ({"instances": [{"image": "x"}]}, "has the inputs image; the signature takes image_bytes"),
        ({"inputs": {"b64": b64(b"one")}}, "image_bytes: must be a list"),
        ({"signature_name": "evaluate", "instances": ["x"]}, 'signature name: "evaluate" not found .*; there is serv'),
        ({"signature_name": 3, "instances": ["x"]}, "signature_name: 3 is no string"),
    ],
)
def test_a_malformed_predict_request_is_refused_with_a_reason(model: FakeModel, document: dict[str, Any], reason: str):
    with pytest.raises(RequestError, match=reason) as caught:
        predict(model, **document)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        ([[[[1, 2, 300]]]], "pixels: holds 1 to 300; uint8 allows 0 to 255"),
        ([[[[1, 2, -1]]]], "pixels: holds -1 to 2; uint8 allows 0 to 255"),
        ([[[[1, 2, 0.5]]]], "pixels: holds other things than whole numbers"),
        ([[[[1, 2, True], [1, 2, 3]], "x"]], "pixels: "),
        ([[[[4, 5, 6], [True, 2, 3]]]], "pixels: holds other things than whole numbers"),
        ([[[[4, 5, 6], [7, 8, False]]]], "pixels: holds other things than whole numbers"),
        ([[[[1, 2, 3], [1, 2]]]], "pixels: lists of different lengths"),
        ([[[[1, 2]]]], r"pixels: has shape \[1, 1, 1, 2\]; the signature takes \[-1, -1, -1, 3\], not empty"),
        ([[[1, 2, 3]]], r"pixels: has shape \[1, 1, 3\]"),
        ([[[]]], r"pixels: has shape \[1, 1, 0\]"),
        ([[[[1, 2, 2**70]]]], "pixels: holds other things"),
    ],
)
def test_pixels_of_another_type_or_shape_are_refused(model: FakeModel, pixels: Any, reason: str):
    with pytest.raises(RequestError, match=reason):
        predict(model, signature_name="predict_pixels", inputs=pixels)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b'{"instances": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(model: FakeModel, body: bytes):
    with pytest.raises(RequestError, match="JSON Parse error"):
        tf_serving.predict(body, model)
    with pytest.raises(RequestError, match="the body|inputs"):
        open_inference.infer(body, model)


def test_bytes_are_base64_in_the_open_inference_protocol(model: FakeModel):
    answer = infer(model, [b64(b"\x89one"), b64(b"two")], [2], id="42")

    assert model.asked is not None
    assert model.asked[1]["image_bytes"].tolist() == [b"\x89one", b"two"]
    marked = {"content_type": "base64"}
    masks = {"name": "mask_bytes", "shape": [2], "datatype": "BYTES", "parameters": marked, "data": ["AGE=", "/w=="]}
    scores = {"name": "scores", "shape": [2], "datatype": "FP32", "data": [0.5, 0.25]}
    assert answer == {"model_name": "tiny", "model_version": "7", "id": "42", "outputs": [masks, scores]}


def test_only_the_outputs_asked_for_are_given(model: FakeModel):
    answer = infer(model, [b64(b"x")], [1], outputs=[{"name": "scores"}])
    assert [output["name"] for output in answer["outputs"]] == ["scores"] and "id" not in answer


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[[[1, 2, 3], [4, 5, 6]]]]])
def test_tensor_data_come_flat_or_nested(model: FakeModel, data: list[Any]):
    answer = infer(model, data, [1, 1, 2, 3], "UINT8", parameters={"signature_name": "predict_pixels"})

    assert model.asked is not None
    np.testing.assert_array_equal(model.asked[1]["pixels"], np.uint8([[[[1, 2, 3], [4, 5, 6]]]]))
    assert answer["outputs"] == [{"name": "class_ids", "shape": [1, 1, 2], "datatype": "UINT8", "data": [1, 2]}]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"data": [b64(b"x")], "shape": [2]}, r"image_bytes: data of shape \[1\] do not fill shape \[2\]"),
        ({"data": [b64(b"x")], "shape": [1, 1]}, r"image_bytes: has shape \[1, 1\]; the signature takes \[-1\]"),
        ({"data": ["?"], "shape": [1]}, "image_bytes: no base64"),
        ({"data": [1], "shape": [1]}, "image_bytes: BYTES must be base64 strings"),
        ({"data": [1], "shape": [1], "datatype": "FP32"}, "image_bytes: has datatype FP32; the signature takes BYTES"),
        ({"data": [], "shape": [0]}, r"image_bytes: has shape \[0\]"),
        ({"data": [1], "shape": [-1]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        ({"data": [1], "shape": [1], "datatype": "UINT8"}, "inputs: has pixels; the signature takes image_bytes"),
        ({"data": [b64(b"x")], "shape": [1], "outputs": [{"name": "logits"}]}, "outputs: 'logits' is not among mask"),
        ({"data": [b64(b"x")], "shape": [1], "inputs": []}, "inputs: List should have at least 1 item"),
        (
            {
                "data": [True, 2, 3],
                "shape": [1, 1, 1, 3],
                "datatype": "UINT8",
                "parameters": {"signature_name": "predict_pixels"},
            },
            "pixels: holds other things than whole numbers",
        ),
    ],
)
def test_a_malformed_inference_request_is_refused_with_a_reason(
    model: FakeModel, arguments: dict[str, Any], reason: str
):
    with pytest.raises(RequestError, match=reason):
        infer(model, **arguments)


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3, st.just(3))))
def test_any_pixels_reach_the_model_as_they_are(pixels: np.ndarray):
    model = FakeModel()
    requests = [
        lambda: predict(model, signature_name="predict_pixels", instances=pixels.tolist()),
        lambda: predict(model, signature_name="predict_pixels", inputs=pixels.tolist()),
        lambda: infer(
            model, pixels.ravel().tolist(), list(pixels.shape), "UINT8", parameters={"signature_name": "predict_pixels"}
        ),
    ]
    for request in requests:
        request()
        assert model.asked is not None
        np.testing.assert_array_equal(model.asked[1]["pixels"], pixels)


@given(st.lists(st.binary(), min_size=1, max_size=4))
def test_any_bytes_reach_the_model_as_they_are(contents: list[bytes]):
    model = FakeModel()
    for request in (
        lambda: predict(model, instances=[{"b64": b64(content)} for content in contents]),
        lambda: infer(model, [b64(content) for content in contents], [len(contents)]),
    ):
        request()
        assert model.asked is not None
        assert model.asked[1]["image_bytes"].tolist() == contents
