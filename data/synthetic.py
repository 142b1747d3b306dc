"""The sample dataset: small drawn scenes, written in the PASCAL VOC layout.

A scene is a cluttered ground with a rug, balls, brick walls, leaves and stars on it, partly hiding one another. Every
kind of thing wears every pair of colours, and so does the clutter, so that only shape and texture tell them apart.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from data.errors import DataError
from data.features import IGNORE_LABEL
from data.masks import palette

Field = NDArray[np.floating]
Pixels = NDArray[np.uint8]

CLASSES = ("background", "rug", "ball", "bricks", "leaf", "star")
"""Class names in the order of their ids."""

SOURCES = ("meadow", "beach", "dusk")
"""Kinds of scene, in turn by index; the file names start with them."""

FORMAT = 1
"""Goes up whenever the images change, so that an older dataset is not taken for this one."""

DESCRIPTION = "dataset.json"

COLOR_PAIRS = np.array(
    [
        [[196, 58, 48], [250, 222, 190]],
        [[222, 126, 32], [252, 220, 110]],
        [[70, 132, 52], [190, 214, 104]],
        [[24, 122, 122], [158, 222, 198]],
        [[44, 88, 170], [160, 206, 240]],
        [[104, 62, 150], [226, 172, 216]],
        [[122, 82, 52], [222, 188, 140]],
        [[70, 74, 92], [216, 216, 220]],
    ],
    np.float32,
)
"""Dark and light colour of a thing, RGB in [0, 255]."""

GROUND_COLORS = np.array(
    [[[88, 140, 64], [170, 196, 92]], [[196, 158, 108], [240, 216, 164]], [[84, 96, 116], [168, 164, 170]]], np.float32
)
"""Dark and light colour of the ground by source, RGB in [0, 255]."""

LIGHT = np.array([[1.0, 1.0, 1.0], [1.04, 1.0, 0.92], [0.68, 0.7, 0.88]], np.float32)
"""Colour of the light by source: factors of red, green and blue."""


def source_of(index: int) -> str:
    """The source of a scene."""
    return SOURCES[index % len(SOURCES)]


def render(index: int, seed: int = 0) -> tuple[Pixels, Pixels]:
    """Draws one scene; the same pixels for the same arguments, whatever was drawn before.

    Returns:
        The (height, width, 3) uint8 RGB image, 96 to 176 pixels a side, and the (height, width) uint8 mask: class ids,
        and `IGNORE_LABEL` on two pixels on either side of each border between classes.
    """
    rng = np.random.default_rng([seed, index])
    height, width = (int(side) for side in rng.integers(96, 177, 2))
    source = index % len(SOURCES)
    canvas = _ground(height, width, GROUND_COLORS[source], rng)
    mask = np.zeros((height, width), np.uint8)
    for class_id, center, radius in _arrangement(height, width, rng):
        _draw(canvas, mask, class_id, center, radius, rng)
    canvas = canvas * LIGHT[source] * rng.uniform(0.85, 1.08)
    canvas += rng.normal(0.0, rng.uniform(3.0, 9.0), canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8), _with_void(mask)


def write_dataset(
    root: str | Path,
    *,
    num_train: int = 240,
    num_val: int = 40,
    num_test: int = 80,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the dataset in the PASCAL VOC layout, with the class names in `labels.txt`, atomically.

    A second call with the same parameters finds the finished dataset and writes nothing. Writers of one folder wait for
    each other.

    Args:
        root: Folder to make; it may exist if it is empty.
        progress: Called with the number of scenes written so far and in all.

    Returns:
        The root.

    Raises:
        DataError: The folder holds something else, or the dataset with other parameters.
    """
    root = Path(root)
    counts = {"train": num_train, "val": num_val, "test": num_test}
    parameters = {"format": FORMAT, "seed": seed, **counts}
    if _is_written(root, parameters):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.parent / f".{root.name}.lock"):
        if not _is_written(root, parameters):
            staging = root.parent / f".{root.name}.partial"
            shutil.rmtree(staging, ignore_errors=True)  # of a writer that was killed
            try:
                _write_scenes(staging, counts, seed, progress)
                (staging / DESCRIPTION).write_text(json.dumps(parameters) + "\n")
                staging.rename(root)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return root


