"""The weights in SavedModels, read as numbers.

A SavedModel, from TensorFlow Hub or elsewhere, is a program, and `hub.load` and `tf.saved_model.load` may run parts of
it. Here only its checkpoint is read, as arrays, and nothing of it runs.
"""

import hashlib
import os
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from data.errors import ConfigError, TrainingError
from models.export.saved_model import load_description

#: Values of weights by their paths: names joined by "/", the layer's and the weight's own last.
Weights = Mapping[str, np.ndarray]

#: Entry in which the checkpoint of a TensorFlow 2 SavedModel describes its objects; TensorFlow 1 had only names.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def exported_weights(folder: str) -> Weights:
    """The weights of a network, or of a feature extractor, that this project exported."""
    arrays = [array for _, array in listed_variables(folder, "weights")]
    return dict(zip(load_description(folder).weights, arrays, strict=True))


def listed_variables(folder: str, attribute: str) -> list[tuple[str, np.ndarray]]:
    """The names and values of the variables that a SavedModel's object lists in an attribute, in order.

    They come from the checkpoint inside; nothing of the SavedModel is loaded or run. `variables` is the attribute that
    TensorFlow Hub's interface requires; a SavedModel of TensorFlow 1 has no attributes, and all its variables are read.
    """
    checkpoint = tf.train.load_checkpoint(os.path.join(folder, "variables", "variables"))
    if not checkpoint.has_tensor(_OBJECT_GRAPH):
        return [(name, checkpoint.get_tensor(name)) for name in checkpoint.get_variable_to_shape_map()]
    nodes = TrackableObjectGraph.FromString(checkpoint.get_tensor(_OBJECT_GRAPH)).nodes
    lists = [nodes[child.node_id] for child in nodes[0].children if child.local_name == attribute]
    entries = sorted((entry for node in lists for entry in node.children), key=lambda entry: int(entry.local_name))
    values = [value for entry in entries for value in nodes[entry.node_id].attributes]
    return [(value.full_name, checkpoint.get_tensor(value.checkpoint_key)) for value in values]


def download_module(handle: str) -> str:
    """The folder of a TensorFlow Hub module, downloaded by Hub's protocol and kept in Keras' cache.

    The tensorflow-hub package does the same, but needs a module that setuptools no longer has.

    Raises:
        ConfigError: the handle is not a URL.
        TrainingError: the download fails.
    """
    if not handle.startswith(("http://", "https://")):
        raise ConfigError(
            "there is no such folder; allowed: 'random', 'imagenet', a .weights.h5 or .h5 file, the folder of a "
            "SavedModel, the URL of a TensorFlow Hub module"
        )
    name = f"hub_{hashlib.sha256(handle.encode()).hexdigest()[:16]}"
    origin = f"{handle}{'&' if '?' in handle else '?'}tf-hub-format=compressed"
    try:
        return keras.utils.get_file(name, origin, extract=True, archive_format="tar")
    except Exception as error:
        raise TrainingError(
            f"the module cannot be downloaded ({error}). Without a network, give initial_weights the folder of an "
            "unpacked copy"
        ) from error
