"""Lineage for people: trees on the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from pipeline.metadata.data_lineage import FileUses
from pipeline.metadata.lineage import ArtifactLineage, Lineage, Restoration, StageLineage

_MEANING = {"train": "trained on it", "val": "selected by it", "test": "judged on it"}
_WHY_UNKNOWN = "its examples, or those of a version that it started from, hold no list of files or are gone"


def lineage_tree(found: Lineage) -> Tree:
    """What stands behind a version."""
    root = Tree(_title(found))
    if found.restoration is not None:
        root.add(_rollback(found.restoration))
    root.add(
        f"pushed {found.pushed_at:%Y-%m-%d %H:%M:%S %Z} by run {found.run_id} of pipeline {escape(found.pipeline)}"
    )
    for data in found.data:
        branch = root.add(f"data: {escape(str(data.config['path']))} (layout {escape(str(data.config['layout']))})")
        _add_artifacts(branch, "examples", [data.examples])
    _add_artifacts(root, "statistics", found.statistics)
    _add_artifacts(root, "validation", found.anomalies)
    _add_artifacts(root, "schema", found.data_schema)
    _add_artifacts(root, "transform graph", found.transform_graph)
    _add_values(root.add("hyperparameters"), _without_labels(found.hyperparameters))
    if found.started_from is not None:
        root.add(f"training started from served version {found.started_from}")
    _add_artifacts(root, "trained model", found.trained_model)
    _add_evaluation(root, found)
    stages = root.add("stages as they ran")
    for stage in found.stages:
        stages.add(_stage(stage))
    return root


def _title(found: Lineage) -> str:
    restored = found.restoration
    if restored is None:
        place = _place(found.path, removed=found.removed)
        return f"[bold]{escape(found.model)} version {found.version}[/bold]: {place}"
    again = f"version {restored.version}[/bold], which is version {found.version} again"
    return f"[bold]{escape(found.model)} {again}: {escape(restored.path)}"


def _place(path: str, *, removed: bool) -> str:
    return f"{escape(path)} (removed)" if removed else escape(path)


def _rollback(restored: Restoration) -> str:
    why = f" ({escape(restored.reason)})" if restored.reason else ""
    when = f"{restored.published_at:%Y-%m-%d %H:%M:%S %Z}"
    return f"published {when} by the rollback of version {restored.rollback_of}{why}"


def uses_tree(found: FileUses) -> Tree:
    """Which versions came from a file."""
    root = Tree(f"[bold]{escape(found.file)}[/bold]")
    for use in found.uses:
        other = "" if use.matched_by == "content" else "; the path is the same, the content was another"
        through = "" if use.through is None else f"started from version {use.through}, which was "
        through = (
            through if use.restored_from is None else f"is version {use.restored_from} again, {through or 'which was '}"
        )
        where = f"{through}{_MEANING[use.split]} (split {use.split}, as {use.key}{other})"
        root.add(escape(f"{use.model} version {use.version}: {where}"))
    if not found.uses:
        root.add(_none_came(found))
        root.add("only pictures are searched: of a mask or an annotation, ask for its picture")
    for version in _unclear(found):
        root.add(escape(f"{version}: not known; {_WHY_UNKNOWN}"))
    if found.removed:
        root.add(escape(f"not known of versions that are removed: {', '.join(found.removed)}"))
    return root


def _none_came(found: FileUses) -> str:
    """No more than is known: of versions that are removed it may not be, and then it no longer matters."""
    if _unclear(found):
        return "no other pushed version came from it"
    return "no pushed version that is still there came from it" if found.removed else "no pushed version came from it"


def _unclear(found: FileUses) -> list[str]:
    """The versions that are still there and may have come from a file."""
    return [version for version in found.unknown if version not in found.removed]


def _add_artifacts(parent: Tree, name: str, artifacts: Iterable[ArtifactLineage]) -> None:
    for artifact in artifacts:
        branch = parent.add(f"{name}: {_place(artifact.uri, removed=artifact.removed)}")
        _add_values(branch, artifact.properties)


def _add_values(parent: Tree, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        text = ", ".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        parent.add(escape(f"{name}: {text}"))


def _without_labels(values: Mapping[str, Any]) -> dict[str, Any]:
    classes = ", ".join(str(label["name"]) for label in values.get("label_map", {}).get("classes", []))
    return {**values, "label_map": classes}


def _add_evaluation(root: Tree, found: Lineage) -> None:
    judged = found.evaluation
    branch = root.add("blessed" if judged.blessed else "not blessed")
    for reason in judged.reasons:
        branch.add(escape(reason))
    served = "none was comparable" if judged.baseline_version is None else f"version {judged.baseline_version}"
    branch.add(f"baseline: {served}")
    branch.add(f"infra check: {'passed' if judged.infra_blessed else 'failed'}")
    _add_artifacts(branch, "evaluation", [judged.evaluation] if judged.evaluation else [])


def _stage(stage: StageLineage) -> str:
    code = f"code {stage.code_hash}" if stage.code_hash else "no code hash"
    when = f"{stage.started_at:%Y-%m-%d %H:%M:%S}, {stage.seconds:.1f} s"
    return escape(f"{stage.name}: {code}, run {stage.run_id}, {when}")
