"""The serving directory: `<serving>/<model name>/<version>/`, as TensorFlow Serving polls it.

A version becomes visible whole or not at all. On a POSIX file system it is staged beside, flushed to disk and
renamed. An object store has no rename: there the files are uploaded and verified, `saved_model.pb` last, and at the
very end the record `PUBLISHED`, which every reader in this project waits for. Versions are 1, 2, 3, ...: they do not
stand on a clock, so a clock that jumps back cannot make an old model the newest.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from components.publishing.lock import changing
from components.publishing.pins_and_blocklist import pinned, withdrawn
from components.storage.atomic import create, flush, naming
from components.storage.file_systems import file_system, is_local
from data.errors import WorkspaceBusy, WorkspaceError
from data.section import first_problem

if TYPE_CHECKING:
    from components.storage.beam_files import BeamFiles

RECORD = "PUBLISHED"
SAVED_MODEL = "saved_model.pb"
#: What is put into a version beside the model lies here, as TensorFlow Serving wants it; it is no part of the model.
EXTRA = "assets.extra/"
#: A TFRecord file of PredictionLog protos.
WARMUP_FILE = f"{EXTRA}tf_serving_warmup_requests"
_STAGING = ".staging-"
_CHUNK = 1 << 20


class Record(BaseModel):
    """What `PUBLISHED` says of a version."""

    model_config = ConfigDict(frozen=True)

    version: int
    model_fingerprint: str
    """Of the SavedModel as it came from the Trainer: equal for the same model pushed twice."""
    class_names: list[str]
    published_at: datetime
    source: str = ""
    """URI of the model artifact."""
    restored_from: int | None = None
    """The version as which this model was first pushed, where a rollback published it once more."""
    rollback_of: int | None = None
    """The version that was rolled back then."""
    rollback_reason: str = ""
    """Why, in the operator's words."""

    @property
    def first_version(self) -> int:
        """The version as which this model was first pushed."""
        return self.version if self.restored_from is None else self.restored_from


class Published(NamedTuple):
    """One version in the serving directory."""

    version: int
    path: str
    record: Record


class Damaged(NamedTuple):
    """A version that was published, and whose record is damaged or may not be read."""

    version: int
    path: str
    error: str


Version = Published | Damaged


def _read(path: str) -> bytes:
    with file_system(path).open(path) as file:
        return file.read()


def _walk(folder: str) -> Iterator[str]:
    """Relative paths of all files below a folder."""
    for name, _, _ in file_system(folder).stats(folder):
        yield name


def versions(serving_dir: str) -> list[Version]:
    """All versions that were published, oldest first. Half-written ones and other files are not seen."""
    files = file_system(serving_dir)
    found: list[Version] = []
    for name in files.list(serving_dir):
        if name.isdecimal():
            path = files.join(serving_dir, name)
            try:
                found.append(Published(int(name), path, _read_record(files.join(path, RECORD))))
            except WorkspaceError as error:
                found.append(Damaged(int(name), path, str(error)))
            except (FileNotFoundError, NotADirectoryError):
                if not files.exists(path):  # Pruned since the listing, which may lack the versions that came instead.
                    return versions(serving_dir)
    return sorted(found, key=lambda version: version.version)


def _read_record(path: str) -> Record:
    try:
        return Record.model_validate_json(_read(path))
    except ValidationError as error:
        raise WorkspaceError(
            f"{path}: damaged record of a published version: {first_problem(error)}. Restore the file, or remove the "
            "version's folder"
        ) from None
    except (IsADirectoryError, PermissionError) as error:
        raise WorkspaceError(f"{path}: the record of a published version cannot be read: {error.strerror}") from None


def readable(version: Version) -> Published:
    """A version whose record can be read.

    Raises:
        WorkspaceError: It is damaged; names the file.
    """
    if isinstance(version, Damaged):
        raise WorkspaceError(version.error)
    return version


