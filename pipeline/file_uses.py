"""`lineage --data FILE`: which pushed versions came from a picture.

`FileUses` is a stable interface; other tools may rely on its JSON. Imports nothing of TFX.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from ml_metadata.metadata_store import MetadataStore
from pydantic import BaseModel

from components.files import file_system
from components.serving_directory import all_published
from data.errors import WorkspaceError
from data.manifest import ImageFile, digests, read_manifest
from data.spans import has_pattern, parse_pattern
from pipeline.lineage import SCHEMA_VERSION, Push, pushes
from pipeline.provenance import Provenance, Step, ingests, json_object, properties, served_version


class FileUse(BaseModel):
    """A pushed version that came from a file."""

    model: str
    version: int
    split: Literal["train", "val", "test"]
    """train: it was fitted to the file; val: selected by it; test: judged on it."""
    key: str
    """Path of the file in the dataset, as it was then."""
    matched_by: Literal["content", "path"]
    """'path': only the path is the same; the content was another."""
    through: int | None = None
    """The version from whose weights training started, and of which all this holds; None: it holds of this version."""
    restored_from: int | None = None
    """The version that a rollback published once more under this number, and of which all this holds."""


class FileUses(BaseModel):
    """Which pushed versions came from a file."""

    schema_version: int = SCHEMA_VERSION
    file: str
    uses: list[FileUse]
    unknown: list[str]
    """`model/version` of those whose examples hold no manifest, or are gone."""


def file_uses(store: MetadataStore, file: Path) -> FileUses:
    """Which pushed versions came from an image file, by its content, or else by its path in the dataset.

    Raises:
        WorkspaceError: It is a folder; or it is not there, and no version used its path.
    """
    if file.is_dir():
        raise WorkspaceError(f"{file}: is a folder; name one picture")
    known = pushes(store)
    provenance = Provenance(store, [push.artifact_id for push in known])
    wanted = digests(file.read_bytes()) if file.exists() else set()
    found: dict[int, list[tuple[ImageFile, Literal["content", "path"]]] | None] = {}
    uses: dict[str, list[FileUse]] = {}
    unknown = []
    for push in known:
        own: list[FileUse] = []
        for step in provenance.behind(push.artifact_id):
            if not ingests(step, provenance):
                continue
            if step.execution.id not in found:
                found[step.execution.id] = _search(step, provenance, file.absolute(), wanted)
            matches = found[step.execution.id]
            if matches is None:
                unknown.append(f"{push.model}/{push.version}")
            own += [_use(push, entry, how) for entry, how in matches or []]
        uses[push.path] = own or _inherited(push, uses, provenance)
    every = [use for found in uses.values() for use in found]
    if not every and not file.exists():
        unclear = f"; not known of: {', '.join(unknown)}" if unknown else ""
        raise WorkspaceError(f"{file}: no such file, and no version used this path{unclear}")
    return FileUses(file=str(file), uses=every, unknown=unknown)


def with_restored(found: FileUses, serving: Path) -> FileUses:
    """The same, and what rollbacks published of these versions again; of those that are there still."""
    again = [
        use.model_copy(update={"version": version.version, "restored_from": use.version})
        for folder in sorted(serving.glob("*"))
        for version in all_published(str(folder))
        for use in found.uses
        if (use.model, use.version) == (folder.name, version.record.restored_from)
    ]
    return found.model_copy(update={"uses": [*found.uses, *again]})


def _inherited(push: Push, uses: Mapping[str, list[FileUse]], provenance: Provenance) -> list[FileUse]:
    """What a version has of a file because its training started from another version, which learned from the file."""
    pusher = provenance.maker(push.artifact_id)
    trainer = provenance.maker(pusher.inputs["model"][0]) if pusher else None
    start = served_version(trainer, "base_model", provenance) if trainer else None
    if trainer is None or start is None:
        return []
    # Where a rollback had published it, its files stand under the version that it restored.
    first = properties(provenance.artifacts[trainer.inputs["base_model"][0]]).get("first_version", start)
    learned = [use for use in uses.get(str(PurePosixPath(push.path).with_name(str(first))), []) if use.split != "test"]
    return [use.model_copy(update={"version": push.version, "through": start}) for use in learned]


def _use(push: Push, entry: ImageFile, how: Literal["content", "path"]) -> FileUse:
    return FileUse.model_validate(
        {"model": push.model, "version": push.version, "split": entry.split, "key": entry.key, "matched_by": how}
    )


def _search(
    step: Step, provenance: Provenance, file: Path, wanted: set[str]
) -> list[tuple[ImageFile, Literal["content", "path"]]] | None:
    """The entries of an ingestion that are the file; None where it left no manifest."""
    path = str(json_object(properties(step.execution).get("config"))["path"])
    root = parse_pattern(path).root if has_pattern(path) else path
    below = str(file.relative_to(root)) if file.is_relative_to(root) else None
    found: list[tuple[ImageFile, Literal["content", "path"]]] = []
    for examples in step.outputs["examples"]:
        uri = provenance.artifacts[examples].uri
        try:
            for entry in read_manifest(uri, file_system(uri)):
                if entry.sha256 in wanted:
                    found.append((entry, "content"))
                elif entry.key == below:
                    found.append((entry, "path"))
        except FileNotFoundError:
            return None
    return found
