"""What the Trainer is told: one typed object, whose JSON is recorded."""

from components.training.trainer import TrainerConfig
from data.config import AugmentConfig, InputConfig, PreprocessConfig
from data.labels import ClassLabel, LabelMap
from models.config import InferenceConfig, ModelConfig, TrainingConfig


def config(training: TrainingConfig, checkpoints: str = "", **sections: InferenceConfig) -> TrainerConfig:
    return TrainerConfig(
        model=ModelConfig(),
        training=training,
        augment=AugmentConfig(),
        input=InputConfig(),
        preprocess=PreprocessConfig(),
        label_map=LabelMap(classes=(ClassLabel(name="sky"),)),
        checkpoints=checkpoints,
        **sections,
    )


def test_warm_up_and_ramps_keep_their_share_of_a_shorter_training() -> None:
    whole = config(TrainingConfig(steps=1000, warmup_steps=100, loss={"ohem_ramp_steps": 500}))
    short = whole.with_steps(50).training
    assert (short.steps, short.warmup_steps, short.loss.ohem_ramp_steps) == (50, 5, 25)


def test_it_survives_the_way_through_json_with_the_hash_of_the_code() -> None:
    given = config(TrainingConfig(steps=7), inference=InferenceConfig(flip=True))
    assert len(given.code_hash) == 16
    assert TrainerConfig.model_validate_json(given.model_dump_json()) == given


def test_another_way_to_predict_uses_the_checkpoints_of_the_same_training(tmp_path) -> None:
    plain = config(TrainingConfig(), str(tmp_path))
    mirrored = config(TrainingConfig(), str(tmp_path), inference=InferenceConfig(flip=True))
    longer = config(TrainingConfig(steps=TrainingConfig().steps + 1), str(tmp_path))
    assert plain.checkpoint_folder(["a"]) == mirrored.checkpoint_folder(["a"])
    assert len({made.checkpoint_folder(["a"]) for made in (plain, longer)} | {plain.checkpoint_folder(["b"])}) == 3
