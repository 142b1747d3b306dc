"""The browser page runs a pushed model on a real image, and sees what the server sees."""

import base64
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from tfx.types.artifact import Artifact

from components.config import LiteConfig
from components.targets.lite import METADATA, PAGE, empty_record
from components.targets.lite_record import LITE_RECORD_FILE, LiteModel
from data.labels import LabelMap
from data.masks import palette
from data.preprocess import decode_image, resize_image
from models.export.lite import convert, with_metadata
from models.export.segmenter import Segmenter
from models.weights.initial_weights import load_network
from tests.browser import chromium
from tests.components.conftest import saved_model

pytestmark = [
    pytest.mark.platform("npm brings LiteRT.js; not every machine has it"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    ),  # Keras' convert_to_numpy
]

ROOT = Path(__file__).resolve().parents[3]
HEIGHT, WIDTH = 166, 250
#: Variant -> its file; the second one is damaged, the third was left out.
VARIANTS = {"float32": "float32.tflite", "int8": "broken.tflite", "dynamic": None}

MASK = """
const canvas = document.getElementById("mask");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
return [canvas.height, canvas.width, btoa(Array.from(pixels, (value) => String.fromCharCode(value)).join(""))];
"""

RESIZED = """
const [module, height, width, done] = arguments;
const canvas = document.getElementById("image");
const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
import(module).then(({ resizeToRgb }) => {
  const pixels = resizeToRgb(image, height, width);
  done(btoa(Array.from(pixels, (value) => String.fromCharCode(value)).join("")));
});
"""


class Handler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # one test takes a file away
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def image(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, shrunk to the size of the model."""
    photo = test_data / "layouts/voc/VOCdevkit/VOC2011/JPEGImages/2011_000003.jpg"
    path = tmp_path_factory.mktemp("image") / "photo.png"
    with Image.open(photo) as image:
        image.resize((WIDTH, HEIGHT)).save(path)
    return path


@pytest.fixture(scope="module")
def site(model: Artifact, labels: LabelMap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a version holds in assets.extra/lite, with the runtime beside it."""
    if not shutil.which("npm"):
        pytest.skip("npm, which brings LiteRT.js, is not installed")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    converted = convert(load_network(saved_model(model)), (HEIGHT, WIDTH), "float32", [])
    (folder / "float32.tflite").write_bytes(with_metadata(converted, METADATA))
    (folder / "broken.tflite").write_bytes(b"no model")
    models = [LiteModel(variant=name, file=file, reason="") for name, file in VARIANTS.items()]
    record = empty_record(labels.names, LiteConfig(height=HEIGHT, width=WIDTH)).model_copy(update={"models": models})
    (folder / LITE_RECORD_FILE).write_text(record.model_dump_json())
    subprocess.run([ROOT / "scripts/fetch_litert.sh", folder / "litert"], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """With a camera that shows a test image."""
    camera = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    with chromium(tmp_path_factory.mktemp("browser"), *camera) as chrome:
        yield chrome


def wait_for(browser: Chrome, *states: str) -> str:
    """Waits until the page is in one of the states; its status line."""
    status = browser.find_element(By.ID, "status")
    WebDriverWait(browser, 60).until(lambda _: status.get_attribute("data-state") in states)
    return status.text


def shown_classes(browser: Chrome, labels: LabelMap) -> np.ndarray:
    """The class ids of the mask on the page, read from its colours."""
    height, width, encoded = browser.execute_script(MASK)
    pixels = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(height, width, 4)
    ids = {color: number for number, color in enumerate(palette(labels.num_classes))}
    return np.array([[ids[tuple(pixel[:3].tolist())] for pixel in row] for row in pixels], np.uint8)


def test_the_page_sees_what_the_server_sees(
    browser: Chrome, address: str, image: Path, model: Artifact, labels: LabelMap
):
    browser.get(address)
    assert "choose an image" in wait_for(browser, "ready", "failed")
    assert [option.text for option in Select(browser.find_element(By.ID, "model")).options] == ["float32", "int8"]

    browser.find_element(By.ID, "file").send_keys(str(image))
    WebDriverWait(browser, 60).until(lambda _: browser.find_element(By.ID, "classes").text)
    assert wait_for(browser, "ready", "failed").startswith("float32: ")

    found = shown_classes(browser, labels)
    [(expected, _)] = Segmenter(saved_model(model)).predict([image.read_bytes()])
    assert found.shape == expected.shape == (HEIGHT, WIDTH)
    assert len(np.unique(expected)) > 2
    assert np.mean(found == expected) >= 0.99
    # LiteRT.js itself tells everything it does as an error on the console.
    failures = {"javascript", "network", "security"}
    assert [entry["message"] for entry in browser.get_log("browser") if entry["source"] in failures] == []


def test_a_larger_image_is_resized_as_in_training(browser: Chrome, address: str, test_data: Path, tmp_path: Path):
    photo = tmp_path / "photo.png"  # no JPEG, for decoders of those differ by a few levels
    with Image.open(test_data / "layouts/voc/VOCdevkit/VOC2011/JPEGImages/2011_000006.jpg") as image:
        image.save(photo)
    browser.get(address)
    wait_for(browser, "ready", "failed")

    browser.find_element(By.ID, "file").send_keys(str(photo))
    WebDriverWait(browser, 60).until(lambda _: browser.find_element(By.ID, "classes").text)

    encoded = browser.execute_async_script(RESIZED, f"{address}/resize.js", HEIGHT, WIDTH)
    found = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(HEIGHT, WIDTH, 3).astype(int)
    expected = resize_image(decode_image(photo.read_bytes()), (HEIGHT, WIDTH)).numpy()
    difference = np.abs(found - expected)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01


def test_a_huge_image_is_shrunk_before_its_pixels_are_read(browser: Chrome, address: str, tmp_path: Path):
    Image.new("L", (5000, 4000), 128).save(tmp_path / "huge.png")
    browser.get(address)
    wait_for(browser, "ready", "failed")

    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "huge.png"))
    WebDriverWait(browser, 60).until(lambda _: browser.find_element(By.ID, "classes").text)

    shown = browser.find_element(By.ID, "image")
    width, height = (int(shown.get_attribute(side)) for side in ("width", "height"))
    assert 0.999 * 16_000_000 <= width * height <= 16_000_000
    assert width / height == pytest.approx(5000 / 4000, abs=0.001)


