"""From encoded bytes to uint8 pixels: the preprocessing that Transform, training and serving signatures share.

Every function takes one image, works eagerly, inside tf.data and inside a SavedModel, and accepts any size.
"""

import tensorflow as tf

from data.config import PreprocessConfig


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, GIF (first frame) or BMP to (height, width, 3) uint8 RGB; gray is repeated."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def decode_mask(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an 8-bit gray PNG to (height, width) uint8 class ids."""
    return tf.ensure_shape(tf.io.decode_png(encoded, channels=1), (None, None, 1))[:, :, 0]


def network_size(height: tf.Tensor, width: tf.Tensor, config: PreprocessConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of an image after preprocessing, int32: the longer side is bounded, the aspect ratio kept."""
    if config.max_side == 0:
        return height, width
    # Integer arithmetic, rounding half up: the same answer in every graph and on every device.
    longer = tf.maximum(height, width)
    bound = tf.minimum(longer, config.max_side)

    def scaled(side: tf.Tensor) -> tf.Tensor:
        return tf.maximum((2 * side * bound + longer) // (2 * longer), 1)

    return scaled(height), scaled(width)


def shrink_image(image: tf.Tensor, config: PreprocessConfig) -> tf.Tensor:
    """Shrinks a (height, width, 3) uint8 image to `network_size` with antialiasing; uint8 again."""
    if config.max_side == 0:
        return image
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    size = network_size(height, width, config)

    return tf.cond(
        tf.maximum(height, width) > config.max_side, lambda: resize_image(image, tf.stack(size)), lambda: image
    )


def resize_image(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A (height, width, 3) uint8 image at `size`, (height, width) int32: bilinear, antialiased; uint8 again."""
    pixels = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)


def resize_mask(mask: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A (height, width) uint8 mask at `size`, (height, width) int32, by nearest neighbour, which adds no new class."""
    return tf.image.resize(mask[:, :, None], size, method="nearest")[:, :, 0]


def shrink_mask(mask: tf.Tensor, config: PreprocessConfig) -> tf.Tensor:
    """Shrinks a (height, width) uint8 mask to `network_size`."""
    if config.max_side == 0:
        return mask
    return resize_mask(mask, tf.stack(network_size(tf.shape(mask)[0], tf.shape(mask)[1], config)))
