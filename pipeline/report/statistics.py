"""The statistics of each split by StatisticsGen, formatted for the report."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from data import features

_FILE = "FeatureStats.pb"

#: Column that is shown -> its number of decimals.
COLUMNS = {features.WIDTH: 0, features.HEIGHT: 0, features.BRIGHTNESS: 2, features.CONTRAST: 2}


@dataclass(frozen=True)
class Split:
    """The statistics of one split."""

    name: str
    images: int
    spreads: dict[str, str]
    """Column -> its minimum, median and maximum."""
    void: float
    """Mean over the images of the share of pixels with the ignore label (void), in [0, 1]."""
    class_shares: dict[str, float]
    """Class -> share of the labelled pixels, in [0, 1]."""
    class_images: dict[str, int]
    """Class -> number of images that contain it."""


def read_statistics(statistics: Artifact, class_names: Sequence[str]) -> list[Split]:
    """Reads the splits of a statistics artifact."""
    names = artifact_utils.decode_split_names(statistics.split_names)
    return [_read_split(artifact_utils.get_split_uri([statistics], name), name, class_names) for name in names]


def _read_split(uri: str, name: str, class_names: Sequence[str]) -> Split:
    with fileio.open(os.path.join(uri, _FILE), "rb") as file:
        (dataset,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets
    columns = {column.path.step[0] or column.name: column.num_stats for column in dataset.features}
    pixels = {label: columns[features.pixels_key(label)] for label in class_names}
    return Split(
        name=name,
        images=dataset.num_examples,
        spreads={column: _spread(columns[column], digits) for column, digits in COLUMNS.items()},
        void=columns[features.VOID_FRACTION].mean,
        class_shares=_shares({label: column.mean for label, column in pixels.items()}),
        class_images={label: dataset.num_examples - column.num_zeros for label, column in pixels.items()},
    )


def _spread(column: statistics_pb2.NumericStatistics, digits: int) -> str:
    least, middle, greatest = (f"{value:.{digits}f}" for value in (column.min, column.median, column.max))
    return middle if least == greatest else f"{least} / {middle} / {greatest}"


def _shares(means: Mapping[str, float]) -> dict[str, float]:
    total = sum(means.values()) or 1.0
    return {label: mean / total for label, mean in means.items()}
