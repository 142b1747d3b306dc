"""Figures of test images: the image, its label, the models' predictions and their errors.

The evaluation's results for each image determine which ones are shown; only these are then predicted.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from tfx.utils import path_utils

from components.artifacts import INFRA_BLESSED
from components.evaluation.results import ImageResult, ImageScore, read_images
from components.ingest.sample_images import all_examples
from data import features
from data.errors import WorkspaceError
from data.features import IGNORE_LABEL
from data.labels import Color
from data.layouts.base import TEST
from data.masks import VOID_COLOR, palette
from data.preprocess import decode_image, decode_mask
from models.export.segmenter import Segmenter
from pipeline.records.executions import StageRecord, artifact_folder
from pipeline.records.summary import RunSummary
from pipeline.report.render import drawing_uri, mask_uri, photo_uri, shrunk
from pipeline.stages import Stage

#: Longer side of an image in a page, in pixels.
FIGURE_SIDE = 320
FIGURES_EACH = 4

#: How an error image distinguishes correct, wrong and ignored (void) pixels, by pattern as well as by colour.
FADE = 0.3
STRIPES = ((196, 58, 20), (60, 10, 0))
STRIPE, DOT = 4, 6
DOT_COLOR = (110, 110, 90)


def class_names(summary: RunSummary) -> list[str]:
    """The names of the classes in the order of their ids."""
    return [label["name"] for label in summary.config["data"]["label_map"]["classes"]]


def class_colors(summary: RunSummary) -> dict[str, str]:
    """The CSS colour of each class in the figures."""
    names = class_names(summary)
    return {name: css_color(color) for name, color in zip(names, palette(len(names)), strict=True)}


def css_color(color: Color) -> str:
    """An RGB colour in CSS syntax."""
    return "#{:02x}{:02x}{:02x}".format(*color)


class ChosenImages(NamedTuple):
    """The images that are shown."""

    worst: list[ImageResult]
    """The images with the lowest mean IoU, lowest first."""
    typical: list[ImageResult]
    """The images nearest to the median of mean IoU, lower ones first."""
    evaluated: int
    """Number of images among which these were chosen."""


@dataclass(frozen=True)
class FigureTile:
    """One part of the figure of a test image, such as the label."""

    name: str
    uri: str
    alt: str
    wipes: int | None = None
    """Number of the tile that a slider reveals below it; None without a slider."""


@dataclass(frozen=True)
class ImageFigure:
    """The figure of one test image."""

    key: str
    """Its path in the dataset."""
    facts: list[str]
    tiles: list[FigureTile]


@dataclass(frozen=True)
class Gallery:
    """The figures of a report."""

    worst: list[ImageFigure]
    typical: list[ImageFigure]
    evaluated: int


class LabelledImage(NamedTuple):
    """One test image with its label."""

    encoded: bytes
    image: np.ndarray
    """(height, width, 3) uint8 RGB."""
    label: np.ndarray
    """(height, width) uint8 class ids; `IGNORE_LABEL` marks ignored (void) pixels."""


def make_gallery(stages: Mapping[str, StageRecord]) -> Gallery | None:
    """Makes the figures of a run; None if it has no model or test images, or if they were deleted since."""
    choice = choose(image_results(stages), FIGURES_EACH)
    examples = read_labelled(stages, {result.key for result in (*choice.worst, *choice.typical)})
    segmenter = load_model(stages) if examples else None
    if segmenter is None:
        return None
    worst, typical = (
        [_figure(result, examples[result.key], segmenter) for result in chosen if result.key in examples]
        for chosen in (choice.worst, choice.typical)
    )
    return Gallery(worst, typical, choice.evaluated)


def choose(results: Sequence[ImageResult], each: int) -> ChosenImages:
    """Chooses the `each` images with the lowest mean IoU and, among the others, the `each` most typical ones."""
    score = attrgetter("candidate.mean_iou")
    ordered = sorted((result for result in results if not math.isnan(score(result))), key=score)
    worst, others = ordered[:each], ordered[each:]
    middle = np.median([score(result) for result in ordered]) if ordered else 0.0
    nearest = sorted(others, key=lambda result: abs(score(result) - middle))[:each]
    return ChosenImages(worst, sorted(nearest, key=score), len(ordered))


def image_results(stages: Mapping[str, StageRecord]) -> list[ImageResult]:
    """The results of a run's evaluation for each image; empty if there are none."""
    evaluation = artifact_folder(stages, Stage.EVALUATOR, "evaluation")
    with suppress(WorkspaceError):  # made by an earlier version, which recorded no results for single images
        return read_images(evaluation) if evaluation else []
    return []


