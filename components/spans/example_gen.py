"""WindowExampleGen: ImageExampleGen for data that arrive in spans. A window of spans becomes one set of examples.

Each span is ingested by itself, once, into the cache of `components.spans.cache`; a run puts together what it needs
of it. So a window costs only what is new in it, and a run that is killed loses one span's work at most.
"""

import hashlib
import json
import os
from typing import Any

from absl import logging
from tfx import types
from tfx.components.example_gen.utils import FINGERPRINT_PROPERTY_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import Quarantine, Spans
from components.code_hash import code_hash
from components.drivers import StateDriver
from components.ingest.quarantine import check_splits
from components.spans.cache import SpanCache, place
from components.spans.fixed_test_set import FixedTestSet
from components.spans.ingest import Ingester, RunSpans, ingest_all
from components.spans.merge import Merge, put_together
from components.spans.records import COLUMNS, WINDOW_FILE, WindowRecord, columns_file
from components.spans.state import WindowState, left_out, window_state
from components.storage.atomic import write_small
from data.console import terminal
from data.dataset import DataConfig
from data.layouts.base import SPLITS

#: Execution property: the JSON of a `WindowState`.
SPANS_STATE = "spans_state"


class Executor(base_beam_executor.BaseBeamExecutor):
    """Removes what is not needed from the cache, ingests what is new, and puts the window together."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        config = DataConfig.model_validate_json(exec_properties["config"])
        state = WindowState.model_validate_json(exec_properties[SPANS_STATE])
        ingested = exec_properties["ingested"]
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        quarantine = artifact_utils.get_single_uri(output_dict["quarantine"])
        cache = SpanCache(os.path.join(ingested, "spans"))
        fixed = FixedTestSet(config.path, ingested) if config.test_set == "fixed" else None
        test_copy = fixed.copy() if fixed else None
        ingester = Ingester(cache, config, exec_properties["code_hash"], self._make_beam_pipeline, test_copy)

        # This comes first, so that runs that fail night after night do not fill the disk.
        cache.keep_only({ingester.key(span) for span in state.all})
        spans = ingest_all(ingester, state, config)
        merge = put_together(spans, config.spans.replay, examples.uri, quarantine)
        check_splits(quarantine, config)
        if fixed and spans.evaluation:
            fixed.fix(spans.evaluation.span)
        record = window_record(spans, merge, left_out(config))
        describe_examples(examples, record, exec_properties[SPANS_STATE])
        write_record(record, spans, artifact_utils.get_single_uri(output_dict["spans"]))


def window_record(spans: RunSpans, merge: Merge, without: dict[str, str]) -> WindowRecord:
    """The record of the run's spans, and of those that were left out from the start."""
    return WindowRecord(
        spans=[
            source.record(
                dropped=merge.dropped_of(source.folder) if source.role == "window" else 0,
                replayed=merge.replayed_of(source.folder) if source.role == "replay" else 0,
            )
            for source in spans.all
        ],
        skipped=without | spans.skipped,
        repeated=merge.repeated,
    )


def describe_examples(examples: types.Artifact, record: WindowRecord, state: str) -> None:
    """Records on the artifact which spans the examples are made of."""
    examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
    examples.span = record.newest.number
    examples.version = record.newest.version
    examples.set_string_custom_property("spans", json.dumps([span.name for span in record.window]))
    examples.set_string_custom_property("replayed", json.dumps(record.replayed))
    examples.set_string_custom_property(FINGERPRINT_PROPERTY_NAME, hashlib.sha256(state.encode()).hexdigest())


def write_record(record: WindowRecord, spans: RunSpans, spans_uri: str) -> None:
    """Fills the `Spans` artifact."""
    for source in (*spans.reference, *spans.window):
        place(os.path.join(source.folder, f"{COLUMNS}.parquet"), columns_file(spans_uri, source.span))
    write_small(os.path.join(spans_uri, WINDOW_FILE), record.model_dump_json(indent=2).encode())


class Driver(StateDriver):
    """Makes the cache key depend on which spans there are, and on the content of those that are taken."""

    def state(self, exec_properties: dict[str, Any]) -> dict[str, str]:
        """The JSON of a `WindowState`."""
        config = DataConfig.model_validate_json(exec_properties["config"])
        for name, why in left_out(config).items():
            logging.warning("%s: %s", name, why)
            terminal().print(f"warning: {name}: {why}", style="yellow", markup=False, highlight=False)
        return {SPANS_STATE: window_state(config, exec_properties["ingested"]).model_dump_json()}


class WindowExampleGenSpec(ComponentSpec):
    """Parameters and outputs of `WindowExampleGen`."""

    PARAMETERS = {
        "config": ExecutionParameter(type=str),
        "ingested": ExecutionParameter(type=str),
        "code_hash": ExecutionParameter(type=str),
        SPANS_STATE: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "quarantine": ChannelParameter(type=Quarantine),
        "spans": ChannelParameter(type=Spans),
    }


class WindowExampleGen(base_beam_component.BaseBeamComponent):
    """Reads a window of spans of labelled images into one set of examples.

    Args of the constructor:
        config: The `data` section, its path a pattern, with layout and label map resolved.
        ingested: Folder or URI for what is kept from run to run, of this pipeline alone.
    """

    SPEC_CLASS = WindowExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, config: DataConfig, ingested: str):
        super().__init__(
            spec=WindowExampleGenSpec(
                config=config.model_dump_json(exclude={"license"}),  # a note for people
                ingested=ingested,
                code_hash=code_hash(__name__),
                examples=types.Channel(type=standard_artifacts.Examples),
                quarantine=types.Channel(type=Quarantine),
                spans=types.Channel(type=Spans),
            )
        )
