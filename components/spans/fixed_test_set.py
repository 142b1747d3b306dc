"""The fixed test set: the first span as it was in the first run on its pattern.

`<ingested>/evaluation.json` names it, and `<ingested>/evaluation/` has a copy of its files, from which it is ingested
again whenever settings or code change, even if the span has changed or is gone. A copy of its records would not be
enough: records for other settings cannot be made from them.
"""

import hashlib
import json
import os

from components.spans.cache import SpanCache, copy_folder
from components.spans.records import SpanState
from components.storage.atomic import read_small, write_small
from components.storage.file_systems import file_system
from components.storage.fingerprint import fingerprint
from data.errors import DataError, IncompleteDataError

EVALUATION_FILE = "evaluation.json"
COPIES = "evaluation"


class FixedTestSet:
    """The span that is the test set, and its copy.

    Args of the constructor:
        path: The pattern of the spans; a different pattern has a different first span.
        ingested: Folder or URI of what is kept from run to run.
    """

    def __init__(self, path: str, ingested: str):
        self._path = path
        self._file = os.path.join(ingested, EVALUATION_FILE)
        self._copies = SpanCache(os.path.join(ingested, COPIES))

    def span(self) -> SpanState | None:
        """The span that was fixed in the first run on this pattern; None before it.

        Raises:
            DataError: Neither the copy nor the span itself is what it was.
        """
        span = self._named()
        if span is None or self._copies.find(_key(span)) or _is_unchanged(span):
            return span
        raise DataError(
            f"the copy of span {span.name}, whose test images are the fixed test set, is gone or damaged, and "
            f"{span.folder} is not what it was then: restore one of them, name another test set in data.test_set, or "
            f"remove {self._file}, so that from now on the first span as it is now is the test set"
        )

    def copy(self) -> str | None:
        """The folder of the copy; None where there is none, or where a file of it is missing or cut short."""
        span = self._named()
        return self._copies.find(_key(span)) if span else None

    def fix(self, span: SpanState) -> None:
        """Makes a span the test set from now on. If it already is, a copy that is gone is made again.

        Raises:
            IncompleteDataError: The span has changed meanwhile.
        """
        named, key = self._named(), _key(span)
        if named == span and self._copies.find(key):
            return
        self._copies.keep_only({key, *([_key(named)] if named else [])})
        folder = self._copies.attempt(key)
        copy_folder(span.folder, folder)
        if not _is_unchanged(span):
            raise IncompleteDataError(f"{span.folder} changed while it was copied to be the fixed test set; run again")
        self._copies.complete(key, folder)
        write_small(self._file, json.dumps({"path": self._path, "span": span.model_dump()}).encode())
        self._copies.keep_only({key})

    def _named(self) -> SpanState | None:
        content = read_small(self._file)
        fixed = json.loads(content) if content else {}
        return SpanState(**fixed["span"]) if fixed.get("path") == self._path else None


def _key(span: SpanState) -> str:
    digest = hashlib.sha256(json.dumps([span.folder, span.fingerprint]).encode()).hexdigest()
    return f"{span.slug}-{digest[:16]}"


def _is_unchanged(span: SpanState) -> bool:
    return fingerprint(span.folder, file_system(span.folder)) == span.fingerprint
