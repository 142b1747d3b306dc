"""A configuration file to start from, with the label map of an inspected dataset to edit."""

from pathlib import Path

import yaml

from data.errors import ConfigError
from data.features import IGNORE_LABEL
from pipeline.inspection.findings import Inspection
from pipeline.inspection.proposal import Proposal, label_map_yaml, scalar_yaml

HEAD = (
    "# Written by `local_runner.py inspect`. Check the label map, then train with",
    "#   python local_runner.py run --config FILE",
    "# Only differences from the defaults stand here; the sections model, training and others may follow.",
)
STATED = ("The classes in the order of their ids 0, 1, 2, ..., as the dataset states them.",)
PROPOSED = (
    "PROPOSED from the masks; nobody has stated it. Classes get the ids 0, 1, 2, ... in this order.",
    "Give each class its name. Several values in one class merge them: values: [3, 4].",
    "What counts neither in training nor in evaluation goes to ignore_values (or ignore_colors);",
    f"{IGNORE_LABEL} often means void. A value that stands nowhere here is reported as an error.",
)


def write_config(found: Inspection, path: Path) -> None:
    """Writes the `data` section: the dataset's path and its label map. Settings that differ from defaults are kept.

    Raises:
        ConfigError: The file exists, or cannot be written.
    """
    text = "\n".join([*HEAD, "data:", *(f"  {line}" for line in _data_section(found))])
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
        mode="json", exclude_defaults=True, exclude={"path", "layout", "label_map", "images", "masks"}
    )
    kept |= {f"{split}_fraction": share for split, share in (found.fractions or {}).items()}
    return [
        f"path: {scalar_yaml(folder)}",
        f"layout: {found.layout}",
        *(f"{key}: {scalar_yaml(text)}" for key, text in zip(("images", "masks"), found.patterns or (), strict=False)),
        *(yaml.safe_dump(kept).splitlines() if kept else ()),
        *(f"# {line}" for line in _explanation(proposal)),
        *label_map_yaml(found.labels, proposal.masks if proposal else {}).splitlines(),
    ]


def _explanation(proposal: Proposal | None) -> tuple[str, ...]:
    if proposal is None:
        return STATED
    return (*PROPOSED, proposal.doubt) if proposal.binary else PROPOSED
