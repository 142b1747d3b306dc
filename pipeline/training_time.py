"""How long a training takes, as far as it can be told before it begins, and settings that end in reasonable time."""

import math

from data.config import AugmentConfig
from models.config import ModelConfig, TrainingConfig
from pipeline.hardware import has_bfloat16, has_gpu, matrix_speed

#: Images a second at 256x256, in float32 and in mixed bfloat16 on a CPU that has it: docs/performance.md, "Training".
MEASURED = {"mobilenet_v2": (9.5, 11.8), "resnet18": (6.7, 13.2), "resnet50": (2.8, 4.2)}

#: Float32 multiply-adds a second, times two, of the machine on which they were measured: the same document.
MEASURED_PEAK = 290e9

#: A first training on a CPU takes about so long, in seconds.
BUDGET = 20 * 60
#: Passes over the training images that a first training makes.
EPOCHS = 40


def work(training: TrainingConfig, augment: AugmentConfig) -> float:
    """Pixels that a training computes: steps x batch x crop, over both phases of progressive resizing."""
    resizing = augment.progressive_resizing
    before = resizing.after if resizing else 1.0
    pixels = before * math.prod(augment.crop_size)
    pixels += (1 - before) * math.prod(resizing.crop_size) if resizing else 0.0
    return training.steps * training.global_batch_size * pixels


def expected_seconds(model: ModelConfig, training: TrainingConfig, augment: AugmentConfig) -> float | None:
    """The time of a training on this machine, within a factor of about two; None if nothing comparable was measured.

    The measured rate of the network is scaled by the pixels to compute and by this machine's speed in a matrix product.
    """
    if model.backbone not in MEASURED or model.width != 1.0 or has_gpu() or training.strategy != "one_device":
        return None
    rate = MEASURED[model.backbone][training.precision == "mixed_bfloat16" and has_bfloat16()]
    return work(training, augment) / (rate * 256 * 256 * matrix_speed() / MEASURED_PEAK)


def first_settings(images: int, height: int, width: int) -> tuple[TrainingConfig, AugmentConfig, ModelConfig]:
    """Settings for the first training on a dataset, which ends within `BUDGET` on a CPU.

    Args:
        images: number of training images.
        height: median height of the images, in pixels.
        width: median width.
    """
    gpu = has_gpu()
    largest = 512 if gpu else 256
    crop = tuple(min(largest, max(32, side // 32 * 32)) for side in (height, width))
    augment = AugmentConfig(crop=crop)
    batch = max(2, min(16 if gpu else 8, images))
    precision = "mixed_bfloat16" if gpu or has_bfloat16() else "float32"

    def settings(steps: int) -> tuple[TrainingConfig, ModelConfig]:
        training = TrainingConfig(
            steps=steps,
            global_batch_size=batch,
            precision=precision,
            learning_rate=0.003,
            warmup_steps=max(1, steps // 15),
            ema_decay=0.99 if steps >= 500 else 0.0,
            eval_every=max(1, steps // 10),
            checkpoint_every=max(1, steps // 10),
        )
        # The running means must have forgotten their first values well before the end.
        return training, ModelConfig(batch_norm_momentum=round(max(0.5, min(0.99, 1 - 20 / steps)), 3))

    steps = max(200, min(30_000, math.ceil(EPOCHS * images / batch)))
    training, model = settings(steps)
    seconds = expected_seconds(model, training, augment)
    if seconds is not None and seconds > BUDGET:
        training, model = settings(max(200, int(steps * BUDGET / seconds) // 10 * 10))
    return training, augment, model
