"""The predictor of `predict --watch`: that of the version that is served now."""

from collections.abc import Callable

from rich.console import Console

from components.publishing.directory import Published
from pipeline.prediction.predictor import Predictor, Task


class Newest:
    """Follows a serving directory.

    Args:
        look: What is asked, of the version that is served now.
        load: Loads that version.
        console: Where it is said that the version changed.
    """

    def __init__(self, look: Callable[[], Task], load: Callable[[Task], Predictor], console: Console) -> None:
        self._look = look
        self._load = load
        self._console = console
        self._tried = look()
        self._tried.prepare()
        self.predictor = load(self._tried)
        """Of the newest version that could be loaded."""
        self._trouble = ""

    def changed(self) -> bool:
        """Looks once; whether another version is used from now on. One that cannot be loaded is left alone."""
        version: Published | None = None
        try:
            task = self._look()
            if task == self._tried:
                return False
            self._tried, version = task, task.model
            self.predictor = self._load(task)
            task.prepare()
        except Exception as error:  # noqa: BLE001 - a broken SavedModel raises nearly anything; the watch goes on.
            self._say(f"{f'version {version.version}' if version else 'a newer version'} cannot be used: {error}")
            return False
        self._say(f"version {version.version} is used from now on")
        return True

    def _say(self, text: str) -> None:
        """Says a thing once, however many looks meet it."""
        if text != self._trouble:
            self._console.print(text, markup=False)
        self._trouble = text