def _is_written(root: Path, parameters: dict[str, int]) -> bool:
    """Whether the finished dataset is there; False if the folder is absent or empty."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / DESCRIPTION).read_text())
    except (OSError, ValueError):
        raise DataError(f"{root} is in the way: it exists and is not the sample dataset; choose a new folder") from None
    if found != parameters:
        raise DataError(
            f"{root} holds the sample dataset with {found}, not with {parameters}; delete it or choose a new folder"
        )
    return True


def _write_scenes(root: Path, counts: dict[str, int], seed: int, progress: Callable[[int, int], None] | None) -> None:
    images, masks, lists = (root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
    for folder in (images, masks, lists):
        folder.mkdir(parents=True)
    (root / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    colors = [channel for color in palette(256) for channel in color]
    total, index = sum(counts.values()), 0
    for split, count in counts.items():
        names = [f"{source_of(i)}_{i:05d}" for i in range(index, index + count)]
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image, mask = render(index, seed)
            Image.fromarray(image).save(images / f"{name}.jpg", quality=92)
            indexed = Image.fromarray(mask, "P")
            indexed.putpalette(colors)
            indexed.save(masks / f"{name}.png")
            index += 1
            if progress:
                progress(index, total)


def _arrangement(height: int, width: int, rng: np.random.Generator) -> list[tuple[int, NDArray, float]]:
    """Class id, centre (x, y) and radius in pixels of each thing, from back to front."""
    short = min(height, width)
    size = np.array([width, height])
    things = []
    if rng.random() < 0.6:
        things.append((CLASSES.index("rug"), rng.uniform(0.2, 0.8, 2) * size, short * rng.uniform(0.34, 0.46)))
    centers: list[NDArray] = []
    for class_id in rng.permutation([2, 3, 4, 5, *rng.integers(2, 6, 2)])[: rng.integers(3, 5)]:
        # The best of three places: things overlap at times, and seldom hide one another.
        places = rng.uniform(0.12, 0.88, (3, 2)) * size
        room = [min((math.dist(place, center) for center in centers), default=0.0) for place in places]
        centers.append(places[int(np.argmax(room))])
        things.append((int(class_id), centers[-1], short * rng.uniform(0.2, 0.31)))
    return things


def _draw(canvas: Field, mask: Pixels, class_id: int, center: NDArray, radius: float, rng: np.random.Generator) -> None:
    """Paints one thing and its shadow over the canvas, and its class over the mask, in place."""
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = (x - center[0]) / radius, (y - center[1]) / radius
    lying = CLASSES[class_id] == "rug"
    angle = rng.uniform(-0.15, 0.15) if lying else rng.uniform(0, 2 * math.pi)
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    distance, tone = PAINTERS[CLASSES[class_id]](u, v, rng)

    if not lying:
        canvas *= 1 - 0.35 * np.exp(-np.maximum(_shifted(distance, radius), 0) * 7)[..., None]
    dark, light = COLOR_PAIRS[rng.integers(len(COLOR_PAIRS))]
    color = dark + (light - dark) * tone[..., None]
    relief = 1.0 - 0.12 * (x + y) - 0.3 * np.exp(-((distance / 0.07) ** 2))  # lit from the upper left, with a dark rim
    opacity = _inside(distance * radius, 1.6)[..., None]
    canvas += (color * relief[..., None].clip(0.4, 1.25) - canvas) * opacity
    mask[distance < 0] = class_id


def _shifted(distance: Field, radius: float) -> Field:
    """The outline moved to the lower right, where the shadow falls."""
    step = max(int(radius * 0.12), 1)
    return np.pad(distance, ((step, 0), (step, 0)), mode="edge")[:-step, :-step]


def _inside(distance: Field, width: float) -> Field:
    """1 where the signed distance is negative, 0 where positive, with a ramp of the given width in between."""
    return np.clip(0.5 - distance / width, 0, 1)


# Painters. Each takes coordinates in which the thing has radius 1, and gives the signed distance to its outline
# (negative inside) and its tone: 0 the dark colour, 1 the light one.


def _rug(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """A rug of wavy stripes, lying flat."""
    v = v / 0.62
    angle, phases = np.arctan2(v, u), rng.uniform(0, 2 * math.pi, 3)
    outline = 1 + 0.12 * sum(np.cos(k * angle + phase) / (k - 1) for k, phase in zip((2, 3, 4), phases, strict=True))
    stripes = np.sin(17 * v + 1.6 * np.sin(5 * u + phases[0]))
    return (np.hypot(u, v) - outline) * 0.7, 0.45 + 0.4 * stripes


def _ball(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """A beach ball: six sectors around a pole, bulging."""
    pole = rng.uniform(0.15, 0.4)
    sectors = np.sin(3 * np.arctan2(v, u - pole))
    bulge = 0.2 * (np.hypot(u, v) < 1) * np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    return np.hypot(u, v) - 1, _inside(sectors, 0.4) * 0.85 + bulge


def _bricks(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """A piece of wall in running bond."""
    half_height = rng.uniform(0.65, 0.85)
    rows = (v + half_height) / 0.42
    columns = u / 0.8 + 0.5 * (np.floor(rows) % 2)
    to_joint = np.minimum(0.42 * np.abs(rows - np.round(rows)), 0.8 * np.abs(columns - np.round(columns)))
    return np.maximum(np.abs(u) - 1, np.abs(v) - half_height), _inside(to_joint - 0.07, 0.06)


def _leaf(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Two arcs that meet in tips at u = -1 and 1, with a dark midrib and side veins."""
    half_width = rng.uniform(0.5, 0.62)
    offset = (1 - half_width**2) / (2 * half_width)
    side = np.abs(v)
    veins = np.maximum(np.sin(15 * (u - 0.9 * side)) - 0.35, 0) * 0.9
    distance = 1.1 * (np.hypot(u, side + offset) - math.hypot(1, offset))
    return distance, 0.95 - 0.85 * np.maximum(_inside(side - 0.06, 0.06), veins)


