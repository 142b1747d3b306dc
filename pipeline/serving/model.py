"""One version of a model that is loaded, warmed up and checks its requests."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from components.publishing.directory import SAVED_MODEL, WARMUP_FILE, ModelVersion
from components.storage.trees import local_copy
from data.errors import WorkspaceError
from data.labels import LabelMap
from models.export.saved_model import IMAGE_BYTES, PIXELS, SERVING_SIGNATURE, load_label_map
from pipeline.serving.tensors import RequestError, Tensor, checked_images, require_pixels

Arrays = dict[str, np.ndarray]

#: Inputs whose cost can be determined before TensorFlow decodes them. Signatures with others are for the pipeline.
_LIMITED = ({IMAGE_BYTES}, {PIXELS})


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class LoadedModel:
    """A loaded version that answers requests from several threads at once, and has answered its warm-up requests.

    Args:
        name: Name by which clients address the model.
        published: The version.
        max_pixels: Maximum of pixels of all images of a request together.

    Raises:
        WorkspaceError: The version is not a SavedModel of this project. A damaged one raises TensorFlow's error.
    """

    def __init__(self, name: str, published: ModelVersion, max_pixels: int) -> None:
        self.name = name
        self.published = published
        self.version = published.version
        self._max_pixels = max_pixels
        with local_copy(published.path) as path:
            self.label_map: LabelMap = load_label_map(path)
            saved = saved_model_pb2.SavedModel()
            try:
                with open(os.path.join(path, SAVED_MODEL), "rb") as file:
                    saved.ParseFromString(file.read())
            except OSError as error:
                raise WorkspaceError(f"{path}: {SAVED_MODEL} cannot be read: {error.strerror or error}") from None
            definitions = sorted(saved.meta_graphs[0].signature_def.items())
            self.signature_defs = {name: each for name, each in definitions if set(each.inputs) in _LIMITED}
            self.signatures = {
                name: Signature(_tensors(each.inputs), _tensors(each.outputs))
                for name, each in self.signature_defs.items()
            }
            self._model = tf.saved_model.load(path)
            self._warm_up(path)

    def signature(self, name: str) -> Signature:
        """A signature by its name.

        Raises:
            RequestError: There is no signature of this name.
        """
        if name not in self.signatures:
            raise RequestError(
                f'Serving signature name: "{name}" not found in signature def; there is {", ".join(self.signatures)}'
            )
        return self.signatures[name]

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Computes one request.

        Args:
            signature: Name of the signature.
            inputs: The signature's inputs; strings as object arrays of `bytes`.

        Returns:
            The outputs; strings as object arrays of `bytes`.

        Raises:
            RequestError: An image is unusable, or there are too many pixels.
        """
        checked = dict(inputs)
        for name, array in inputs.items():
            if name == IMAGE_BYTES:
                checked[name] = np.array(checked_images(array.tolist(), self._max_pixels, name), object)
            else:
                require_pixels(int(np.prod(array.shape[:3])), self._max_pixels, f"in {name}")
        try:
            return self._compute(signature, checked)
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(f"the model refuses the request: {error.message.strip().splitlines()[-1]}") from None

    def _compute(self, signature: str, inputs: Arrays) -> Arrays:
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        outputs = self._model.signatures[signature](**tensors)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def _warm_up(self, path: str) -> None:
        """Computes the requests that were published with the model, as TensorFlow Serving does, or one blank image."""
        file = os.path.join(path, WARMUP_FILE)
        computed = 0
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator() if os.path.exists(file) else ():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            self._compute(request.model_spec.signature_name or SERVING_SIGNATURE, inputs)
            computed += 1
        if not computed:
            stream = io.BytesIO()
            Image.new("RGB", (64, 64)).save(stream, "PNG")
            self._compute(SERVING_SIGNATURE, {IMAGE_BYTES: np.array([stream.getvalue()], object)})


def _tensors(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, tf.as_dtype(info.dtype), tuple(dim.size for dim in info.tensor_shape.dim))
        for name, info in sorted(infos.items())
    )