def test_a_file_that_is_not_an_image_takes_the_image_before_off_the_page(browser: Chrome, address: str, tmp_path: Path):
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / "image.png")
    (tmp_path / "no.png").write_text("no image")
    browser.get(address)
    wait_for(browser, "ready", "failed")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "image.png"))
    WebDriverWait(browser, 60).until(lambda _: " ms" in wait_for(browser, "ready", "failed"))
    shown = [browser.find_element(By.ID, name) for name in ("image", "mask", "classes")]
    assert all(element.size["height"] > 0 for element in shown)

    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "no.png"))

    assert wait_for(browser, "failed")
    assert [element.size["height"] for element in shown] == [0, 0, 0]
    browser.execute_script("document.getElementById('model').dispatchEvent(new Event('change'))")
    assert "choose an image" in wait_for(browser, "ready")


def test_the_camera_is_segmented_until_it_is_stopped(browser: Chrome, address: str):
    browser.get(address)
    wait_for(browser, "ready", "failed")
    camera = browser.find_element(By.ID, "camera")

    camera.click()

    WebDriverWait(browser, 60).until(lambda _: "camera: " in wait_for(browser, "ready", "failed"))
    assert browser.find_element(By.ID, "classes").text
    camera.click()
    WebDriverWait(browser, 60).until(lambda _: camera.text == "Start camera")


def test_a_model_that_does_not_load_is_told(browser: Chrome, address: str):
    browser.get(address)
    wait_for(browser, "ready", "failed")

    Select(browser.find_element(By.ID, "model")).select_by_visible_text("int8")

    assert wait_for(browser, "failed")


def test_the_page_says_how_to_get_a_missing_runtime(browser: Chrome, address: str, site: Path, tmp_path: Path):
    (site / "litert").rename(tmp_path / "litert")
    try:
        browser.get(address)
        assert "scripts/fetch_litert.sh" in wait_for(browser, "failed")
    finally:
        (tmp_path / "litert").rename(site / "litert")
