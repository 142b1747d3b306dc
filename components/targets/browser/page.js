// Runs the pushed LiteRT models on images and on the camera. Reads lite.json and the models beside this page.

import { resizeToRgb } from "./resize.js";

const RUNTIME = "./litert/";

/** Larger images are shrunk to this before their pixels are read, which takes time and memory by the pixel. */
const MAX_PIXELS = 16_000_000;

const [modelSelect, fileInput, cameraButton, opacityInput, statusLine, imageCanvas, maskCanvas, classList] = [
  "model", "file", "camera", "opacity", "status", "image", "mask", "classes",
].map((id) => document.getElementById(id));

/** Shows the user, and any program that watches, what the page is doing: "loading", "ready", "busy" or "failed". */
function tell(state, text) {
  statusLine.dataset.state = state;
  statusLine.textContent = text;
}

async function fetchJson(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response.json();
}

async function loadRuntime() {
  try {
    const runtime = await import("@litertjs/core");
    await runtime.loadLiteRt(RUNTIME);
    return runtime;
  } catch (error) {
    throw new Error(`LiteRT.js does not load from ${RUNTIME} (${error.message}). scripts/fetch_litert.sh puts it there.`);
  }
}

/** One model, ready to run on images of any size. */
class Segmenter {
  constructor(runtime, model, record) {
    this.runtime = runtime;
    this.model = model;
    this.record = record;
  }

  static async load(runtime, record, file) {
    return new Segmenter(runtime, await runtime.loadAndCompile(file, { accelerator: "wasm" }), record);
  }

  /** Class ids, height * width of the record, of an ImageData. */
  async segment(image) {
    const { height, width } = this.record;
    const input = new this.runtime.Tensor(resizeToRgb(image, height, width), [1, height, width, 3]);
    const [output] = await this.model.run([input]);
    const classIds = (await output.data()).slice();
    input.delete();
    output.delete();
    return classIds;
  }
}

function drawMask(classIds, record) {
  maskCanvas.width = record.width;
  maskCanvas.height = record.height;
  const context = maskCanvas.getContext("2d");
  const pixels = context.createImageData(record.width, record.height);
  classIds.forEach((id, place) => pixels.data.set([...record.classes[id].color, 255], place * 4));
  context.putImageData(pixels, 0, 0);
}

function listClasses(classIds, record) {
  const counts = new Array(record.classes.length).fill(0);
  classIds.forEach((id) => { counts[id] += 1; });
  const found = counts.map((count, id) => ({ count, id })).filter(({ count }) => count);
  found.sort((one, other) => other.count - one.count);
  classList.replaceChildren(...found.map(({ count, id }) => {
    const item = document.createElement("li");
    const square = document.createElement("span");
    square.style.background = `rgb(${record.classes[id].color.join(" ")})`;
    const share = Math.round((100 * count) / classIds.length);
    item.append(square, `${record.classes[id].name} ${share} %`);
    return item;
  }));
}

/** Takes the image, its mask and its classes off the page. */
function clear() {
  [imageCanvas, maskCanvas].forEach((canvas) => { canvas.width = canvas.height = 0; });
  classList.replaceChildren();
}

/** Draws a bitmap or video frame, segments it and shows the classes over it. */
async function show(source, width, height, segmenter) {
  if (!segmenter) throw new Error("No model is loaded; choose another one.");
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  imageCanvas.width = Math.max(1, Math.floor(width * scale));
  imageCanvas.height = Math.max(1, Math.floor(height * scale));
  const context = imageCanvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, imageCanvas.width, imageCanvas.height);
  const started = performance.now();
  const classIds = await segmenter.segment(context.getImageData(0, 0, imageCanvas.width, imageCanvas.height));
  drawMask(classIds, segmenter.record);
  listClasses(classIds, segmenter.record);
  return Math.round(performance.now() - started);
}

/** The camera: frames are segmented one after the other until it is stopped. */
class Camera {
  running = false;
  finished = Promise.resolve();

  /** Settles when the camera has been stopped, or fails. */
  start(onFrame) {
    this.running = true;
    this.finished = this.#run(onFrame);
    return this.finished;
  }

  async #run(onFrame) {
    if (!navigator.mediaDevices) throw new Error("Browsers give the camera to pages from https: and localhost alone.");
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    try {
      const video = document.createElement("video");
      video.srcObject = stream;
      video.playsInline = true;
      await video.play();
      while (this.running) {
        await onFrame(video, video.videoWidth, video.videoHeight);
        await new Promise(requestAnimationFrame);
      }
    } finally {
      stream.getTracks().forEach((track) => track.stop());
    }
  }

  /** Returns when the last frame has been processed. */
  async stop() {
    this.running = false;
    await Promise.allSettled([this.finished]);
  }
}

async function main() {
  const [record, runtime] = await Promise.all([fetchJson("lite.json"), loadRuntime()]);
  const kept = record.models.filter((model) => model.file);
  modelSelect.replaceChildren(...kept.map(({ variant, file }) => new Option(variant, file)));
  let segmenter = null;
  let image = null;
  const camera = new Camera();

  const attempt = (task) => async (event) => {
    try {
      await task(event);
    } catch (error) {
      await camera.stop();
      tell("failed", error.message);
    }
  };
  const segmentImage = async () => {
    if (!image) {
      tell("ready", "Ready: choose an image, or start the camera.");
      return;
    }
    tell("busy", "Segmenting");
    const milliseconds = await show(image, image.width, image.height, segmenter);
    tell("ready", `${modelSelect.selectedOptions[0].text}: ${milliseconds} ms`);
  };
  const chooseModel = async () => {
    await camera.stop();
    clear(); // what it shows is of the model before
    tell("busy", "Loading the model");
    segmenter?.model.delete();
    segmenter = null;
    segmenter = await Segmenter.load(runtime, record, modelSelect.value);
    await segmentImage();
  };
  const chooseImage = async () => {
    await camera.stop();
    const [file] = fileInput.files;
    if (!file) return;
    image = null;
    clear();
    tell("busy", "Reading the image");
    image = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
    await segmentImage();
  };
  const switchCamera = async () => {
    if (camera.running) {
      await camera.stop();
      return;
    }
    cameraButton.textContent = "Stop camera";
    try {
      await camera.start(async (video, width, height) => {
        tell("ready", `camera: ${await show(video, width, height, segmenter)} ms an image`);
      });
    } finally {
      cameraButton.textContent = "Start camera";
    }
  };

  modelSelect.addEventListener("change", attempt(chooseModel));
  fileInput.addEventListener("change", attempt(chooseImage));
  cameraButton.addEventListener("click", attempt(switchCamera));
  await chooseModel();
  [modelSelect, fileInput, cameraButton].forEach((control) => { control.disabled = false; });
}

opacityInput.addEventListener("input", () => { maskCanvas.style.opacity = opacityInput.value; });
maskCanvas.style.opacity = opacityInput.value;
tell("loading", "Loading");
main().catch((error) => tell("failed", error.message));
