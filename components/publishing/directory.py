"""The serving directory: `<serving>/<model name>/<version>/`, as TensorFlow Serving polls it.

Versions appear atomically. On a POSIX file system a version is staged beside the others, flushed to disk and renamed.
An object store has no rename: there the files are uploaded and verified, `saved_model.pb` last, and at the very end
the record `PUBLISHED`, which every reader in this project waits for. Versions are numbered 1, 2, 3, ... rather than by
time, so that a clock that jumps back cannot make an old model the newest.
"""

import errno
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from components.publishing.lock import serving_lock
from components.publishing.pins_and_blocklist import blocked, pinned
from components.storage.atomic import annotate_errors, flush, remove, write_small
from components.storage.file_systems import file_system, is_local, read_file
from components.storage.trees import content_fingerprint, copy_tree, file_names, remove_tree
from data.errors import WorkspaceBusy, WorkspaceError
from data.section import first_problem

RECORD = "PUBLISHED"
SAVED_MODEL = "saved_model.pb"
#: Where files beside the model are in a version, as TensorFlow Serving expects; they are not part of the model.
EXTRA = "assets.extra/"
#: A TFRecord file of PredictionLog protos.
WARMUP_FILE = f"{EXTRA}tf_serving_warmup_requests"
_STAGING = ".staging-"


class Record(BaseModel):
    """The content of `PUBLISHED`: where a version comes from."""

    model_config = ConfigDict(frozen=True)

    version: int
    model_fingerprint: str
    """Fingerprint of the SavedModel as the Trainer exported it: the same when a model is pushed twice."""
    class_names: list[str]
    published_at: datetime
    source: str = ""
    """URI of the model artifact."""
    restored_from: int | None = None
    """The version as which this model was first pushed, if a rollback published it again."""
    rollback_of: int | None = None
    """The version that this rollback replaced."""
    rollback_reason: str = ""
    """The operator's reason for the rollback."""

    @property
    def first_version(self) -> int:
        """The version as which this model was first pushed."""
        return self.version if self.restored_from is None else self.restored_from


class ModelVersion(NamedTuple):
    """A complete version in the serving directory."""

    version: int
    path: str
    record: Record


class DamagedVersion(NamedTuple):
    """A published version whose record is damaged or cannot be read."""

    version: int
    path: str
    error: str


Version = ModelVersion | DamagedVersion


def versions(serving_dir: str) -> list[Version]:
    """All versions that were published, oldest first, without incomplete ones and other files."""
    files = file_system(serving_dir)
    found: list[Version] = []
    for name in files.list(serving_dir):
        if name.isdecimal():
            path = files.join(serving_dir, name)
            try:
                found.append(ModelVersion(int(name), path, _read_record(files.join(path, RECORD))))
            except WorkspaceError as error:
                found.append(DamagedVersion(int(name), path, str(error)))
            except (FileNotFoundError, NotADirectoryError):
                if not files.exists(path):  # Pruned since the listing, which may lack newer versions.
                    return versions(serving_dir)
    return sorted(found, key=lambda version: version.version)


def _read_record(path: str) -> Record:
    try:
        return Record.model_validate_json(read_file(path))
    except ValidationError as error:
        raise WorkspaceError(
            f"{path}: damaged record of a published version: {first_problem(error)}. Restore the file, or remove the "
            "version's folder"
        ) from None
    except (IsADirectoryError, PermissionError) as error:
        raise WorkspaceError(f"{path}: the record of a published version cannot be read: {error.strerror}") from None


def load_record(version: Version) -> ModelVersion:
    """The version with its record.

    Raises:
        WorkspaceError: The record is damaged; names the file.
    """
    if isinstance(version, DamagedVersion):
        raise WorkspaceError(version.error)
    return version


def published(serving_dir: str) -> list[ModelVersion]:
    """All complete versions, oldest first, without those whose record is damaged."""
    return [version for version in versions(serving_dir) if isinstance(version, ModelVersion)]


def all_published(serving_dir: str) -> list[ModelVersion]:
    """All complete versions, oldest first, for callers that must not miss one.

    Raises:
        WorkspaceError: The record of a version is damaged.
    """
    return [load_record(version) for version in versions(serving_dir)]


