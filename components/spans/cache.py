"""The cache of ingested spans, kept from run to run, so that an unchanged span is ingested once.

`<root>/<key>/<attempt>/` holds the files, `<root>/<key>/COMPLETE` names the attempt that is complete, with the sizes of
its files. `COMPLETE` is written last and atomically, on a disk as on an object store; whatever it does not name is not
a result. A process that is killed leaves an attempt that is never read and that the next `keep_only` removes.
"""

import json
import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from components.storage.atomic import create, flush, read_small, write_small
from components.storage.file_systems import file_system, is_local
from components.storage.trees import remove_tree
from data.files import walk

COMPLETE = "COMPLETE"


class SpanCache:
    """Results of ingesting, by key.

    Args of the constructor:
        root: Folder or URI; made when something is written. One run at a time may write below it.
    """

    def __init__(self, root: str):
        self._root = root
        self._files = file_system(root)

    def find(self, key: str) -> str | None:
        """The folder of a complete result; None if there is none, or if a file of it is missing or truncated."""
        record = read_small(self._at(key, COMPLETE))
        if record is None:
            return None
        complete = json.loads(record)
        folder = self._at(key, complete["attempt"])
        return folder if self._sizes(folder) == complete["sizes"] else None

    def attempt(self, key: str) -> str:
        """A new folder to write a result to; it is not visible before `complete`."""
        return self._at(key, uuid.uuid4().hex)

    def complete(self, key: str, folder: str) -> None:
        """Makes what is in an attempt's folder the result."""
        sizes = self._sizes(folder)
        if is_local(folder):
            for name in sizes:
                flush(Path(folder, name))
        record = {"attempt": os.path.basename(folder), "sizes": sizes}
        write_small(self._at(key, COMPLETE), json.dumps(record).encode())

    def keep_only(self, keys: Collection[str]) -> None:
        """Removes all other results, and attempts that were not completed."""
        for key in list(self._files.list(self._root)):
            whole = self.find(key) if key in keys else None
            if whole is None:
                remove_tree(self._at(key))
                continue
            for name in list(self._files.list(self._at(key))):
                if name not in (COMPLETE, os.path.basename(whole)):
                    remove_tree(self._at(key, name))

    def _at(self, *names: str) -> str:
        return self._files.join(self._root, *names)

    def _sizes(self, folder: str) -> dict[str, int]:
        return {name: size for name, size, _ in self._files.stats(folder)}


def place(source: str, target: str) -> None:
    """Puts a finished file where a stage wants it: as a hard link if both are on one disk, otherwise as a copy."""
    if is_local(source) and is_local(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:  # Another file system, or one without hard links.
            shutil.copyfile(source, target)
        return
    with file_system(source).open(source) as reader, create(target) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def copy_folder(source: str, target: str) -> None:
    """Copies a dataset: all files below a folder, files behind links as files, and empty folders.

    What cannot be read is not copied: a reader of the copy finds it missing, as before.
    Folders that this project wrote have none of this; `components.storage.trees.copy_tree` copies them.
    """
    files = file_system(source)
    for name, _, _ in walk(source, files):
        try:
            reader = files.open(files.join(source, name))
        except (FileNotFoundError, PermissionError):  # A link that leads nowhere, or a file that may not be read.
            continue
        with reader, create(os.path.join(target, name)) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
    if is_local(source) and is_local(target):
        for folder, _, _ in os.walk(source):  # An empty folder may be that of a split.
            os.makedirs(os.path.join(target, os.path.relpath(folder, source)), exist_ok=True)
