"""What the Trainer is told, one typed object whose JSON is recorded, and what it leaves among the checkpoints."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tfx.components.trainer.fn_args_utils import FnArgs

from components.training.trainer import CHECKPOINTS, FINISHED, RESULT_FILE, TrainerConfig, run_fn
from models.config import InferenceConfig, TrainingConfig
from models.export.saved_model import load_description
from tests.components.training.configurations import trainer_config
from tests.components.training.distributed_search import SECTIONS, write_split

STEPS = 2


def test_warm_up_and_ramps_keep_their_share_of_a_shorter_training() -> None:
    whole = trainer_config(TrainingConfig(steps=1000, warmup_steps=100, loss={"ohem_ramp_steps": 500}))
    short = whole.with_steps(50).training
    assert (short.steps, short.warmup_steps, short.loss.ohem_ramp_steps) == (50, 5, 25)


def test_it_survives_the_way_through_json_with_the_hash_of_the_code() -> None:
    given = trainer_config(TrainingConfig(steps=7), inference=InferenceConfig(flip=True))
    assert len(given.code_hash) == 16
    assert TrainerConfig.model_validate_json(given.model_dump_json()) == given


def test_another_way_to_predict_uses_the_checkpoints_of_the_same_training(tmp_path) -> None:
    plain = trainer_config(TrainingConfig(), str(tmp_path))
    mirrored = trainer_config(TrainingConfig(), str(tmp_path), inference=InferenceConfig(flip=True))
    longer = trainer_config(TrainingConfig(steps=TrainingConfig().steps + 1), str(tmp_path))
    assert plain.checkpoint_folder(["a"]) == mirrored.checkpoint_folder(["a"])
    assert len({made.checkpoint_folder(["a"]) for made in (plain, longer)} | {plain.checkpoint_folder(["b"])}) == 3


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_split(tmp_path_factory.mktemp("records") / "records.gz")


def train(records: str, checkpoints: Path, model: Path, **sections: InferenceConfig) -> dict[str, Any]:
    """Trains a tiny network for two steps; what the Trainer says of it."""
    training = TrainingConfig(steps=STEPS, global_batch_size=4, log_every=1, eval_every=STEPS)
    tiny = {name: section for name, section in SECTIONS.items() if name != "tuning"} | {"training": training}
    run_fn(
        FnArgs(
            train_files=[records],
            eval_files=[records],
            serving_model_dir=str(model / "saved"),
            model_run_dir=str(model / "run"),
            custom_config=TrainerConfig(**tiny, **sections, checkpoints=str(checkpoints)).model_dump(mode="json"),
        )
    )
    return json.loads((model / "run" / RESULT_FILE).read_text())


class Trained(NamedTuple):
    """A finished training, in a folder of checkpoints that had other content before."""

    checkpoints: Path
    others: list[Path]
    result: dict[str, Any]

    @property
    def state(self) -> Path:
        """Its last checkpoint."""
        (mark,) = self.checkpoints.glob(f"*/{FINISHED}")
        return mark.parent / CHECKPOINTS / "state" / f"step-{STEPS}.index"


@pytest.fixture(scope="module")
def trained(records: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    checkpoints = folder / "checkpoints" / "streets"
    others = [
        checkpoints / "of-another-training" / CHECKPOINTS / "state" / "step-3.index",
        checkpoints / "a-file",
        checkpoints.parent / "of-another-pipeline" / "training" / CHECKPOINTS / "state" / "step-3.index",
    ]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
    return Trained(checkpoints, others, train(records, checkpoints, folder / "model"))


def test_a_training_leaves_everything_else_in_the_folder_of_checkpoints_alone(trained: Trained) -> None:
    assert trained.result["steps"] == STEPS
    assert all(other.exists() for other in trained.others)
    assert trained.state.exists()


def test_another_way_to_predict_exports_anew_from_the_finished_training(
    trained: Trained, records: str, tmp_path: Path
) -> None:
    saved, folders = trained.state.stat().st_mtime_ns, set(trained.checkpoints.iterdir())

    again = train(records, trained.checkpoints, tmp_path, inference=InferenceConfig(flip=True))

    assert again == trained.result
    assert trained.state.stat().st_mtime_ns == saved and set(trained.checkpoints.iterdir()) == folders
    assert load_description(tmp_path / "saved").inference.flip