def served(serving_dir: str) -> ModelVersion | None:
    """The version that a server would load, which is the highest complete one; None if there is none.

    Raises:
        WorkspaceError: The record of that version is damaged; records of earlier versions are not read for this.
    """
    found = versions(serving_dir)
    return load_record(found[-1]) if found else None


def state(serving_dir: str) -> str:
    """The served version and the blocked models, as a short string for cache keys."""
    newest = served(serving_dir)
    state = f"{newest.version}:{newest.record.model_fingerprint}" if newest else "none"
    return ",not ".join([state, *sorted(blocked(serving_dir))])


def model_fingerprint(model: str) -> str:
    """SHA-256 over names and contents of a SavedModel's files, without what publishing adds to them."""
    return content_fingerprint(model, exclude=(RECORD, EXTRA))


def require_served(serving_dir: str, expected: int) -> None:
    """Checks that the version is still served that was served when a change was decided; call it under the lock.

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
            f"{serving_dir}: {is_now} is served now, but this change was decided when {was} was; run again to "
            "decide again"
        )


def publish(
    model: str,
    serving_dir: str,
    class_names: list[str],
    extra: dict[str, bytes],
    above: int = 0,
    expected_served: int | None = None,
) -> ModelVersion:
    """Publishes a SavedModel as the next version.

    Args:
        model: Folder of the SavedModel.
        serving_dir: Folder of the versions; made if absent.
        class_names: Names in the order of the class ids.
        extra: Further files to put into the version: relative path, below `EXTRA` -> content.
        above: The highest version that was ever there; the new one gets a higher number.
        expected_served: The version that the model was compared with, 0 for none; None publishes over any version.

    Raises:
        WorkspaceBusy: A version other than the expected one is served now.
        WorkspaceError: The copy differs from the original, or the version appeared meanwhile.
    """
    with serving_lock(serving_dir):
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


def republish(earlier: ModelVersion, serving_dir: str, rollback_of: int, reason: str = "") -> ModelVersion:
    """Publishes an earlier version again, as the next one, with all of its files.

    Raises:
        WorkspaceError: The version is damaged, the copy differs from it, or the new version appeared meanwhile.
    """
    with serving_lock(serving_dir):
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


def _put(model: str, serving_dir: str, record: Record, extra: dict[str, bytes]) -> ModelVersion:
    target = os.path.join(serving_dir, str(record.version))
    put = _put_local if is_local(serving_dir) else _put_remote
    put(model, target, {**extra, RECORD: record.model_dump_json(indent=2).encode()})
    return ModelVersion(record.version, target, record)


def _next_version(serving_dir: str, above: int = 0) -> int:
    """One more than the highest version that is there, complete or not."""
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
        with annotate_errors(target):
            copy_tree(model, staging)
            for name, content in extra.items():
                path = Path(staging, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            for folder, _, names in os.walk(staging):
                for name in names:
                    flush(os.path.join(folder, name))
                flush(folder)
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


def _put_remote(model: str, target: str, extra: dict[str, bytes]) -> None:
    for name, content in extra.items():
        if name != RECORD:
            write_small(os.path.join(target, name), content)
    copy_tree(model, target, exclude=(RECORD,), last=SAVED_MODEL)
    for name in file_names(model):
        if name != RECORD and read_file(os.path.join(model, name)) != read_file(os.path.join(target, name)):
            raise WorkspaceError(f"{target}/{name}: differs from {model}/{name} after the upload; not published")
    write_small(os.path.join(target, RECORD), extra[RECORD])


def prune(serving_dir: str, keep: int) -> list[int]:
    """Removes the oldest versions until `keep` are left; the served one and pinned ones are never removed.

    A version disappears atomically (it is renamed; on an object store, its record is removed first), so that no reader
    loads one that is being removed.

    Returns:
        The versions removed.

    Raises:
        WorkspaceError: The pins cannot be read; nothing is removed.
    """
    with serving_lock(serving_dir):
        pins = pinned(serving_dir)
        doomed = [version for version in published(serving_dir)[: -max(keep, 1)] if version.version not in pins]
        for version in doomed:
            if is_local(version.path):
                removed = os.path.join(serving_dir, f"{_STAGING}removed-{version.version}")
                os.rename(version.path, removed)
                shutil.rmtree(removed)
            else:
                remove(os.path.join(version.path, RECORD))
                remove_tree(version.path)
    return [version.version for version in doomed]
