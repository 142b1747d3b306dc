"""Manual decisions about versions: rollback, pins and the blocklist. They are safe while a run is in progress.

The highest version is the one that is served, so an earlier one is published again under a new, higher number. The
model that was rolled back is put on the blocklist: the pipeline, whose evaluation would bless it again, does not push
it.
"""

from pathlib import Path

from components.publishing.directory import ModelVersion, load_record, published, republish, require_served, versions
from components.publishing.lock import serving_lock
from components.publishing.pins_and_blocklist import block, blocked, pin, pinned, unblock, unpin
from components.storage.file_systems import file_system
from data.errors import WorkspaceError


def choose_serving_dir(serving: str, model: str | None) -> str:
    """Finds the serving directory of a model; without a name, that of the only model.

    Args:
        serving: Folder or URI that holds `<model>/<version>/`.
        model: The model's name; None for the only one.

    Raises:
        WorkspaceError: No model was pushed under that name, or several models exist and none is named.
    """
    files = file_system(serving)
    names = sorted(name for name in files.list(serving) if versions(files.join(serving, name)))
    known = ", ".join(names)
    if not names and versions(serving):
        above = serving.rstrip("/").rpartition("/")[0] or "/"
        raise WorkspaceError(f"{serving}: holds the versions of one model; give the folder above it: {above}")
    if not names:
        raise WorkspaceError(f"{serving}: no model is pushed yet")
    if model is None and len(names) > 1:
        raise WorkspaceError(f"{serving}: holds several models; choose one with --model: {known}")
    if model not in (None, *names):
        raise WorkspaceError(f"{serving}: no model {model!r} is pushed yet; there is: {known}")
    return files.join(serving, model or names[0])


def find_version(serving_dir: str, version: int) -> ModelVersion:
    """Finds one version.

    Raises:
        WorkspaceError: The version does not exist, or its record is damaged.
    """
    known = versions(serving_dir)
    found = next((candidate for candidate in known if candidate.version == version), None)
    if found is None:
        there = ", ".join(str(candidate.version) for candidate in known)
        raise WorkspaceError(f"{serving_dir}: there is no version {version}; there is: {there}")
    return load_record(found)


def roll_back(serving_dir: str, to: int | None, reason: str = "") -> ModelVersion:
    """Publishes an earlier version again under a new number, and blocks the model that was served.

    Args:
        serving_dir: The serving directory of one model.
        to: The version to restore; None for the newest whose model is not the served one and was not itself rolled
            back.
        reason: The reason for the rollback; it is reported when the blocked model is not pushed, and is kept in the new
            version's record.

    Raises:
        WorkspaceBusy: Another version was published meanwhile; nothing was changed.
        WorkspaceError: The version does not exist, is already served, or is damaged.
    """
    served = load_record(versions(serving_dir)[-1])
    target = _default_target(serving_dir, served) if to is None else find_version(serving_dir, to)
    fingerprint = served.record.model_fingerprint
    if target.record.model_fingerprint == fingerprint:
        raise WorkspaceError(
            f"{serving_dir}: version {target.version} holds the very model that is served as version {served.version}"
        )
    with serving_lock(serving_dir):
        require_served(serving_dir, served.version)
        # Blocked first: if this process is killed now, no run pushes the model again before the next attempt.
        block(serving_dir, fingerprint, served.version, reason)
        restored = republish(target, serving_dir, rollback_of=served.version, reason=reason)
        unblock(serving_dir, target.record.model_fingerprint)
    return restored


def _default_target(serving_dir: str, served: ModelVersion) -> ModelVersion:
    rejected = {served.record.model_fingerprint, *blocked(serving_dir)}
    earlier = [v for v in published(serving_dir) if v < served and v.record.model_fingerprint not in rejected]
    if not earlier:
        raise WorkspaceError(
            f"{serving_dir}: nothing to go back to: no version before {served.version} holds another model that was "
            "not rolled back itself; push.keep says how many versions stay"
        )
    return earlier[-1]


def unblock_version(serving_dir: str, version: int) -> bool:
    """Removes a version's model from the blocklist; returns whether it was on it."""
    found = next((entry for entry in blocked(serving_dir).values() if entry.version == version), None)
    return found is not None and unblock(serving_dir, found.model_fingerprint)


def restored_version(serving: Path, model: str | None, version: int) -> ModelVersion | None:
    """Finds a version that a rollback published; None if `version` is not one, or several models have one."""
    folders = [serving / model] if model else list(serving.glob("*"))
    found = [known for folder in folders for known in published(str(folder)) if known.version == version]
    return found[0] if len(found) == 1 and found[0].record.restored_from is not None else None


def pin_version(serving_dir: str, version: int) -> None:
    """Keeps a version from being removed."""
    with serving_lock(serving_dir):  # So that no run removes it meanwhile.
        pin(serving_dir, find_version(serving_dir, version).version)


def unpin_version(serving_dir: str, version: int) -> None:
    """Allows a version to be removed when it is due.

    Raises:
        WorkspaceError: The version is not pinned.
    """
    if not unpin(serving_dir, version):
        raise WorkspaceError(f"{serving_dir}: version {version} is not pinned; {pins_text(serving_dir)}")


def pins_text(serving_dir: str) -> str:
    """All pinned versions, as a person reads them."""
    return f"pinned versions: {', '.join(map(str, sorted(pinned(serving_dir)))) or 'none'}"
