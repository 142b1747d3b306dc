"""Artifact types of this pipeline beside TFX's standard ones, and custom properties that it sets on those."""

from tfx.types.artifact import Artifact

#: Properties of ModelPusher's PushedModel: whether it pushed, and the version's folder and number. TFX's Pusher sets
#: them, too.
PUSHED = "pushed"
PUSHED_DESTINATION = "pushed_destination"
PUSHED_VERSION = "pushed_version"

#: Property of InfraCheck's InfraBlessing: 1 if the model serves.
INFRA_BLESSED = "blessed"

#: Property of a PushedModel and of an InfraBlessing: why the model was not pushed, or does not serve.
REASON = "reason"

#: Properties of a Model that is a copy of a served version: whether there is one, its number, and the number under
#: which its model was first pushed.
PRESENT = "present"
COPIED_VERSION = "version"
COPIED_FIRST_VERSION = "first_version"

#: Properties of ServedModel's Model: the version that was served when the run looked, comparable or not (0 is none),
#: and the highest one that was ever pushed.
SERVED_VERSION = "served_version"
HIGHEST_PUSHED = "highest_pushed_version"


class Quarantine(Artifact):
    """The images that ExampleGen left out, with their reasons.

    `bad.jsonl-*`: one JSON object a line, {"path", "reason"}; `counts.json`: images per split and per reason.
    """

    TYPE_NAME = "deeplab.Quarantine"  # Kubeflow wants a namespace before the names of types that are not its own.


class Spans(Artifact):
    """The spans that a run read.

    `spans.json`: a `components.spans.records.WindowRecord`; `pictures/<span>.parquet`: the scalar columns of the images
    of each span that is compared.
    """

    TYPE_NAME = "deeplab.Spans"


class Drift(Artifact):
    """How the newest span differs from those before it.

    `drift.json`: a `components.spans.drift.DriftRecord`; `statistics.pb`: TFDV's statistics, one data set for each
    span.
    """

    TYPE_NAME = "deeplab.Drift"


class LiteModels(Artifact):
    """LiteRT models converted from a SavedModel.

    `lite.json`: a `components.targets.lite_record.LiteRecord`; `<variant>.tflite`; the files of the browser page.
    """

    TYPE_NAME = "deeplab.LiteModels"


class HubModels(Artifact):
    """TensorFlow Hub modules made from a SavedModel.

    `hub.json`: a `components.targets.hub_record.HubRecord`; `<module>/`: a SavedModel.
    """

    TYPE_NAME = "deeplab.HubModels"


class RunFolder(Artifact):
    """The record of a run on Kubeflow.

    `summary.json`, `report.html`, `model_card.md`, `model_card.html`, as in the folder of a local run.
    """

    TYPE_NAME = "deeplab.RunFolder"


class HtmlPage(Artifact):
    """One HTML file, which Kubeflow's pages show; the artifact is the file itself rather than a folder."""

    TYPE_NAME = "system.HTML"


class MarkdownPage(Artifact):
    """One Markdown file, which Kubeflow's pages show; the artifact is the file itself rather than a folder."""

    TYPE_NAME = "system.Markdown"
