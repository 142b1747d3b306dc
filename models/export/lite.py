"""LiteRT (TensorFlow Lite): the network at one size of images, in several number formats, and its interpreter.

A model of this kind has one signature, the same in every format:

=========  ==========================================================================================
`pixels`     uint8 (1, height, width, 3) RGB; normalisation is inside
`class_ids`  uint8 (1, height, width)
=========  ==========================================================================================

It predicts an image whole and once: windows, scales and mirroring of `InferenceConfig` are left out, its output stride
is kept. What readers need beside the tensors are files in a ZIP archive behind the model, where the metadata format of
TensorFlow Lite has its associated files; runtimes read a model from its front and ZIP readers from its end, so
`unzip model.tflite` lists them:

==============  =====================================================================================
`labels.txt`      the class names, one a line, in the order of the ids
`input.json`      an `InputDescription`
==============  =====================================================================================

Tools of TensorFlow Lite read the metadata format's table, a FlatBuffer of its own in the buffer of the model that the
entry TFLITE_METADATA names. The classes that wrap the format are in tflite-support, which needs protobuf below 4; the
few tables that are written here go by the numbers of their fields in its `metadata_schema.fbs`.
"""

import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from data.section import Section
from models.config import LiteVariant
from models.export.saved_model import CLASS_IDS, PIXELS
from models.network.deeplab import DeepLabV3Plus

LABELS_FILE = "labels.txt"
INPUT_FILE = "input.json"

# The metadata format: the name of the model's entry, the table's identifier, the oldest parser that knows all of this,
# and values of the schema's enumerations and unions.
_ENTRY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER = "1.0.0"
_RGB = 1
_VALUE_LABELS = 3
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION = 1


class InputDescription(Section):
    """The input of a LiteRT model."""

    height: int
    width: int
    color_space: Literal["RGB"] = "RGB"
    value_range: tuple[int, int] = (0, 255)
    mean: tuple[float, ...] = ()
    """Mean by channel. The model itself computes `(pixels - mean) / sqrt(variance)`; callers must not. Empty where the
    network has the normalisation of its backbone."""
    variance: tuple[float, ...] = ()
    """Variance by channel."""


def describe_input(network: DeepLabV3Plus, size: tuple[int, int]) -> InputDescription:
    """The input of a model of the network for images of `size`, (height, width)."""
    height, width = size
    if network.normalization is None:
        return InputDescription(height=height, width=width)
    mean, variance = (tuple(w.numpy().tolist()) for w in (network.normalization.mean, network.normalization.variance))
    return InputDescription(height=height, width=width, mean=mean, variance=variance)


