"""The inputs of a run that would start now: the configuration and the current data."""

from components.storage.file_systems import file_system
from components.storage.fingerprint import fingerprint
from data.dataset import DataConfig
from data.errors import DataError, IncompleteDataError
from pipeline.config import Config, config_hash
from pipeline.sections.schedule import ScheduleConfig
from pipeline.workspace import Workspace


def input_state(config: Config, workspace: Workspace) -> str:
    """A text that changes when the configuration or the data that a run would read change.

    Data that a run would reject without reading them, for example because two folders have the same span number, are a
    state like any other: the run reports the error, and no further run starts until something changes. Section
    `schedule` is excluded, because it determines when runs start and not what they do.

    Raises:
        IncompleteDataError: The data are being copied.
    """
    configured = config_hash(config.model_copy(update={"schedule": ScheduleConfig()}))
    try:
        data = _data_state(config.data, str(workspace.ingested))
    except IncompleteDataError:
        raise
    except FileNotFoundError as error:
        raise IncompleteDataError(f"{config.data.path} changed while it was looked at: no {error.filename}") from None
    except DataError as error:
        data = f"refused: {error}"
    return f"configuration {configured}\n{data}"


def _data_state(config: DataConfig, ingested: str) -> str:
    if config.has_spans:
        from components.spans.state import window_state  # imports pyarrow, whose memory is never freed

        return window_state(config, ingested).model_dump_json()
    files = file_system(config.path)
    if not files.exists(config.path):
        raise DataError(f"no folder {config.path} (data.path)")
    return fingerprint(config.path, files)
