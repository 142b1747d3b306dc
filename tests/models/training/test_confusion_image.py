"""The image of a confusion matrix: which cell is how dark, and that it can be read."""

import numpy as np

from models.training.tensorboard import EMPTY, FULL, MOST_NUMBERED, NUMBERED, PLAIN, WHITE, confusion_image

MATRIX = np.array([[30, 10, 0], [0, 0, 0], [0, 0, 7]])
NAMES = ["road", "car", "sky"]


def cells(image: np.ndarray, count: int, cell: int) -> np.ndarray:
    """The matrix without names: (rows, columns, cell, cell, 3)."""
    grid = image[-count * cell :, -count * cell :]
    return grid.reshape(count, cell, count, cell, 3).swapaxes(1, 2)


def test_the_shade_is_the_share_of_the_row() -> None:
    corners = cells(confusion_image(MATRIX, NAMES), 3, NUMBERED)[:, :, 1, 1]
    expected = np.round(WHITE + (FULL - WHITE) * np.array([0.75, 0.25, 0.0])[:, None])
    np.testing.assert_array_equal(corners[0], expected)
    np.testing.assert_array_equal(corners[2], [WHITE, WHITE, FULL])


def test_a_class_without_a_labelled_pixel_is_gray() -> None:
    row = cells(confusion_image(MATRIX, NAMES), 3, NUMBERED)[1]
    np.testing.assert_array_equal(row, np.broadcast_to(EMPTY, row.shape))


def test_shares_have_numbers_and_zeros_have_none() -> None:
    has_text = (np.ptp(cells(confusion_image(MATRIX, NAMES), 3, NUMBERED), axis=(2, 3)) > 0).any(axis=-1)
    np.testing.assert_array_equal(has_text, [[True, True, False], [False] * 3, [False, False, True]])


def test_names_stand_at_their_row_and_above_their_column() -> None:
    image = confusion_image(MATRIX, ["", "car", ""])
    margin = len(image) - 3 * NUMBERED
    ink = image.min(axis=-1) < 128
    rows = ink[margin:, :margin].reshape(3, NUMBERED, -1).any(axis=(1, 2))
    columns = ink[:margin, margin:].reshape(-1, 3, NUMBERED).any(axis=(0, 2))
    assert rows.tolist() == columns.tolist() == [False, True, False]


def test_many_classes_get_small_cells_and_long_names_get_room() -> None:
    count = MOST_NUMBERED + 1
    names = [f"a rather long name of class {i}" for i in range(count)]
    image = confusion_image(np.eye(count, dtype=np.int64), names)
    assert image.shape == (len(image), len(image), 3)
    shades = cells(image, count, PLAIN)
    assert (np.ptp(shades, axis=(2, 3)) == 0).all()
    np.testing.assert_array_equal(shades[:, :, 0, 0].min(axis=-1) < 128, np.eye(count, dtype=bool))
    # The strip to the left of a name is white: nothing is cut off.
    assert (image[-count * PLAIN :, :3] == 255).all()
