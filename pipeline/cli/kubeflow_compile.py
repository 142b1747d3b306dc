"""The commands `compile` and `tfjob` of `kubeflow_runner.py`.

Importing this module must stay fast: modules that import TensorFlow or TFX are imported inside the functions, under
`quietly`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from data.errors import ConfigError, DataError
from pipeline.cli.application import quietly

if TYPE_CHECKING:
    from pipeline.config import Config


def resolved_config(path: Path | None, overrides: Sequence[str]) -> Config:
    """The configuration with layout and label map; reads the dataset only if the configuration lacks one of them.

    Raises:
        ConfigError: The dataset is needed, but cannot be read from this machine.
    """
    from pipeline.config import load_config, resolve

    config = load_config(path, overrides)
    if config.data.layout != "auto" and config.data.label_map is not None:
        return config
    from components.storage.file_systems import file_system

    try:
        return resolve(config, file_system(config.data.path))
    except (DataError, OSError) as error:
        missing = " and ".join(
            key
            for key, known in (
                ("data.layout", config.data.layout != "auto"),
                ("data.label_map", config.data.label_map is not None),
            )
            if not known
        )
        raise ConfigError(
            f"{error}\n{missing} must be set if the dataset cannot be read from the machine that compiles; run "
            "`python local_runner.py inspect DIR --write-config FILE` where it can be read, and compile with that file"
        ) from error


def compile_to(
    out: Path, config: Config, *, image: str, pipeline_root: str, serving: str, checkpoints: str, verbose: bool
) -> None:
    """Compiles a resolved configuration to a file, and prints what was compiled and the parameters of its runs."""
    with quietly(verbose):
        from pipeline.kubeflow.compiler import compile_pipeline

        compiled = compile_pipeline(
            config, image=image, pipeline_root=pipeline_root, serving=serving, checkpoints=checkpoints
        )
    compiled.write(out)
    console = Console()
    steps = len(compiled.spec["root"]["dag"]["tasks"])
    console.print(f"wrote {out}: {steps} steps of image {image}, artifacts in {pipeline_root}", markup=False)
    for name, declared in compiled.spec["root"]["inputDefinitions"]["parameters"].items():
        console.print(f"  {name}={declared['defaultValue']}", markup=False, highlight=False)


def compile_command(
    config_path: Path | None,
    overrides: Sequence[str],
    out: Path,
    *,
    image: str,
    pipeline_root: str,
    serving: str,
    checkpoints: str,
    verbose: bool,
) -> None:
    """`compile`: writes the pipeline for a Kubeflow Pipelines server, and reports folders that are not on a volume."""
    config = resolved_config(config_path, overrides)
    compile_to(
        out,
        config,
        image=image,
        pipeline_root=pipeline_root,
        serving=serving,
        checkpoints=checkpoints,
        verbose=verbose,
    )
    from pipeline.kubeflow.places import places_on_no_volume

    for note in places_on_no_volume(config, serving, checkpoints):
        Console().print(f"note: {note}", markup=False, highlight=False)


def tfjob_command(
    config_path: Path | None,
    overrides: Sequence[str],
    out: Path,
    *,
    image: str,
    examples: str,
    model: str,
    checkpoints: str,
    verbose: bool,
) -> None:
    """`tfjob`: writes a manifest that trains on several pods."""
    config = resolved_config(config_path, overrides)
    with quietly(verbose):
        from pipeline.kubeflow.training_job import Places, write_training_job

        write_training_job(config, image, Places(examples, model, checkpoints), out)
    Console().print(
        f"wrote {out}: {config.kubeflow.training_job.workers} workers; never run on a cluster", markup=False
    )