def _star(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Five points, with a band along the outline and a small star in the middle."""
    fold = math.pi / 5
    angle = (np.arctan2(v, u) + fold) % (2 * fold) - fold  # 0 towards the nearest tip
    inner = rng.uniform(0.52, 0.62)
    edge = np.array([inner * math.cos(fold) - 1, inner * math.sin(fold)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    radius = np.hypot(u, v)
    distance = (radius * np.cos(angle) - 1) * normal[0] + radius * np.abs(np.sin(angle)) * normal[1]
    return distance, _inside(np.abs(distance + 0.2) - 0.09, 0.06)


PAINTERS: dict[str, Callable[[Field, Field, np.random.Generator], tuple[Field, Field]]] = {
    "rug": _rug,
    "ball": _ball,
    "bricks": _bricks,
    "leaf": _leaf,
    "star": _star,
}


def _ground(height: int, width: int, colors: Field, rng: np.random.Generator) -> Field:
    """Soft patches of two colours under blades, pebbles and scraps, (height, width, 3) float32 in [0, 255]."""
    patches = [_noise(height, width, cells, rng) * weight for cells, weight in ((3, 0.5), (8, 0.3), (30, 0.2))]
    tone = np.sum(patches, axis=0)
    ground = colors[0] + (colors[1] - colors[0]) * tone[..., None]
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8)).resize((2 * width, 2 * height))
    pen = ImageDraw.Draw(image)
    for _ in range(height * width // 250):
        _scatter(pen, rng.uniform(0, 1, 2) * image.size, colors, rng)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32).copy()


def _noise(height: int, width: int, cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise in about [0, 1] with a number of cells along each side."""
    grid = Image.fromarray(rng.uniform(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def _scatter(pen: ImageDraw.ImageDraw, place: NDArray, ground: Field, rng: np.random.Generator) -> None:
    """One piece of clutter at a place (x, y): mostly in the colours of the ground, now and then in a thing's."""
    colors = ground if rng.random() < 0.7 else COLOR_PAIRS[rng.integers(len(COLOR_PAIRS))]
    color = tuple(int(c) for c in (colors[rng.integers(2)] * rng.uniform(0.75, 1.15)).clip(0, 255))
    size = rng.uniform(2, 9)
    corners = rng.normal(0, size, (4, 2)) + place
    match int(rng.integers(3)):
        case 0:
            pen.line([*corners[:2].ravel()], color, width=int(rng.integers(2, 4)))
        case 1:
            pen.ellipse([*(place - size / 2), *(place + size / 2)], color)
        case _:
            pen.polygon([*corners[:3].ravel()], color)


def _with_void(mask: Pixels) -> Pixels:
    """The mask with the ignore label on both sides of every border between classes."""
    image = Image.fromarray(mask)
    highest, lowest = (np.asarray(image.filter(rank(5))) for rank in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return np.where(highest != lowest, np.uint8(IGNORE_LABEL), mask)
