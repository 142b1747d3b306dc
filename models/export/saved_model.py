"""The SavedModel: the one definition of its signatures and of the files that go with it.

==================  ==========================================  =======================================================
signature           input                                       outputs
==================  ==========================================  =======================================================
serving_default     image_bytes: string (batch,), encoded       mask_bytes: string (batch,), 8-bit gray PNG of class ids
                    images of any sizes                         at each image's own size; scores: float32 (batch,)
predict_pixels      pixels: uint8 (batch, height, width, 3)     class_ids: uint8 (batch, height, width);
                    RGB                                         scores: float32 (batch,)
confidence          image_bytes, as above                       as serving_default; confidence_bytes: string (batch,),
                                                                8-bit gray PNG of 255 times the probability that each
                                                                pixel has its class
evaluate            examples: string (batch,), tf.Examples      the counts of `models.metrics.counts` for each image at
                    with the features `image` and `mask`        its mask's own size: int64 (batch, counts), row by row
==================  ==========================================  =======================================================

A score is the mean over an image's pixels of the top class's softmax probability. Decoding and shrinking are those of
`data.preprocess`, and all signatures predict through `models.export.inference`, so that what is evaluated is what is
predicted.

What readers need beside the signatures:

=======================  ==============================================================================================
in the SavedModel        what it holds
=======================  ==============================================================================================
assets/label_map.json    the classes, a `data.labels.LabelMap`
assets/model.json        an `ExportedModel`: the sections `model`, `preprocess` and `inference`, and `weights`, paths
`weights` of the loaded  the network's float32 variables, in the order of those paths, which is that of
object                   `DeepLabV3Plus.weights`; the paths are Keras' own, such as "aspp/fusion/conv/kernel"
=======================  ==============================================================================================
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import keras
import tensorflow as tf
from pydantic import ValidationError

from data.config import PreprocessConfig
from data.errors import WorkspaceError
from data.features import IMAGE, MASK
from data.labels import LabelMap
from data.preprocess import decode_image, decode_mask, shrink_image
from data.section import Section
from models.config import InferenceConfig, ModelConfig
from models.export.inference import InferenceProtocol
from models.metrics.counts import Counts, count_pixels
from models.network.deeplab import DeepLabV3Plus

SERVING_SIGNATURE = "serving_default"
PIXELS_SIGNATURE = "predict_pixels"
CONFIDENCE_SIGNATURE = "confidence"
EVALUATE_SIGNATURE = "evaluate"

IMAGE_BYTES = "image_bytes"
PIXELS = "pixels"
EXAMPLES = "examples"
MASK_BYTES = "mask_bytes"
CONFIDENCE_BYTES = "confidence_bytes"
CLASS_IDS = "class_ids"
SCORES = "scores"

#: Name of each signature -> names of its outputs.
SIGNATURES = {
    SERVING_SIGNATURE: (MASK_BYTES, SCORES),
    PIXELS_SIGNATURE: (CLASS_IDS, SCORES),
    CONFIDENCE_SIGNATURE: (MASK_BYTES, CONFIDENCE_BYTES, SCORES),
    EVALUATE_SIGNATURE: tuple(field.name for field in fields(Counts)),
}

LABEL_MAP_FILE = "label_map.json"
MODEL_FILE = "model.json"

Outputs = dict[str, tf.Tensor]
Asset = TypeVar("Asset", bound=Section)

#: Number of images that an evaluation works on at once: while one core counts the pixels of one image, the others
#: predict the next.
_COMPARED_AT_ONCE = 3

_PIXELS_SPEC = tf.TensorSpec((None, None, None, 3), tf.uint8)


class ExportedModel(Section):
    """The description of a SavedModel, for readers that work with its weights."""

    model: ModelConfig
    """The network as it was trained; it predicts at its output stride unless `inference` has another one."""
    preprocess: PreprocessConfig
    inference: InferenceConfig
    weights: tuple[str, ...]
    """Paths of the weights, in the order in which the SavedModel lists them."""


class InferenceModule(tf.Module):
    """The object that is saved: the weights, the files that go with them, and the signatures.

    Args:
        weights: weights of the network.
        protocol: how pixels become classes.
        preprocess: preprocessing of the images.
        files: paths of the files for the folder `assets`.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        protocol: InferenceProtocol,
        preprocess: PreprocessConfig,
        files: Sequence[Path],
    ) -> None:
        super().__init__()
        self.weights = list(weights)
        self.files = [tf.saved_model.Asset(str(file)) for file in files]
        self._protocol = protocol
        self._preprocess = preprocess

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Signature name -> traced function."""
        strings = tf.TensorSpec((None,), tf.string)
        return {
            SERVING_SIGNATURE: _traced(self._serve, strings, IMAGE_BYTES),
            PIXELS_SIGNATURE: _traced(self._predict_pixels, _PIXELS_SPEC, PIXELS),
            CONFIDENCE_SIGNATURE: _traced(self._serve_confidence, strings, IMAGE_BYTES),
            EVALUATE_SIGNATURE: _traced(self._evaluate, strings, EXAMPLES),
        }

    def _serve(self, image_bytes: tf.Tensor) -> Outputs:
        def segment(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = decode_image(encoded)
            class_ids, scores = self._segment(image[None], tf.shape(image)[:2])
            return tf.io.encode_png(class_ids[0, :, :, None]), scores[0]

        specs = (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.float32))
        masks, scores = _each(segment, image_bytes, specs)
        return {MASK_BYTES: masks, SCORES: scores}

    def _serve_confidence(self, image_bytes: tf.Tensor) -> Outputs:
        def segment(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            image = decode_image(encoded)
            class_ids, confidences = self._protocol.classify(self._shrink(image[None]), tf.shape(image)[:2])
            levels = tf.cast(tf.round(255.0 * confidences), tf.uint8)
            mask, confidence = tf.io.encode_png(class_ids[0, :, :, None]), tf.io.encode_png(levels[0, :, :, None])
            return mask, confidence, tf.reduce_mean(confidences)

        text = tf.TensorSpec((), tf.string)
        outputs = _each(segment, image_bytes, (text, text, tf.TensorSpec((), tf.float32)))
        return dict(zip((MASK_BYTES, CONFIDENCE_BYTES, SCORES), outputs, strict=True))

    def _predict_pixels(self, pixels: tf.Tensor) -> Outputs:
        class_ids, scores = self._segment(pixels, tf.shape(pixels)[1:3])
        return {CLASS_IDS: class_ids, SCORES: scores}

    def _evaluate(self, examples: tf.Tensor) -> Outputs:
        features = {key: tf.io.FixedLenFeature((), tf.string) for key in (IMAGE, MASK)}
        num_classes = self._protocol.num_classes

        def compare(serialized: tf.Tensor) -> Outputs:
            example = tf.io.parse_single_example(serialized, features)
            mask = decode_mask(example[MASK])
            images = self._shrink(decode_image(example[IMAGE])[None])
            class_ids, confidences = self._protocol.classify(images, tf.shape(mask))
            counts = count_pixels(mask, class_ids[0], confidences[0], num_classes)
            return {name: tf.reshape(count, (-1,)) for name, count in counts.items()}

        zeros = vars(Counts.zeros(num_classes))
        specs = {name: tf.TensorSpec((zero.size,), tf.int64) for name, zero in zeros.items()}
        return _each(compare, examples, specs, at_once=_COMPARED_AT_ONCE)

    def _segment(self, images: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(batch, height, width, 3) uint8 images to class ids (batch, *size) uint8 and scores (batch,) float32."""
        return self._protocol.segment(self._shrink(images), size)

    def _shrink(self, images: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, 3) uint8 images as the network was trained to see them."""
        if not self._preprocess.max_side:
            return images
        spec = tf.TensorSpec((None, None, 3), tf.uint8)
        return _each(lambda image: shrink_image(image, self._preprocess), images, spec)


def _traced(
    function: Callable[[tf.Tensor], Outputs], spec: tf.TensorSpec, name: str
) -> tf.types.experimental.ConcreteFunction:
    return tf.function(function).get_concrete_function(tf.TensorSpec(spec.shape, spec.dtype, name=name))


def _each(function: Callable[[tf.Tensor], Any], elements: tf.Tensor, specs: Any, at_once: int = 1) -> Any:
    """Maps elements whose sizes differ; memory grows with the number of elements `at_once`.

    The network keeps every core busy by itself, so that more than one at once speeds up only the work beside it.
    """
    return tf.map_fn(function, elements, fn_output_signature=specs, parallel_iterations=at_once)


@contextmanager
def float32_policy() -> Iterator[None]:
    """A context in which new networks compute in float32."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def export_saved_model(
    model: DeepLabV3Plus,
    path: str | os.PathLike[str],
    *,
    label_map: LabelMap,
    preprocess: PreprocessConfig,
    inference: InferenceConfig | None = None,
) -> None:
    """Writes a SavedModel that computes in float32, whatever the precision of training was.

    Args:
        model: trained network.
        path: folder to write, anywhere that `tf.io.gfile` reaches.
        label_map: the classes, which are stored in the model.
        preprocess: preprocessing of the images in training.
        inference: how images become predictions; None takes the defaults.

    Raises:
        ValueError: the label map has another number of classes than the model.
    """
    if label_map.num_classes != model.num_classes:
        raise ValueError(f"the label map has {label_map.num_classes} classes, the model {model.num_classes}")
    inference = inference or InferenceConfig()
    with float32_policy():
        network = model.with_output_stride(inference.output_stride or model.config.output_stride)
    protocol = InferenceProtocol(
        network.coarse_logits,
        network.num_classes,
        inference,
        align_corners=network.config.resize == "align_corners",
    )
    description = ExportedModel(
        model=model.config,
        preprocess=preprocess,
        inference=inference,
        weights=tuple(weight.path for weight in network.weights),
    )
    with asset_files({LABEL_MAP_FILE: label_map, MODEL_FILE: description}) as files:
        variables = [weight.value for weight in network.weights]
        module = InferenceModule(variables, protocol, preprocess, files)
        tf.saved_model.save(module, os.fspath(path), signatures=module.signatures())


