"""Artifact types of this pipeline beside TFX's standard ones, and what it notes on one of these."""

from tfx.types.artifact import Artifact

#: Custom properties of the PushedModel artifact. The first three are those that TFX's own Pusher writes.
PUSHED = "pushed"
DESTINATION = "pushed_destination"
VERSION = "pushed_version"
REASON = "reason"


class Quarantine(Artifact):
    """What ExampleGen set aside.

    `bad.jsonl-*`: one JSON object a line, {"path", "reason"}; `counts.json`: images per split and per reason.
    """

    TYPE_NAME = "deeplab.Quarantine"  # Kubeflow wants a namespace before the names of types that are not its own.


class Spans(Artifact):
    """The spans that a run looked at.

    `spans.json`: a `components.spans.records.WindowRecord`; `pictures/<span>.parquet`: the scalar columns of the
    images of each span that is compared.
    """

    TYPE_NAME = "deeplab.Spans"


class Drift(Artifact):
    """How the newest span differs from those before it.

    `drift.json`: a `components.spans.drift.DriftRecord`; `statistics.pb`: TFDV's statistics, one data set for each
    span.
    """

    TYPE_NAME = "deeplab.Drift"


class LiteModels(Artifact):
    """LiteRT models made of a SavedModel.

    `lite.json`: a `components.targets.lite_record.LiteRecord`; `<variant>.tflite`; the files of the browser page.
    """

    TYPE_NAME = "deeplab.LiteModels"


class HubModels(Artifact):
    """TensorFlow Hub modules made of a SavedModel.

    `hub.json`: a `components.targets.hub_record.HubRecord`; `<module>/`: a SavedModel.
    """

    TYPE_NAME = "deeplab.HubModels"


class RunFolder(Artifact):
    """What a run on Kubeflow came to.

    `summary.json`, `report.html`, `model_card.md`, `model_card.html`, as in the folder of a local run.
    """

    TYPE_NAME = "deeplab.RunFolder"


class HtmlPage(Artifact):
    """One HTML file, which Kubeflow's pages show; the artifact is the file, not a folder."""

    TYPE_NAME = "system.HTML"


class MarkdownPage(Artifact):
    """One Markdown file, which Kubeflow's pages show; the artifact is the file, not a folder."""

    TYPE_NAME = "system.Markdown"
