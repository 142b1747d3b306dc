"""The server as a process of its own: answers, refusals, versions that come and go, the end."""

import base64
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.support.wait import WebDriverWait
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from components.publishing.directory import WARMUP_FILE, ModelVersion
from data.errors import ConfigError
from data.masks import palette
from pipeline.cli.serve import serve as serve_command
from pipeline.rollback import roll_back
from pipeline.serving.model import LoadedModel
from pipeline.serving.server import listen
from tests.browser import chromium
from tests.pipeline.conftest import ROOT, command_line
from tests.pipeline.serving.conftest import NAMES, Server, ServingDirectory, blocks, encode, running
from tests.pipeline.serving.test_tensors import bomb

PREDICT = "/v1/models/tiny:predict"
INFER = "/v2/models/tiny/infer"
PHONE = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
PICTURE = (150, 200)
IMAGES = [encode(blocks(40, 56, 1)), encode(blocks(33, 17, 2), "JPEG")]


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def rows(*images: bytes) -> dict[str, Any]:
    return {"instances": [{"b64": b64(image)} for image in images]}


def tensors(*images: bytes) -> dict[str, Any]:
    data = [b64(image) for image in images]
    return {"inputs": [{"name": "image_bytes", "shape": [len(data)], "datatype": "BYTES", "data": data}]}


def mask_of(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


# Answers


@pytest.fixture(scope="module")
def expected(saved_model: Path) -> list[tuple[np.ndarray, float]]:
    """What the model says of IMAGES when it is asked directly."""
    from models.export.segmenter import Segmenter

    return Segmenter(saved_model).predict(IMAGES)


def test_pictures_of_many_sizes_are_answered_as_the_model_answers_directly(
    protected: Server, expected: list[tuple[np.ndarray, float]]
):
    by_row = protected.client.post(PREDICT, json=rows(*IMAGES)).json()["predictions"]
    columns = protected.client.post(PREDICT, json={"inputs": rows(*IMAGES)["instances"]}).json()["outputs"]
    answer = protected.client.post("/v2/models/tiny/versions/1/infer", json=tensors(*IMAGES)).json()
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}

    assert answer["model_version"] == "1"
    for index, (mask, score) in enumerate(expected):
        assert len(np.unique(mask)) > 1
        for text in (
            by_row[index]["mask_bytes"]["b64"],
            columns["mask_bytes"][index]["b64"],
            outputs["mask_bytes"][index],
        ):
            np.testing.assert_array_equal(mask_of(text), mask)
        for found in (by_row[index]["scores"], columns["scores"][index], outputs["scores"][index]):
            assert found == pytest.approx(score)


def test_pixels_are_answered_by_their_own_signature(protected: Server, expected: list[tuple[np.ndarray, float]]):
    body = {"signature_name": "predict_pixels", "instances": [blocks(40, 56, 1).tolist()]}
    [answer] = protected.client.post("/v1/models/tiny/versions/1:predict", json=body).json()["predictions"]
    np.testing.assert_array_equal(answer["class_ids"], expected[0][0])


def test_metadata_are_the_signatures_as_tensorflow_serving_describes_them(protected: Server):
    answer = protected.client.get("/v1/models/tiny/metadata").json()

    assert answer["model_spec"] == {"name": "tiny", "version": "1", "signature_name": ""}
    found = json_format.ParseDict(answer["metadata"]["signature_def"], SignatureDefMap()).signature_def
    assert set(found) == {"serving_default", "predict_pixels", "confidence"}
    assert found["serving_default"].method_name == "tensorflow/serving/predict"
    assert [dim.size for dim in found["predict_pixels"].inputs["pixels"].tensor_shape.dim] == [-1, -1, -1, 3]


def test_the_open_inference_protocol_describes_server_and_model(protected: Server):
    get = protected.client.get
    assert get("/v2").json()["name"] == "deeplab-tfx"
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert get("/v2/models/tiny").json() == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "mask_bytes", "datatype": "BYTES", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1]},
        ],
    }


