"""Artifact types of this pipeline beside TFX's standard ones."""

from tfx.types.artifact import Artifact


class Quarantine(Artifact):
    """What ExampleGen set aside.

    `bad.jsonl-*`: one JSON object a line, {"path", "reason"}; `counts.json`: images per split and per reason.
    """

    TYPE_NAME = "Quarantine"
