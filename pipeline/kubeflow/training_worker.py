"""Trains outside the pipeline, as one of several workers: what each pod of a Training Operator job runs.

    python -m pipeline.kubeflow.training_worker --examples DIR --model DIR --config JSON

It calls the pipeline's own training function (`components.training.trainer.run_fn`) with what TFX's Trainer would
hand over.
Which worker it is it learns from TF_CONFIG, which the operator sets.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.utils import path_utils

from components.training.trainer import run_fn
from data.errors import ProjectError, exit_status, explain
from data.layouts.base import SPLITS


def training_arguments(examples: str, model: str, custom_config: str) -> FnArgs:
    """What TFX's Trainer hands to the training function.

    Args:
        examples: Folder of Transform's transformed examples, one folder for each split in it.
        model: Folder of a Model artifact; the curves go to `run` in it.
        custom_config: JSON of a `components.training.trainer.TrainerConfig`.
    """
    train, val, _ = SPLITS
    return FnArgs(
        train_files=[os.path.join(examples, f"Split-{train}", "*")],
        eval_files=[os.path.join(examples, f"Split-{val}", "*")],
        serving_model_dir=path_utils.serving_model_dir(model),
        model_run_dir=os.path.join(model, "run"),
        custom_config=json.loads(custom_config),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit status."""
    parser = argparse.ArgumentParser("python -m pipeline.kubeflow.training_worker", allow_abbrev=False)
    parser.add_argument("--examples", required=True, help="folder of Transform's transformed examples")
    parser.add_argument("--model", required=True, help="folder for the model")
    parser.add_argument("--config", required=True, help="JSON of the training's configuration")
    arguments = parser.parse_args(argv)
    try:
        run_fn(training_arguments(arguments.examples, arguments.model, arguments.config))
    except (ProjectError, OSError) as error:
        if not (explanation := explain(error)):
            raise
        sys.stderr.write(f"error: {explanation}\n")
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
