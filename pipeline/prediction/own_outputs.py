"""What `predict` itself has written, lest it predict that, too."""

import os
import posixpath
from collections.abc import Iterable

from components.storage.file_systems import file_system, is_local
from pipeline.prediction.journal import Journal
from pipeline.prediction.outputs import CLASSES_FILE, JOURNAL_FOLDER, LEGEND_FILE


class OwnOutputs:
    """The files that journals, each in an output folder of this command, say were made. Looks at each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, bool] = {}
        self._listed: dict[str, set[str]] = {}
        self._journals: dict[str, Journal] = {}

    def learn(self, base: str, names: Iterable[str]) -> None:
        """Spares the questions after folders below one whose whole content is known, relative to it."""
        explained, recorded = set(), set()
        for name in names:
            folder, file = posixpath.split(name)
            above, last = posixpath.split(folder)
            if file == CLASSES_FILE:
                explained.add(posixpath.join(base, folder))
            if last == JOURNAL_FOLDER:
                recorded.add(posixpath.join(base, above))
        self._listed[base] = explained & recorded

    def are_in(self, folder: str) -> bool:
        """Whether a folder, a path or a URI, is one that outputs were written to."""
        for base, holding in self._listed.items():
            if folder.startswith(base + "/"):
                return folder in holding
        if folder not in self._folders:
            exists = file_system(folder).exists
            self._folders[folder] = exists(os.path.join(folder, CLASSES_FILE)) and exists(
                os.path.join(folder, JOURNAL_FOLDER)
            )
        return self._folders[folder]

    def hold(self, base: str, relative: str) -> bool:
        """Whether a file is one of them.

        Args:
            base: Folder that a person named. It, or the nearest one above it, may be an output folder.
            relative: The file's path below it.
        """
        folder = os.path.realpath(base) if is_local(base) else base
        path = posixpath.join(folder, relative)
        while not self.are_in(folder):
            above = posixpath.dirname(folder)
            if above == folder or above.endswith(":"):  # The root, or what a bucket is in.
                return False
            folder = above
        below = posixpath.relpath(path, folder) if is_local(path) else path.removeprefix(folder + "/")
        return below in (LEGEND_FILE, CLASSES_FILE) or self._journals.setdefault(folder, Journal(folder)).made(below)

    def surround(self, base: str, relative: str) -> bool:
        """Whether a file lies in an output folder that is below the one that a person named."""
        folder = posixpath.dirname(relative)
        while folder:
            if self.are_in(posixpath.join(base, folder)):
                return True
            folder = posixpath.dirname(folder)
        return False