@contextmanager
def asset_files(sections: Mapping[str, Section]) -> Iterator[list[Path]]:
    """A context with temporary files (name -> section, as JSON) for the folder `assets` of a SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        files = {Path(folder, name): section for name, section in sections.items()}
        for file, section in files.items():
            file.write_text(section.model_dump_json(indent=2), encoding="utf-8")
        yield list(files)


def load_label_map(path: str | os.PathLike[str]) -> LabelMap:
    """The label map inside a SavedModel.

    Raises:
        WorkspaceError: the label map is absent or damaged.
    """
    return _read_asset(path, LABEL_MAP_FILE, LabelMap)


def load_description(path: str | os.PathLike[str]) -> ExportedModel:
    """The description inside a SavedModel.

    Raises:
        WorkspaceError: the description is absent, as in models of other projects, or this version cannot read it.
    """
    return _read_asset(path, MODEL_FILE, ExportedModel)


def _read_asset(path: str | os.PathLike[str], name: str, kind: type[Asset]) -> Asset:
    file = os.path.join(os.fspath(path), "assets", name)
    try:
        with tf.io.gfile.GFile(file) as stream:
            return kind.model_validate_json(stream.read())
    except tf.errors.NotFoundError:
        raise WorkspaceError(f"{os.fspath(path)} is not a model of this project: {file} does not exist") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WorkspaceError(f"{file}: {place or 'the file'}: {first['msg']}") from None