def load_model(stages: Mapping[str, StageRecord]) -> Segmenter | None:
    """Loads the model of a run.

    Only a model that passed InfraCheck is loaded: it has answered in a separate process, so it will not crash this one.
    """
    blessings = stages[Stage.INFRA_CHECK].outputs.get("blessing", []) if Stage.INFRA_CHECK in stages else []
    serves = any(blessing.get_int_custom_property(INFRA_BLESSED) for blessing in blessings)
    model = artifact_folder(stages, Stage.TRAINER, "model")
    return Segmenter(path_utils.serving_model_dir(model)) if model and serves else None


def read_labelled(stages: Mapping[str, StageRecord], keys: Collection[str]) -> dict[str, LabelledImage]:
    """Reads the requested test images of a run, by key, as far as they still exist."""
    found: dict[str, LabelledImage] = {}
    if artifact_folder(stages, Stage.EXAMPLE_GEN, "examples") is None:
        return found
    for record in all_examples(stages[Stage.EXAMPLE_GEN].outputs["examples"][0], TEST):
        if len(found) == len(keys):
            break
        example = tf.train.Example.FromString(record).features.feature
        names = (features.KEY, features.IMAGE, features.MASK)
        encoded_key, encoded, mask = (example[name].bytes_list.value[0] for name in names)
        if (key := encoded_key.decode()) in keys:
            found[key] = LabelledImage(encoded, decode_image(encoded).numpy(), decode_mask(mask).numpy())
    return found


def input_tiles(key: str, labelled: LabelledImage) -> list[FigureTile]:
    """The tiles of image and label."""
    return [
        FigureTile("image", photo_uri(labelled.image, FIGURE_SIDE), f"Test image {key}"),
        FigureTile("label", mask_uri(labelled.label, FIGURE_SIDE), f"Label of {key}, classes in colours"),
    ]


def prediction_tile(name: str, key: str, prediction: np.ndarray, wipes: int | None = None) -> FigureTile:
    """The tile of a model's prediction, and the number of the tile that a slider reveals below it."""
    return FigureTile(
        name, mask_uri(prediction, FIGURE_SIDE), f"{name.capitalize()} for {key}, classes in colours", wipes
    )


def _figure(result: ImageResult, labelled: LabelledImage, segmenter: Segmenter) -> ImageFigure:
    [(prediction, _)] = segmenter.predict([labelled.encoded])
    facts = [f"IoU {result.candidate.mean_iou:.3f}"]
    if result.baseline is not None:
        facts.append(f"served model {result.baseline.mean_iou:.3f}")
    worst = most_frequent_confusion(result.candidate, segmenter.label_map.names)
    errors = drawing_uri(error_image(labelled.image, labelled.label, prediction))
    right = np.mean((prediction == labelled.label)[labelled.label != IGNORE_LABEL])
    return ImageFigure(
        result.key,
        facts + ([f"most often {worst}"] if worst else []),
        [
            *input_tiles(result.key, labelled),
            prediction_tile("prediction", result.key, prediction, wipes=0),
            FigureTile(
                "error", errors, f"Where the prediction for {result.key} is wrong: {right:.0%} of its pixels are right"
            ),
        ],
    )


def most_frequent_confusion(score: ImageScore, names: Sequence[str]) -> str:
    """The most frequent confusion in an image, in words; empty if there is none."""
    wrong = score.cells[score.cells[:, 0] != score.cells[:, 1]]
    if not len(wrong):
        return ""
    label, prediction, _ = wrong[np.argmax(wrong[:, 2])]
    return f"{names[label]} taken for {names[prediction]}"


def error_image(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Draws where a prediction is correct (the image, faded to gray), wrong (striped) and not evaluated (dotted).

    Args:
        image: (height, width, 3) uint8 RGB.
        label: (height, width) uint8 class ids; `IGNORE_LABEL` marks ignored (void) pixels.
        prediction: (height, width) uint8 class ids.

    Returns:
        uint8 RGB, the longer side at most `FIGURE_SIDE` pixels; the patterns are drawn at the final size.
    """
    nearest = Image.Resampling.NEAREST
    arrays = (image, label, prediction)
    small, truth, guess = [np.asarray(shrunk(Image.fromarray(array), FIGURE_SIDE, nearest)) for array in arrays]
    y, x = np.indices(truth.shape)
    dots = (x % DOT < DOT // 3) & (y % DOT < DOT // 3)
    faded = 255 - FADE * (255 - small.mean(axis=-1, keepdims=True) // 16 * 16)  # few levels make a small PNG
    striped = np.array(STRIPES)[(x + y) // STRIPE % 2]
    dotted = np.array((VOID_COLOR, DOT_COLOR))[dots.astype(int)]
    drawn = np.where((truth == guess)[:, :, None], faded, striped)
    return np.where((truth == IGNORE_LABEL)[:, :, None], dotted, drawn).astype(np.uint8)
