"""Lineage as an outline of nested lines, which the terminal and the report page each render in their own way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text
from rich.tree import Tree

from pipeline.metadata.data_lineage import FileUses
from pipeline.metadata.lineage import ArtifactLineage, Lineage

_MEANING = {"train": "trained on it", "val": "selected by it", "test": "evaluated on it"}
_WHY_UNKNOWN = "its examples, or those of a version that it started from, have no list of files or were deleted"


@dataclass
class Outline:
    """One line of text, and the lines below it."""

    text: str
    below: list[Outline] = field(default_factory=list)

    def add(self, text: str) -> Outline:
        """Adds a line below; more can be added below that."""
        self.below.append(Outline(text))
        return self.below[-1]

    def tree(self) -> Tree:
        """The outline as a tree for the terminal. Markup in the text is not interpreted."""
        drawn = Tree(Text(self.text))
        for line in self.below:
            drawn.add(line.tree())
        return drawn


def lineage_outline(found: Lineage) -> Outline:
    """What a version was made from."""
    restored = found.restoration
    if restored is None:
        root = Outline(f"{found.model} version {found.version}: {_place(found.path, removed=found.removed)}")
    else:
        root = Outline(
            f"{found.model} version {restored.version}, which is version {found.version} again: {restored.path}"
        )
        why = f" ({restored.reason})" if restored.reason else ""
        when = f"{restored.published_at:%Y-%m-%d %H:%M:%S %Z}"
        root.add(f"published {when} by the rollback of version {restored.rollback_of}{why}")
    root.add(f"pushed {found.pushed_at:%Y-%m-%d %H:%M:%S %Z} by run {found.run_id} of pipeline {found.pipeline}")
    for data in found.data:
        branch = root.add(f"data: {data.config['path']} (layout {data.config['layout']})")
        _add_artifacts(branch, "examples", [data.examples])
    _add_artifacts(root, "statistics", found.statistics)
    _add_artifacts(root, "validation", found.anomalies)
    _add_artifacts(root, "schema", found.data_schema)
    _add_artifacts(root, "transform graph", found.transform_graph)
    classes = ", ".join(str(label["name"]) for label in found.hyperparameters.get("label_map", {}).get("classes", []))
    _add_values(root.add("hyperparameters"), {**found.hyperparameters, "label_map": classes})
    if found.started_from is not None:
        root.add(f"training started from served version {found.started_from}")
    _add_artifacts(root, "trained model", found.trained_model)
    evaluation = found.evaluation
    branch = root.add("blessed" if evaluation.blessed else "not blessed")
    for reason in evaluation.reasons:
        branch.add(reason)
    compared = evaluation.baseline_version
    branch.add(f"compared with: {'no served model' if compared is None else f'served version {compared}'}")
    branch.add(f"infra check: {'passed' if evaluation.infra_blessed else 'failed'}")
    _add_artifacts(branch, "evaluation", [evaluation.evaluation] if evaluation.evaluation else [])
    stages = root.add("stages as they ran")
    for stage in found.stages:
        code = f"code {stage.code_hash}" if stage.code_hash else "no code hash"
        when = f"{stage.started_at:%Y-%m-%d %H:%M:%S}, {stage.seconds:.1f} s"
        stages.add(f"{stage.name}: {code}, run {stage.run_id}, {when}")
    return root


def uses_outline(found: FileUses) -> Outline:
    """Which versions came from a file."""
    root = Outline(found.file)
    for use in found.uses:
        other = "" if use.matched_by == "content" else "; the path is the same, the content was another"
        through = "" if use.through is None else f"started from version {use.through}, which was "
        through = (
            through if use.restored_from is None else f"is version {use.restored_from} again, {through or 'which was '}"
        )
        where = f"{through}{_MEANING[use.split]} (split {use.split}, as {use.key}{other})"
        root.add(f"{use.model} version {use.version}: {where}")
    # The versions that are still there and may have come from the file.
    unclear = [version for version in found.unknown if version not in found.removed]
    if not found.uses:
        # Only what is known: for removed versions it may be unknown, and then it no longer matters.
        if unclear:
            root.add("no other pushed version came from it")
        else:
            root.add(f"no pushed version{' that is still there' if found.removed else ''} came from it")
        root.add("only images are searched: for a mask or an annotation, ask for its image")
    for version in unclear:
        root.add(f"{version}: not known; {_WHY_UNKNOWN}")
    if found.removed:
        root.add(f"not known for versions that are removed: {', '.join(found.removed)}")
    return root


def _place(path: str, *, removed: bool) -> str:
    return f"{path} (removed)" if removed else path


def _add_artifacts(parent: Outline, name: str, artifacts: Iterable[ArtifactLineage]) -> None:
    for artifact in artifacts:
        branch = parent.add(f"{name}: {_place(artifact.uri, removed=artifact.removed)}")
        _add_values(branch, artifact.properties)


def _add_values(parent: Outline, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        text = ", ".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        parent.add(f"{name}: {text}")
