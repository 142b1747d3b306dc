"""A configuration file to start from: the label map of an inspected dataset to edit, and a first training."""

import json
from collections.abc import Iterator
from pathlib import Path

from data.errors import ConfigError
from pipeline.inspection.findings import Inspection
from pipeline.inspection.proposal import label_map_yaml, scalar_yaml
from pipeline.training_time import expected_seconds, first_settings
from pipeline.yaml_text import dump

HEAD = (
    "# Written by `local_runner.py inspect`. Check the label map, then train with",
    "#   python local_runner.py run --config FILE",
    "# Only differences from the defaults stand here; docs/configuration.md has all keys.",
)
STATED = ("The classes in the order of their ids 0, 1, 2, ..., as the dataset states them.",)
PROPOSED = (
    "PROPOSED from the masks; nobody has stated it. Classes get the ids 0, 1, 2, ... in this order.",
    "Give each class its name. Several values in one class merge them: values: [3, 4].",
    "What counts neither in training nor in evaluation goes to ignore_values (or ignore_colors).",
    "A value that stands nowhere here is reported as an error.",
)


def write_config(found: Inspection, path: Path) -> None:
    """Writes the `data` section, and settings for a first training that suit the dataset and this machine.

    Settings of the inspected configuration that differ from the defaults are kept.

    Raises:
        ConfigError: The file exists, or cannot be written.
    """
    text = "\n".join([*HEAD, "data:", *(f"  {line}" for line in _data_section(found)), *_training_sections(found)])
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except FileExistsError:
        raise ConfigError(f"--write-config {path}: the file exists, and is not overwritten; name another") from None
    except OSError as error:
        raise ConfigError(f"--write-config {path}: cannot be written: {error.strerror}") from None


def _data_section(found: Inspection) -> list[str]:
    config, proposal = found.config, found.proposal
    folder = config.path if "://" in config.path else str(Path(config.path).absolute())
    kept = config.model_dump(
        mode="json", exclude_defaults=True, exclude={"path", "layout", "label_map", "images", "masks", "question"}
    )
    kept |= {f"{split}_fraction": share for split, share in (found.fractions or {}).items()}
    question = [
        "# To be answered before a run: correct the label map if need be, and delete the next line.",
        f"question: {scalar_yaml(found.question or '')}",
    ]
    return [
        f"path: {scalar_yaml(folder)}",
        f"layout: {found.layout}",
        *(f"{key}: {scalar_yaml(text)}" for key, text in zip(("images", "masks"), found.patterns or (), strict=False)),
        *(dump(kept).splitlines() if kept else ()),
        *(question if found.question else ()),
        *(f"# {line}" for line in (PROPOSED if proposal else STATED)),
        *(f"# {doubt}" for doubt in (proposal.doubts if proposal else ())),
        *label_map_yaml(found.labels, proposal.masks if proposal else {}).splitlines(),
    ]


def _training_sections(found: Inspection) -> Iterator[str]:
    images = next(split.listed for split in found.splits if split.name == "train")
    training, augment, model = first_settings(images, found.heights[1], found.widths[1])
    seconds = expected_seconds(model, training, augment)
    epochs = training.steps * training.global_batch_size / max(images, 1)
    yield ""
    yield f"# A first training: {training.steps} steps of {training.global_batch_size} crops, {epochs:.0f} epochs."
    if seconds is None:
        yield "# How long it takes on this machine is not known beforehand; the log shows what remains."
    else:
        minutes = max(seconds / 60, 1)
        yield f"# Expected time here: about {minutes:.0f} minutes, within a factor of two. More steps, better masks."
    yield "# initial_weights: imagenet starts from downloaded weights, which helps most where images are few."
    for name, section in (("augment", augment), ("model", model), ("training", training)):
        values = section.model_dump(mode="json", exclude_defaults=True)
        values |= {"initial_weights": training.initial_weights} if section is training else {}
        yield f"{name}:"
        yield from (f"  {key}: {json.dumps(value)}" for key, value in values.items())
