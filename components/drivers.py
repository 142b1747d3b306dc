"""Drivers: what a node looks up outside the pipeline before its cache key is made.

The result of some nodes depends on something that is not an input artifact (the data folder, the serving directory).
Such a node has an execution property for that state, which its driver fills in at run time, on every runner.
"""

from abc import abstractmethod
from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types_utils, metadata
from tfx.orchestration.portable import base_driver as portable_base_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2


class StateDriver(base_driver.BaseDriver, portable_base_driver.BaseDriver):
    """Adds `state(exec_properties)` to a node's execution properties."""

    def __init__(self, metadata_handle: metadata.Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_base_driver.BaseDriver.__init__(self, metadata_handle)

    @abstractmethod
    def state(self, exec_properties: dict[str, Any]) -> dict[str, str]:
        """Execution properties that describe the state outside the pipeline."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Adds the state; the launcher calls this before it looks for a cached result."""
        properties = {**execution_info.exec_properties, **self.state(execution_info.exec_properties)}
        output = driver_output_pb2.DriverOutput()
        for key, value in properties.items():
            if value is not None:
                data_types_utils.set_metadata_value(output.exec_properties[key], value)
        return output