def published(serving_dir: str) -> list[Published]:
    """All complete versions, oldest first; without those whose record is damaged."""
    return [version for version in versions(serving_dir) if isinstance(version, Published)]


def all_published(serving_dir: str) -> list[Published]:
    """All complete versions, oldest first, for those who must not miss any.

    Raises:
        WorkspaceError: The record of a version is damaged.
    """
    return [readable(version) for version in versions(serving_dir)]


def served(serving_dir: str) -> Published | None:
    """The version that a server would pick: the highest complete one.

    Raises:
        WorkspaceError: Its record is damaged. Those of earlier versions do not count.
    """
    found = versions(serving_dir)
    return readable(found[-1]) if found else None


def state(serving_dir: str) -> str:
    """What is being served, and what may not be, as a short string for cache keys."""
    newest = served(serving_dir)
    state = f"{newest.version}:{newest.record.model_fingerprint}" if newest else "none"
    return ",not ".join([state, *sorted(withdrawn(serving_dir))])


def model_fingerprint(model: str) -> str:
    """SHA-256 over names and contents of a SavedModel's files; what publishing adds to them does not count."""
    digest = hashlib.sha256()
    for name in sorted(_walk(model)):
        if name != RECORD and not name.startswith(EXTRA):
            content = hashlib.sha256(_read(os.path.join(model, name))).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def copy_tree(source: str, target: str, last: Iterable[str] = (), but: str | None = None) -> None:
    """Copies a folder between any two file systems; files named in `last` come last, in order, those whose path begins
    with `but` not at all.
    """
    ordered = list(last)
    found = (name for name in _walk(source) if but is None or not name.startswith(but))
    names = sorted(found, key=lambda name: (ordered.index(name) + 1 if name in ordered else 0, name))
    source_files = file_system(source)
    for name in names:
        destination = os.path.join(target, name)
        with source_files.open(os.path.join(source, name)) as reader, create(destination) as writer:
            shutil.copyfileobj(reader, writer, _CHUNK)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A version's folder, copied to this machine for a while where it lies elsewhere: TensorFlow reads no s3://."""
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(path, folder)
        yield folder


def _object_store() -> "BeamFiles":
    from components.storage.beam_files import BeamFiles  # takes seconds

    return BeamFiles()


def require_served(serving_dir: str, expected: int) -> None:
    """Makes sure that what is served is still what somebody saw who decided to change it; ask this under the lock.

    Args:
        serving_dir: Folder of the versions.
        expected: The version that was served then; 0 is none.

    Raises:
        WorkspaceBusy: Another version is served now.
    """
    newest = served(serving_dir)
    now = newest.version if newest else 0
    if now != expected:
        is_now, was = (f"version {number}" if number else "nothing" for number in (now, expected))
        raise WorkspaceBusy(
            f"{serving_dir}: {is_now} is served now, but this change was decided when {was} was; run again to decide "
            "it anew"
        )


def publish(
    model: str,
    serving_dir: str,
    class_names: list[str],
    extra: dict[str, bytes],
    above: int = 0,
    expected_served: int | None = None,
) -> Published:
    """Publishes a SavedModel as the next version.

    Args:
        model: Folder of the SavedModel.
        serving_dir: Folder of the versions; made if absent.
        class_names: In the order of the class ids.
        extra: Further files to put into the version: relative path, below `EXTRA` -> content.
        above: A version that was there once, whose number and those before it are not given again.
        expected_served: The version over which this one was decided to be better, 0 for none; None publishes over
            any.

    Raises:
        WorkspaceBusy: Another version than the expected one is served by now.
        WorkspaceError: The copy differs from the original, or the version appeared meanwhile.
    """
    with changing(serving_dir):
        if expected_served is not None:
            require_served(serving_dir, expected_served)
        record = Record(
            version=_next_version(serving_dir, above),
            model_fingerprint=model_fingerprint(model),
            class_names=class_names,
            published_at=datetime.now(UTC),
            source=model,
        )
        return _put(model, serving_dir, record, extra)