def convert(
    network: DeepLabV3Plus, size: tuple[int, int], variant: LiteVariant, calibration: Sequence[np.ndarray]
) -> bytes:
    """The network as a LiteRT model.

    Args:
        network: trained network.
        size: (height, width) of the images.
        variant: number format.
        calibration: (height, width, 3) uint8 images of training, from which "int8" takes the ranges of its numbers.

    Raises:
        ValueError: the variant is "int8" and there is no calibration image.
        tf.lite.python.convert_phase.ConverterError: the converter has no operation for a part of the network.
    """
    if variant == "int8" and not calibration:
        raise ValueError("int8 needs at least one image to calibrate with")
    with tempfile.TemporaryDirectory() as folder:
        _save_fixed(network, size, tf.float32 if variant == "int8" else tf.uint8, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [] if variant == "float32" else [tf.lite.Optimize.DEFAULT]
        if variant == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif variant == "int8":
            converter.representative_dataset = lambda: _representative(calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        return bytes(converter.convert())


def _save_fixed(network: DeepLabV3Plus, size: tuple[int, int], dtype: tf.DType, folder: str) -> None:
    """Writes a SavedModel with the one signature; quantisation needs float inputs, which it makes integers itself."""

    @tf.function(input_signature=[tf.TensorSpec((1, *size, 3), dtype, name=PIXELS)])
    def segment(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = network(tf.cast(pixels, tf.float32))
        return {CLASS_IDS: tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)}

    module = tf.Module()
    module.weights = [weight.value for weight in network.weights]
    tf.saved_model.save(module, folder, signatures=segment)


def _representative(images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The images as floats; two pixels of the first one span the whole range, so that one step of the input is 1."""
    for number, image in enumerate(images):
        pixels = image[None].astype(np.float32)
        if number == 0:
            pixels[0, 0, :2] = [[0.0], [255.0]]
        yield [pixels]


class _Builder(flatbuffers.Builder):
    def table(self, references: Mapping[int, int], numbers: Mapping[int, int] | None = None) -> int:
        """Writes a table of references (field -> offset) and small numbers (field -> number); returns its offset."""
        numbers = numbers or {}
        self.StartObject(1 + max([*references, *numbers], default=-1))
        for field, offset in references.items():
            self.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, number in numbers.items():
            self.PrependUint8Slot(field, number, 0)
        return int(self.EndObject())

    def tables(self, offsets: Sequence[int]) -> int:
        """Writes a list of tables and returns its offset."""
        self.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.PrependUOffsetTRelative(offset)
        return int(self.EndVector())


def metadata_table(names: tuple[str, str], labels_file: str) -> bytes:
    """The metadata table: it says that RGB pixels go in as they are and class ids come out, whose names are in a file.

    Args:
        names: names of input and output.
        labels_file: name of the file with the class names in the ZIP archive behind the model.
    """
    builder = _Builder(1024)
    text = builder.CreateString
    zero, one = (builder.CreateNumpyVector(np.array([value], np.float32)) for value in (0, 1))
    normalization = builder.table({0: zero, 1: one})  # NormalizationOptions
    unit = builder.table({1: normalization}, {0: _NORMALIZATION})  # ProcessUnit
    image = builder.table({}, {0: _RGB})  # ImageProperties
    content = builder.table({1: image}, {0: _IMAGE_PROPERTIES})  # Content
    description = text("RGB from 0 to 255. Normalisation is inside the model.")
    pixels = builder.table({0: text(names[0]), 1: description, 3: content, 4: builder.tables([unit])})  # TensorMetadata
    file = builder.table({0: text(labels_file)}, {2: _VALUE_LABELS})  # AssociatedFile
    content = builder.table({1: builder.table({})}, {0: _FEATURE_PROPERTIES})
    description = text("The class of each pixel.")
    ids = builder.table({0: text(names[1]), 1: description, 3: content, 6: builder.tables([file])})
    graph = builder.table({2: builder.tables([pixels]), 3: builder.tables([ids])})  # SubGraphMetadata
    root = builder.table({0: text("Semantic segmentation"), 3: builder.tables([graph]), 7: text(_PARSER)})
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def with_metadata(model: bytes, table: bytes) -> bytes:
    """A LiteRT model with a metadata table in it."""
    parts = flatbuffer_utils.read_model_from_bytearray(model)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(table, np.uint8)
    entry.name, entry.buffer = _ENTRY, len(parts.buffers)
    parts.buffers.append(buffer)
    parts.metadata = [*(parts.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parts))


def with_files(model: bytes, files: Mapping[str, str]) -> bytes:
    """A LiteRT model with text files in a ZIP archive behind it; the same bytes for the same contents."""
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


class LiteSegmenter:
    """A LiteRT model of this project, run by the interpreter of ai-edge-litert on the CPU.

    Args:
        model: a model that `convert` returned.
        threads: number of threads of the interpreter.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=model, num_threads=threads)
        # Only once: the interpreter's signature runners would lay out memory and weights again at each call.
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    @property
    def input_scale(self) -> tuple[float, int]:
        """Scale and zero point of the quantised input; (0.0, 0) where the input is not quantised."""
        scale, zero = self._input["quantization"]
        return float(scale), int(zero)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Segments an image of the model's size.

        Args:
            pixels: (height, width, 3) uint8 RGB.

        Returns:
            Class ids, (height, width) uint8.

        Raises:
            ValueError: the image has another size or dtype.
        """
        self._interpreter.set_tensor(self._input["index"], pixels[None])
        self._interpreter.invoke()
        class_ids: np.ndarray = self._interpreter.get_tensor(self._output["index"])[0]
        return class_ids
