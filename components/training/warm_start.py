"""WarmStart: the model that a training starts from, chosen when the data or the configuration have changed.

It is not `ServedModel`'s output, for what a stage reads is part of its cache key: the Trainer would run again after
each push, on the same data, from its own model. This stage reads what the Trainer reads, but not which model is
served. So it looks at the serving directory when the Trainer would have to run anyhow, and at no other time.
"""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts

from components.function_component import function_component
from components.publishing import directory as serving_directory
from components.publishing.served_model import copy_served


@function_component()
def WarmStart(
    examples: InputArtifact[standard_artifacts.Examples],
    model: OutputArtifact[standard_artifacts.Model],
    serving_dir: Parameter[str],
    custom_config: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Copies the served model, or marks its output absent; `examples` and `custom_config` are the Trainer's."""
    copy_served(serving_directory.served(serving_dir), model)
