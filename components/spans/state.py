"""The spans that a run takes, and the state of their folders, determined before any image is read."""

from dataclasses import asdict

from pydantic import BaseModel

from components.spans.fixed_test_set import FixedTestSet
from components.spans.records import SpanState
from components.storage.file_systems import file_system
from components.storage.fingerprint import fingerprint
from data.dataset import DataConfig
from data.errors import IncompleteDataError
from data.spans import Span, is_incomplete, parse_pattern, select

#: The keys of the images of a separate test set begin with this name.
EVALUATION = "evaluation"


class WindowState(BaseModel):
    """The spans of a run, which the cache key of the stage depends on."""

    window: tuple[SpanState, ...]
    reference: tuple[SpanState, ...]
    replay: tuple[SpanState, ...]
    evaluation: SpanState | None
    """The test set; None: the test splits of the window are."""

    @property
    def all(self) -> tuple[SpanState, ...]:
        """Every span that the run reads."""
        return (*self.window, *self.reference, *self.replay, *([self.evaluation] if self.evaluation else []))


def window_state(config: DataConfig, ingested: str) -> WindowState:
    """Reads the folders of the spans.

    Args:
        config: The `data` section, its path a pattern.
        ingested: Folder or URI of what is kept from run to run.

    Raises:
        DataError: A span is missing, or is still being copied.
    """
    chosen = select(parse_pattern(config.path), config.spans, file_system(config.path))
    return WindowState(
        window=tuple(map(_state, chosen.window)),
        reference=tuple(map(_state, chosen.reference)),
        replay=tuple(map(_state, chosen.replay)),
        evaluation=_test_set(config, ingested),
    )


def left_out(config: DataConfig) -> dict[str, str]:
    """Names of folders that a run does not take, although somebody may expect it to -> the reason."""
    pattern, files = parse_pattern(config.path), file_system(config.path)
    return pattern.near_misses(files) | select(pattern, config.spans, files).left_out


def _state(span: Span) -> SpanState:
    return SpanState(**asdict(span), fingerprint=fingerprint(span.folder, file_system(span.folder)))


def _test_set(config: DataConfig, ingested: str) -> SpanState | None:
    if config.test_set == "window":
        return None
    if config.test_set != "fixed":
        return _state(Span(number=-1, version=0, name=EVALUATION, folder=config.test_set))
    files = file_system(config.path)
    known = FixedTestSet(config.path, ingested).span()
    if known is not None:
        return known
    first = parse_pattern(config.path).list(files)[0]
    if is_incomplete(first, files):
        raise IncompleteDataError(f"span {first.name}, whose test images are to be the test set, is still being copied")
    return _state(first)