def republish(earlier: Published, serving_dir: str, rollback_of: int, reason: str = "") -> Published:
    """Publishes an earlier version once more, as the next one, with every file that it has.

    Raises:
        WorkspaceError: It is damaged, the copy differs from it, or the new version appeared meanwhile.
    """
    with changing(serving_dir):
        if model_fingerprint(earlier.path) != earlier.record.model_fingerprint:
            raise WorkspaceError(f"{earlier.path}: damaged: this is not the model that was published as this version")
        changes = {
            "version": _next_version(serving_dir),
            "published_at": datetime.now(UTC),
            "restored_from": earlier.record.first_version,
            "rollback_of": rollback_of,
            "rollback_reason": reason,
        }
        return _put(earlier.path, serving_dir, earlier.record.model_copy(update=changes), {})


def _put(model: str, serving_dir: str, record: Record, extra: dict[str, bytes]) -> Published:
    target = os.path.join(serving_dir, str(record.version))
    put = _put_local if is_local(serving_dir) else _put_remote
    put(model, target, {**extra, RECORD: record.model_dump_json(indent=2).encode()})
    return Published(record.version, target, record)


def _next_version(serving_dir: str, above: int = 0) -> int:
    """One above every version that is there, complete or not."""
    taken = [int(name) for name in file_system(serving_dir).list(serving_dir) if name.isdecimal()]
    return max([above, *taken]) + 1


def _put_local(model: str, target: str, extra: dict[str, bytes]) -> None:
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    for left_over in Path(parent).glob(_STAGING + "*"):
        shutil.rmtree(left_over)
    staging = tempfile.mkdtemp(prefix=_STAGING, dir=parent)
    try:
        os.chmod(staging, 0o755)  # noqa: S103  # mkdtemp made it private; a server under another account reads it
        with naming(target):
            copy_tree(model, staging)
            for name, content in extra.items():
                path = Path(staging, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            _flush_tree(staging)
            _rename_to_new(staging, target)
            flush(parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _rename_to_new(staging: str, target: str) -> None:
    try:
        os.rename(staging, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise WorkspaceError(f"{target}: another process published this version meanwhile; run again") from None
        raise


def _flush_tree(folder: str) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(os.path.join(parent, name))
        flush(parent)


def _put_remote(model: str, target: str, extra: dict[str, bytes]) -> None:
    for name, content in extra.items():
        if name != RECORD:
            _write_remote(os.path.join(target, name), content)
    copy_tree(model, target, last=[SAVED_MODEL], but=RECORD)
    for name in _walk(model):
        if name != RECORD and _read(os.path.join(model, name)) != _read(os.path.join(target, name)):
            raise WorkspaceError(f"{target}/{name}: differs from {model}/{name} after the upload; not published")
    _write_remote(os.path.join(target, RECORD), extra[RECORD])


def _write_remote(path: str, content: bytes) -> None:
    with create(path) as file:
        file.write(content)


def prune(serving_dir: str, keep: int) -> list[int]:
    """Removes the oldest versions until `keep` are left; the served one and pinned ones are never removed.

    A version vanishes at once (renamed; on an object store, its record goes first), so that no reader picks one that
    is being removed.

    Returns:
        The versions removed.

    Raises:
        WorkspaceError: What is pinned cannot be read; nothing is removed.
    """
    with changing(serving_dir):
        pins = pinned(serving_dir)
        doomed = [version for version in published(serving_dir)[: -max(keep, 1)] if version.version not in pins]
        for version in doomed:
            _remove(version, serving_dir)
    return [version.version for version in doomed]


def _remove(version: Published, serving_dir: str) -> None:
    if is_local(version.path):
        removed = os.path.join(serving_dir, f"{_STAGING}removed-{version.version}")
        os.rename(version.path, removed)
        shutil.rmtree(removed)
    else:
        _object_store().delete(os.path.join(version.path, RECORD))
        _object_store().delete(version.path + "/")
