"""`predict --watch`: predicts new images with the currently served version of the model."""

import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from components.publishing.directory import ModelVersion
from pipeline.prediction.input_image import FileState
from pipeline.prediction.listing import find_images
from pipeline.prediction.predictor import PredictedImage, PredictJob, Predictor
from pipeline.prediction.video import with_frames

#: Seconds between two checks of watched folders. An image is complete when it is the same in both.
WATCH_SECONDS = 2.0


class LatestVersion:
    """Follows a serving directory.

    Args:
        look: Returns the job for the version that is served now.
        load: Loads that version.
        console: Where changes of the version are reported.
    """

    def __init__(
        self, look: Callable[[], PredictJob], load: Callable[[PredictJob], Predictor], console: Console
    ) -> None:
        self._look = look
        self._load = load
        self._console = console
        self._tried = look()
        self._tried.prepare()
        self.predictor = load(self._tried)
        """The predictor of the latest version that could be loaded."""
        self._trouble = ""

    def changed(self) -> bool:
        """Checks once; returns whether another version is used from now on. One that cannot be loaded is skipped."""
        version: ModelVersion | None = None
        try:
            job = self._look()
            if job == self._tried:
                return False
            self._tried, version = job, job.model
            self.predictor = self._load(job)
            job.prepare()
        except Exception as error:  # noqa: BLE001 - a broken SavedModel raises nearly anything; the watch continues.
            self._say(f"{f'version {version.version}' if version else 'a newer version'} cannot be used: {error}")
            return False
        self._say(f"version {version.version} is used from now on")
        return True

    def _say(self, text: str) -> None:
        """Reports a problem once, however many checks find it."""
        if text != self._trouble:
            self._console.print(text, markup=False)
        self._trouble = text


def arriving(latest: LatestVersion, arguments: Sequence[str], out: str, every: int) -> Iterator[PredictedImage]:
    """Predicts new images as soon as they are complete, without end.

    Args:
        latest: The version that is served.
        arguments: Files, folders and patterns, as for `find_images`.
        out: Folder of the outputs.
        every: Step between the frames of a video that are predicted.
    """
    before: dict[str, FileState | None] = {}
    tried: dict[str, FileState | None] = {}
    while True:
        if latest.changed():
            tried = {}  # As if the command were started again: the legend of the new version is written.
        found = find_images(arguments, out, allow_none=True)
        now = {image.path: image.state for image in found}
        complete = [
            image for image in found if image.state and before.get(image.path) == image.state != tried.get(image.path)
        ]
        tried |= {image.path: image.state for image in complete}
        yield from latest.predictor.predict(with_frames(complete, every))
        before = now
        time.sleep(WATCH_SECONDS)