# Refusals


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        (PREDICT, rows(b"no image"), 400, "image_bytes: image 0 (8 bytes): unreadable image"),
        (PREDICT, rows(IMAGES[0], IMAGES[1][:-50]), 400, "image_bytes: image 1"),
        (PREDICT, rows(bomb(4000, 4000)), 400, "serving.max_pixels allows 40000"),
        (PREDICT, {"inputs": [[1, 2]]}, 400, "image_bytes: must be strings"),
        (PREDICT, {"instances": ["x"], "signature_name": "evaluate"}, 400, '"evaluate" not found in signature def'),
        ("/v1/models/other:predict", rows(IMAGES[0]), 404, "Latest(other)"),
        ("/v1/models/tiny/versions/9:predict", rows(IMAGES[0]), 404, "Specific(tiny, 9)"),
        (PREDICT, rows(bytes(1_000_000)), 413, "the body exceeds serving.max_body_bytes=1000000"),
        ("/v1/models/tiny:classify", {}, 405, "Malformed request: POST"),
        (INFER, tensors(b"no image"), 400, "image_bytes: image 0 (8 bytes): unreadable image"),
        (INFER, {"inputs": []}, 400, "inputs: List should have at least 1 item"),
        ("/v2/models/other/infer", tensors(IMAGES[0]), 404, "Latest(other)"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(
    protected: Server, path: str, body: dict[str, Any], status: int, reason: str
):
    response = protected.client.post(path, json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"] and reason in response.json()["error"]


def test_too_many_pixels_are_refused_without_an_encoded_image_too(protected: Server):
    body = {"signature_name": "predict_pixels", "inputs": np.zeros((1, 201, 200, 3), int).tolist()}
    response = protected.client.post(PREDICT, json=body)
    assert response.status_code == 400 and "too many pixels: 40200 in pixels" in response.json()["error"]


def test_a_body_that_does_not_say_its_size_is_limited_too(protected: Server):
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100_000)

    assert protected.client.post(PREDICT, content=chunks()).status_code == 413


def test_a_compressed_body_is_refused_as_such(protected: Server):
    body = gzip.compress(json.dumps(rows(IMAGES[0])).encode())
    response = protected.client.post(PREDICT, content=body, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415 and "Content-Encoding 'gzip' is not supported" in response.json()["error"]


def test_a_client_that_goes_away_is_no_failure_of_the_server(protected: Server):
    url = protected.client.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        protected.until(lambda: "requests_in_progress 1.0" in protected.client.get("/metrics").text)
    protected.until(lambda: "requests_in_progress 0.0" in protected.client.get("/metrics").text)
    assert "Traceback" not in protected.log.read_text()


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}])
def test_without_the_token_only_probes_and_the_page_answer(protected: Server, header: dict[str, str]):
    address = protected.client.base_url
    with httpx.Client(base_url=address, headers=header, trust_env=False) as stranger:
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready"):
            assert stranger.get(path).status_code == 200
        for path in ("/metrics", "/v2", "/v1/models/tiny", "/v2/models/tiny", "/v1/models/tiny/versions/1/classes"):
            assert stranger.get(path).status_code == 401
        refused = stranger.post(PREDICT, json=rows(IMAGES[0]))
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_the_token_is_written_in_any_case(protected: Server, scheme: str):
    assert protected.client.get("/v2", headers={"Authorization": f"{scheme} secret"}).status_code == 200


def test_binary_tensor_data_are_refused_by_name(protected: Server):
    body = json.dumps(tensors(IMAGES[0])).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    refused = protected.client.post(INFER, content=body + bytes(4), headers=headers)
    assert refused.status_code == 400
    assert "Inference-Header-Content-Length: binary tensor data are not supported" in refused.json()["error"]


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/v2/health/ready"])
def test_a_load_balancer_may_ask_for_the_head_alone(protected: Server, path: str):
    head = protected.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == protected.client.get(path).headers["content-type"]


def test_requests_are_counted_by_route_and_code(protected: Server):
    protected.client.post(PREDICT, json=rows(IMAGES[0]))
    protected.client.post("/v1/models/tiny%0Aforged:predict", json={})
    protected.client.get("/no/such/path")

    samples = {
        (
            sample.name,
            *(sample.labels[label] for label in ("route", "code", "result") if label in sample.labels),
        ): sample
        for family in text_string_to_metric_families(protected.client.get("/metrics").text)
        for sample in family.samples
    }

    route = "/v1/models/{name}:predict"
    assert samples["deeplab_server_requests_total", route, "200"].value >= 1
    assert samples["deeplab_server_requests_total", route, "404"].value >= 1
    assert samples["deeplab_server_requests_total", "unknown", "404"].value >= 1
    assert samples["deeplab_server_request_seconds_count", route].value >= 2
    assert samples["deeplab_server_loads_total", "loaded"].value == 1
    assert samples["deeplab_server_version",].value == 1
    assert samples["deeplab_server_requests_in_progress",].value == 0
    log = protected.log.read_text()
    assert f"POST {route} 200 " in log
    assert "forged" not in log and "secret" not in log and "Traceback" not in log


