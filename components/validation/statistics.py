"""Reads what StatisticsGen measured."""

import os
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

_FILE = "FeatureStats.pb"


@dataclass(frozen=True)
class SplitColumns:
    """The scalar columns of one split, measured."""

    name: str
    images: int
    columns: dict[str, statistics_pb2.NumericStatistics]
    """Column -> its statistics, which are empty for a column of text."""


def split_columns(statistics: Artifact) -> list[SplitColumns]:
    """The splits of a statistics artifact."""
    found = []
    for name in artifact_utils.decode_split_names(statistics.split_names):
        with fileio.open(os.path.join(artifact_utils.get_split_uri([statistics], name), _FILE), "rb") as file:
            (dataset,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets
        columns = {column.path.step[0] or column.name: column.num_stats for column in dataset.features}
        found.append(SplitColumns(name, dataset.num_examples, columns))
    return found
