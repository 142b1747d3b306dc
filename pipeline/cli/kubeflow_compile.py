"""`compile` and `tfjob`: the pipeline, or its training alone, as a file for a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from data.errors import ConfigError, DataError
from pipeline.cli.application import ConfigOption, SetOption, VerboseOption, quietly

if TYPE_CHECKING:
    from pipeline.config import Config

ImageOption = Annotated[str, typer.Option("--image", envvar="DEEPLAB_IMAGE", help="Container image of every step.")]

DEFAULT_CHECKPOINTS = "/tmp/checkpoints"  # noqa: S108  # in a container, whose files go with it


def resolved_config(paths: Sequence[Path], overrides: Sequence[str]) -> Config:
    """The configuration with layout and label map; looks at the dataset only if it does not say both.

    Raises:
        ConfigError: It would have to look, and cannot from this machine.
    """
    from pipeline.config import load_config, resolve

    config = load_config(paths, overrides)
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


def compile_(
    image: ImageOption,
    pipeline_root: Annotated[
        str,
        typer.Option("--pipeline-root", envvar="DEEPLAB_PIPELINE_ROOT", help="gs://, s3:// or minio:// of artifacts."),
    ],
    serving: Annotated[
        str, typer.Option("--serving", help="Serving directory: gs://, s3://, or a folder on a mounted volume.")
    ],
    config: ConfigOption = None,
    set_: SetOption = None,
    checkpoints: Annotated[
        str, typer.Option("--checkpoints", help="Folder of checkpoints; on a mounted volume it outlives the pod.")
    ] = DEFAULT_CHECKPOINTS,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")] = Path("pipeline.yaml"),
    verbose: VerboseOption = False,
) -> None:
    """Compile the pipeline to a spec for Kubeflow Pipelines, with its Kubernetes settings."""
    from pipeline.workspace import check_artifact_path

    check_artifact_path("--pipeline-root", pipeline_root)
    check_artifact_path("--checkpoints", checkpoints)
    resolved = resolved_config(config or [], set_ or [])
    compile_to(
        out,
        resolved,
        image=image,
        pipeline_root=pipeline_root,
        serving=serving,
        checkpoints=checkpoints,
        verbose=verbose,
    )
    from pipeline.kubeflow.compiler import paths_on_no_volume

    for note in paths_on_no_volume(resolved, serving, checkpoints):
        Console().print(f"note: {note}", markup=False, highlight=False)


def tfjob(
    image: ImageOption,
    examples: Annotated[str, typer.Option("--examples", help="Folder of Transform's transformed examples.")],
    model: Annotated[str, typer.Option("--model", help="Folder for the trained model.")],
    checkpoints: Annotated[str, typer.Option("--checkpoints", help="Folder that all pods share.")],
    config: ConfigOption = None,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")] = Path("tfjob.yaml"),
    verbose: VerboseOption = False,
) -> None:
    """Render a Training Operator job that trains on several pods (never run on a cluster)."""
    from pipeline.workspace import check_artifact_path

    check_artifact_path("--examples", examples)
    check_artifact_path("--checkpoints", checkpoints)
    resolved = resolved_config(config or [], set_ or [])
    with quietly(verbose):
        from pipeline.kubeflow.training_job import JobFolders, write_training_job

        write_training_job(resolved, image, JobFolders(examples, model, checkpoints), out)
    workers = resolved.kubeflow.training_job.workers
    Console().print(f"wrote {out}: {workers} workers; never run on a cluster", markup=False)
