"""The metadata table inside a LiteRT model, which tools of TensorFlow Lite read.

It is a FlatBuffer of its own, in the buffer of the model that the entry TFLITE_METADATA names. The classes that wrap
the format are in tflite-support, which needs protobuf below 4; the few tables that are written here go by the numbers
of their fields in its `metadata_schema.fbs`.
"""

from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

_ENTRY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
#: The oldest parser of the format that knows all of this.
_PARSER = "1.0.0"

# Values of the schema's enumerations and unions.
_RGB = 1
_VALUE_LABELS = 3
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION = 1


class _Builder(flatbuffers.Builder):
    def table(self, references: Mapping[int, int], numbers: Mapping[int, int] | None = None) -> int:
        """A table: field -> what it refers to, and field -> small number; where it lies."""
        numbers = numbers or {}
        self.StartObject(1 + max([*references, *numbers], default=-1))
        for field, offset in references.items():
            self.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, number in numbers.items():
            self.PrependUint8Slot(field, number, 0)
        return int(self.EndObject())

    def tables(self, offsets: Sequence[int]) -> int:
        """A list of tables."""
        self.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.PrependUOffsetTRelative(offset)
        return int(self.EndVector())


def metadata_table(names: tuple[str, str], labels_file: str) -> bytes:
    """What the table says: RGB pixels go in as they are, class ids come out, whose names are in a file.

    Args:
        names: of input and output.
        labels_file: in the ZIP archive behind the model.
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