def test_what_cannot_be_served_ends_the_command_with_the_reason(directory: ServingDirectory, tmp_path: Path):
    for arguments, reason in (
        (["--serving", str(tmp_path / "nothing")], "no model is pushed yet"),
        (["--serving", str(directory.root), "--token-env", "NO_SUCH"], "--token-env NO_SUCH"),
    ):
        ended = command_line("serve", *arguments)
        assert ended.returncode == 1 and ended.stderr.startswith("error: ") and reason in ended.stderr


@pytest.mark.parametrize("token", ["geheim-ü", "geheim\n", " geheim", "ge heim"])
def test_a_token_that_no_client_can_send_is_refused_without_being_shown(token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKEN", token)
    with pytest.raises(
        ConfigError, match="--token-env TOKEN: contains no token; allowed: one line of visible"
    ) as raised:
        serve_command(serving="serving", port=0, token_env="TOKEN")
    assert token.strip() not in str(raised.value)


# The page

#: Segments two pictures; the first one's answer, or its decoding, is held back until the second is done.
OVERTAKE = """
const [name, first, second, done] = arguments;
const file = (text) => new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], "picture.png");
const original = window[name];
const [reached, released] = [Promise.withResolvers(), Promise.withResolvers()];
window[name] = async (...call) => {
  window[name] = original;
  const result = await original(...call);
  reached.resolve();
  await released.promise;
  return result;
};
(async () => {
  const earlier = segment(file(first));
  await reached.promise;
  await segment(file(second));
  released.resolve();
  await earlier;
  done();
})();
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(protected: Server, browser: Chrome) -> Chrome:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.get(str(protected.client.base_url))
    browser.find_element("id", "token").send_keys("secret")
    return browser


def choose(page: Chrome, path: Path) -> str:
    """Gives the page a file; what it says in the end."""
    status = page.find_element("id", "status")
    page.execute_script("arguments[0].textContent = ''", status)
    page.find_element("id", "file").send_keys(str(path))
    WebDriverWait(page, 30).until(lambda _: status.text not in ("Segmenting", ""))
    return status.text


def canvas(page: Chrome, name: str) -> np.ndarray:
    """What is drawn on a canvas, (height, width, 3) uint8."""
    script = (
        f"const pen = document.getElementById('{name}').getContext('2d'), {{width, height}} = pen.canvas;"
        "return [height, width, Array.from(pen.getImageData(0, 0, width, height).data)]"
    )
    height, width, values = page.execute_script(script)
    return np.uint8(values).reshape(height, width, 4)[:, :, :3]


def test_a_person_sees_the_prediction_over_the_picture(page: Chrome, tmp_path: Path):
    Image.fromarray(blocks(*PICTURE, seed=3)).save(tmp_path / "picture.png")

    assert choose(page, tmp_path / "picture.png").startswith("Done in ")

    overlay = canvas(page, "overlay")
    assert overlay.shape == (*PICTURE, 3)
    counts = {color: int(np.all(overlay == color, axis=-1).sum()) for color in palette(len(NAMES))}
    assert sum(counts.values()) == PICTURE[0] * PICTURE[1] and min(counts.values()) < max(counts.values())
    shares = {name: count / overlay[:, :, 0].size for name, count in zip(NAMES, counts.values(), strict=True)}
    items = page.find_elements("css selector", "#legend li")
    for item, (name, share) in zip(items, sorted(shares.items(), key=lambda entry: -entry[1]), strict=True):
        text = f"{100 * share:.1f} %" if share >= 0.001 or not share else "under 0.1 %"
        assert item.text.split("\n") == [name, text]
    swatches = [item.find_element("class name", "swatch").value_of_css_property("background-color") for item in items]
    assert {f"rgba({r}, {g}, {b}, 1)" for r, g, b in counts} == set(swatches)
    assert page.find_element("id", "version").text == "Version 1"
    assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
    page.save_screenshot(str(tmp_path / "page.png"))
    assert page.get_log("browser") == []


def test_the_opacity_follows_the_keyboard(page: Chrome, tmp_path: Path):
    Image.fromarray(blocks(*PICTURE)).save(tmp_path / "picture.png")
    choose(page, tmp_path / "picture.png")
    overlay, slider = (page.find_element("id", name) for name in ("overlay", "opacity"))
    assert overlay.value_of_css_property("opacity") == "0.5"
    slider.send_keys(Keys.END)
    assert overlay.value_of_css_property("opacity") == "1"
    slider.send_keys(Keys.HOME)
    assert overlay.value_of_css_property("opacity") == "0"
    assert overlay.get_attribute("aria-label").startswith("The prediction: ")


def test_a_photograph_is_turned_upright_and_shrunk_to_what_the_server_takes(page: Chrome, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(blocks(300, 500)).save(tmp_path / "photo.jpg", exif=exif)
    assert choose(page, tmp_path / "photo.jpg").startswith("Done in ")
    height, width, _ = canvas(page, "overlay").shape
    assert height > width and 0.97 * 40_000 <= height * width <= 40_000


def test_a_file_that_is_no_picture_is_refused_in_words(page: Chrome, tmp_path: Path):
    (tmp_path / "text.png").write_text("no picture")
    assert choose(page, tmp_path / "text.png") == "The browser cannot read this file as a picture."
    assert not page.find_element("id", "result").is_displayed()


def test_the_reason_of_the_server_is_shown(page: Chrome, tmp_path: Path):
    page.execute_script("encoded = () => btoa('no picture')")
    Image.fromarray(blocks(*PICTURE)).save(tmp_path / "picture.png")
    assert "image_bytes: image 0 (10 bytes): unreadable image" in choose(page, tmp_path / "picture.png")


def test_a_picture_that_was_given_before_the_token_is_sent_again_with_it(page: Chrome, tmp_path: Path):
    token, status = (page.find_element("id", name) for name in ("token", "status"))
    token.clear()
    Image.fromarray(blocks(*PICTURE)).save(tmp_path / "picture.png")
    assert choose(page, tmp_path / "picture.png") == "Enter the access token."
    token.send_keys("wrong", Keys.ENTER)
    WebDriverWait(page, 30).until(lambda _: status.text == "The server refuses this access token.")
    token.clear()
    token.send_keys("secret", Keys.ENTER)
    WebDriverWait(page, 30).until(lambda _: status.text.startswith("Done in "))
    assert canvas(page, "overlay").shape == (*PICTURE, 3)


def test_the_same_file_can_be_chosen_again(page: Chrome, tmp_path: Path):
    Image.fromarray(blocks(*PICTURE)).save(tmp_path / "picture.png")
    choose(page, tmp_path / "picture.png")
    page.execute_script("document.getElementById('file').dispatchEvent(new Event('click'))")  # that opens the dialog
    assert choose(page, tmp_path / "picture.png").startswith("Done in ")


@pytest.mark.parametrize("held", ["fetch", "createImageBitmap"])
@pytest.mark.parametrize(("first", "second"), [((120, 160), (30, 40)), ((30, 40), (120, 160))])
def test_a_picture_is_not_touched_by_what_comes_late_of_an_earlier_one(
    page: Chrome, held: str, first: tuple[int, int], second: tuple[int, int], tmp_path: Path
):
    earlier, later = (encode(blocks(*size, seed)) for seed, size in enumerate((first, second)))
    (tmp_path / "later.png").write_bytes(later)

    page.execute_async_script(OVERTAKE, held, b64(earlier), b64(later))

    status, legend = (page.find_element("id", name) for name in ("status", "legend"))
    found, text = [canvas(page, name) for name in ("picture", "overlay")], legend.text
    assert status.text.startswith("Done in ") and found[0].shape == (*second, 3)
    assert choose(page, tmp_path / "later.png").startswith("Done in ")
    np.testing.assert_array_equal(found, [canvas(page, name) for name in ("picture", "overlay")])
    assert text == legend.text


def test_the_classes_have_the_colours_of_every_picture(protected: Server):
    listed = protected.client.get("/v1/models/tiny/versions/1/classes").json()
    assert [entry["name"] for entry in listed] == list(NAMES)
    assert [tuple(entry["color"]) for entry in listed] == palette(3)


# A version, loaded


def warm_up_file(image: bytes) -> bytes:
    """A TFRecord file of one request, as ModelPusher publishes it."""
    request = predict_pb2.PredictRequest(inputs={"image_bytes": tf.make_tensor_proto([image])})
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            writer.write(log.SerializeToString())
        return file.read()


def with_warm_up(version: ModelVersion, image: bytes) -> ModelVersion:
    file = Path(version.path, WARMUP_FILE)
    file.parent.mkdir()
    file.write_bytes(warm_up_file(image))
    return version


def test_a_version_that_does_not_answer_its_warm_up_requests_is_not_loaded(directory: ServingDirectory):
    version = with_warm_up(directory.push(), b"no image")
    with pytest.raises(tf.errors.InvalidArgumentError):
        LoadedModel("tiny", version, max_pixels=10_000)


def test_a_version_that_lies_elsewhere_is_copied_and_not_needed_once_it_is_loaded(
    directory: ServingDirectory, monkeypatch: pytest.MonkeyPatch, expected: list[tuple[np.ndarray, float]]
):
    version = with_warm_up(directory.push(), IMAGES[0])
    monkeypatch.setattr("components.storage.trees.is_local", lambda path: False)
    loaded = LoadedModel("tiny", version, max_pixels=10_000)
    shutil.rmtree(version.path)
    outputs = loaded.run("serving_default", {"image_bytes": np.array(IMAGES, object)})
    assert outputs["scores"].tolist() == pytest.approx([score for _, score in expected])


def test_a_connection_sends_what_it_has_at_once():
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Versions


class Load:
    """Requests from two threads without a pause; every answer is kept."""

    def __init__(self, client: httpx.Client) -> None:
        self.versions: list[str] = []
        self.failures: list[str] = []
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            response = self._client.post(INFER, json=tensors(IMAGES[0]))
            if response.status_code == 200:
                self.versions.append(response.json()["model_version"])
            else:
                self.failures.append(response.text)

    def answered_by(self, version: str) -> bool:
        return version in self.versions[-2:]


@pytest.fixture(scope="module")
def following(saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ServingDirectory]]:
    """A server that is quickly busy and looks often at a directory of its own. The last test here ends it."""
    folder = tmp_path_factory.mktemp("following")
    directory = ServingDirectory(folder / "serving", saved_model)
    directory.push()
    damaged = folder / "serving/tiny/0"
    damaged.mkdir()
    (damaged / "PUBLISHED").write_text("{")
    with running(directory.root, folder / "log", poll_seconds=0.1, drain_seconds=1, workers=1, queue=2) as server:
        yield server, directory


def test_pushes_a_broken_version_and_a_rollback_cost_no_request(
    following: tuple[Server, ServingDirectory], tmp_path: Path
):
    server, directory = following
    other, broken = (Path(shutil.copytree(directory.saved_model, tmp_path / name)) for name in ("other", "broken"))
    (other / "assets" / "note.txt").write_text("another model")
    (broken / "variables" / "variables.index").write_bytes(b"damaged")
    with Load(server.client) as load:
        server.until(lambda: load.answered_by("1"))
        assert server.states() == {"1": "AVAILABLE", "0": "END"}
        directory.push(other)
        server.until(lambda: load.answered_by("2"))
        directory.push(broken)
        server.until(lambda: server.states().get("3") == "END")
        assert server.states()["2"] == "AVAILABLE"
        assert server.client.get("/v1/models/tiny").json()["model_version_status"][0]["status"]["error_message"]
        roll_back(str(directory.root / "tiny"), to=1)
        server.until(lambda: load.answered_by("4"))
    assert load.failures == []
    assert sorted(set(load.versions)) == ["1", "2", "4"]


def test_a_busy_server_refuses_and_ends_what_is_under_way_when_it_is_stopped(
    following: tuple[Server, ServingDirectory],
):
    server, _ = following
    large = encode(blocks(1500, 2000))
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(server.client.post, PREDICT, json=rows(large)) for _ in range(3)]
        server.until(lambda: "requests_in_progress 3.0" in server.client.get("/metrics").text)
        refused = server.client.post(PREDICT, json=rows(IMAGES[0]))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "serving.queue=2 wait" in refused.json()["error"]
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.client.get("/v2/health/ready").json() == {"ready": False}, seconds=1)
        assert server.client.get("/v2/health/live").status_code == 200
        assert [request.result().status_code for request in asked] == [200, 200, 200]
        assert server.process.wait(30) == 0
    log = server.log.read_text()
    assert "SIGTERM: stopping" in log and log.rstrip().endswith("stopped")


@pytest.mark.long
def test_no_request_fails_in_a_minute_of_load_with_a_new_version_every_ten_seconds():
    command = [sys.executable, "benchmarks/serving.py", "--seconds", "60", "--swap-every", "10"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the same, versions swapped" in ended.stdout
