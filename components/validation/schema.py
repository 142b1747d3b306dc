"""DataSchema: the curated schema of the examples, made from the configuration rather than inferred from the data.

An inferred schema accepts everything that was in the first run's data. This one states what must hold for any
segmentation dataset: every image has a size that the pipeline takes, pixel counts are not negative, and no mask has too
many ignored (void) pixels.
"""

import os

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.config import ValidationConfig
from components.function_component import function_component
from data import features
from data.labels import LabelMap

SCHEMA_FILE = "schema.pbtxt"


def _scalar(schema: schema_pb2.Schema, name: str, kind: "schema_pb2.FeatureType.ValueType") -> schema_pb2.Feature:
    feature = schema.feature.add(name=name, type=kind)
    feature.presence.min_fraction = 1.0
    feature.shape.dim.add(size=1)
    return feature


def make_schema(config: ValidationConfig, class_names: tuple[str, ...]) -> schema_pb2.Schema:
    """The schema of the examples that ExampleGen writes; see `data.features`."""
    schema = schema_pb2.Schema()
    for name in (features.HEIGHT, features.WIDTH):
        domain = _scalar(schema, name, schema_pb2.INT).int_domain
        domain.min, domain.max = config.min_side, config.max_side
    for name, highest in (
        (features.BRIGHTNESS, 1.0),
        (features.CONTRAST, 0.5),
        (features.VOID_FRACTION, config.max_void_fraction),
    ):
        bounds = _scalar(schema, name, schema_pb2.FLOAT).float_domain
        bounds.min, bounds.max = 0.0, highest
    for name in map(features.pixels_key, class_names):
        _scalar(schema, name, schema_pb2.INT).int_domain.min = 0
    _scalar(schema, features.SOURCE, schema_pb2.BYTES)
    representations = schema.tensor_representation_group[""].tensor_representation
    for feature in schema.feature:
        representations[feature.name].dense_tensor.column_name = feature.name
    # The encoded bytes are not validated (statistics leave them out), so nothing is required of their presence. The
    # representation makes Transform parse them as dense tensors.
    for name in (features.IMAGE, features.MASK):
        schema.feature.add(name=name, type=schema_pb2.BYTES)
        representations[name].dense_tensor.column_name = name
    return schema


@function_component()
def DataSchema(
    schema: OutputArtifact[standard_artifacts.Schema],
    validation: Parameter[str],
    label_map: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Writes the schema; `validation` and `label_map` are the JSON of their sections."""
    proto = make_schema(ValidationConfig.model_validate_json(validation), LabelMap.model_validate_json(label_map).names)
    io_utils.write_pbtxt_file(os.path.join(schema.uri, SCHEMA_FILE), proto)
