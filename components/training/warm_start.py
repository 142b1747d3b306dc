"""WarmStart: the model that a training starts from, chosen when the data or the configuration have changed.

The Trainer does not start from `ServedModel`'s output, because a stage's inputs are part of its cache key: it would
run again after each push, on the same data, from its own model. The inputs of this stage are those of the Trainer, and
which model is served is not one of them. So it reads the serving directory only when the Trainer has to run anyway.
"""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts

from components.function_component import function_component
from components.publishing.directory import served
from components.publishing.served_model import copy_version


@function_component()
def WarmStart(
    examples: InputArtifact[standard_artifacts.Examples],
    model: OutputArtifact[standard_artifacts.Model],
    serving_dir: Parameter[str],
    custom_config: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Copies the served model, or marks its output absent; `examples` and `custom_config` are the Trainer's."""
    copy_version(served(serving_dir), model)
