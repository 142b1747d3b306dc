"""From a network to a prediction: whole images or sliding windows, several scales, mirrored.

    image -> views (scale, mirrored) -> windows -> network -> windows merged -> views merged -> class ids and score

1. A view is the image scaled bilinearly, and maybe mirrored left to right.
2. A view that is larger than the window in any direction is cut into windows, and the network predicts each by itself.
   The logits of a window are upsampled to its pixels, and where windows overlap their softmax probabilities are
   averaged, all windows alike.
3. Each view's logits, or the logarithms of those means, are upsampled to the requested size, and the softmax
   probabilities of the views are averaged, all views alike (as in research/deeplab, `predict_labels_multi_scale`).

With the default configuration there is one view and no window, so logits go from the network's grid straight to the
requested size.

Evaluation and `predict` both call the exported signatures, which are made of this, so their numbers are the same.
Validation during training predicts each image whole and once, at the output stride of training: it compares weights
with each other, and takes a fraction of the time.

Memory: windows go through the network a few at a time, whatever the size of the image. What grows with the image are
class probabilities, 4 bytes for each pixel and class, of which about four copies exist at once.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import tensorflow as tf

from models.config import InferenceConfig
from models.network.kernels import resize_bilinear

#: Number of windows that the network predicts at once: enough for a GPU, little memory.
_WINDOWS_AT_ONCE = 4

_IMAGES = tf.TensorSpec((None, None, None, 3), tf.float32)

CoarseLogits = Callable[[tf.Tensor], tf.Tensor]


class InferenceProtocol:
    """How images become predictions; works in graphs, with sizes known only when they run.

    Args:
        coarse_logits: function from (batch, height, width, 3) float32 RGB in [0, 255] to (batch, rows, columns,
            classes) float32 logits on a grid of any size that spans the image.
        num_classes: number of classes.
        config: the protocol. Its output stride is not used here; the network has it already.
        align_corners: sampling points of the resizing of images and logits
            (`models.network.kernels.resize_bilinear`).
    """

    def __init__(
        self, coarse_logits: CoarseLogits, num_classes: int, config: InferenceConfig, align_corners: bool = False
    ) -> None:
        # Traced once for all uses: saving takes a third of the time, and so does the file.
        self._network = tf.function(coarse_logits, input_signature=[_IMAGES])
        self._config = config
        self._align_corners = align_corners
        self.num_classes = num_classes

    def segment(self, images: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Class ids and scores.

        Args:
            images: (batch, height, width, 3) uint8 RGB.
            size: (height, width) of the class ids, int32.

        Returns:
            Class ids (batch, *size) uint8, and for each image the mean of its `classify` probabilities, (batch,)
            float32.
        """
        class_ids, probabilities = self.classify(images, size)
        return class_ids, tf.reduce_mean(probabilities, axis=(1, 2))

    def classify(self, images: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Class ids as `segment`, and the probability of each pixel's class: (batch, *size) uint8 and float32."""
        logits = self.logits(images, size)
        top_log_probability = tf.reduce_max(logits, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)
        class_ids = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)
        return class_ids, tf.exp(top_log_probability)

    def logits(self, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, 3) uint8 RGB to (batch, *size, classes) float32, whose softmax is the probability."""
        images = tf.cast(images, tf.float32)
        sides = (False, True) if self._config.flip else (False,)
        scales, mirrored = map(list, zip(*product(self._config.scales, sides), strict=True))
        if scales == [1.0] and mirrored == [False]:
            return self._resize(self._view_logits(images), size)

        def add(total: tf.Tensor, view: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            scale, mirror = view
            seen = _mirrored_if(mirror, self._rescale(images, scale))
            logits = self._resize(_mirrored_if(mirror, self._view_logits(seen)), size)
            return total + tf.nn.softmax(logits)

        total = tf.zeros((tf.shape(images)[0], size[0], size[1], self.num_classes))
        # One view after the other, so that the activations of one are in memory at a time.
        return _log(tf.foldl(add, (tf.constant(scales), tf.constant(mirrored)), total, parallel_iterations=1))

    def _rescale(self, images: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        # Where corners are aligned it is the distance between the outermost pixels that is scaled: 513 -> 257.
        ends = int(self._align_corners)
        sides = tf.cast(tf.shape(images)[1:3] - ends, tf.float32)
        return self._resize(images, tf.maximum(tf.cast(tf.round(sides * scale), tf.int32) + ends, 1))

    def _resize(self, values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return resize_bilinear(values, (size[0], size[1]), align_corners=self._align_corners)

    def _view_logits(self, images: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, 3) float32 to (batch, rows, columns, classes) float32, on the network's grid or, with
        windows, on that of the pixels.
        """
        if not self._config.window:
            return self._network(images)
        larger = tf.reduce_max(tf.shape(images)[1:3]) > self._config.window
        return tf.cond(larger, lambda: self._sliding_logits(images), lambda: self._network(images))

    def _sliding_logits(self, images: tf.Tensor) -> tf.Tensor:
        """The logits of images that are larger than the window, on the grid of the pixels."""
        batch, height, width = (tf.shape(images)[axis] for axis in range(3))
        window, overlap = self._config.window, self._config.overlap
        rows, columns = (window_starts(side, window, overlap) for side in (height, width))
        sides = tf.minimum(tf.stack([height, width]), window)  # (height, width) of each window
        image, row, column = (
            tf.reshape(index, (-1,)) for index in tf.meshgrid(tf.range(batch), rows, columns, indexing="ij")
        )
        coarse = self._window_logits(images, tf.stack([image, row, column], axis=1), sides)

        def merge_columns(band: tf.Tensor) -> tf.Tensor:
            """Windows side by side, (columns, ...) coarse logits, to (window height, width, classes)."""
            probabilities = tf.nn.softmax(self._resize(band, sides))
            return tf.transpose(add_overlapping(tf.transpose(probabilities, (0, 2, 1, 3)), columns, width), (1, 0, 2))

        bands = tf.reshape(coarse, tf.concat([[-1, tf.size(columns)], tf.shape(coarse)[1:]], axis=0))
        bands = tf.map_fn(
            merge_columns,
            tf.ensure_shape(bands, (None, None, None, None, self.num_classes)),
            fn_output_signature=tf.TensorSpec((None, None, self.num_classes), tf.float32),
            parallel_iterations=1,
        )  # (batch * rows, window height, width, classes)
        tops = tf.reshape(tf.range(batch)[:, None] * height + rows, (-1,))
        sums = add_overlapping(bands, tops, batch * height)
        # Sums serve as means: a factor that all classes of a pixel share changes no softmax, not even after a resize.
        return _log(tf.reshape(sums, (batch, height, width, self.num_classes)))

    def _window_logits(self, images: tf.Tensor, corners: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
        """The network's logits of windows, a few at a time.

        Args:
            images: (batch, height, width, 3) float32.
            corners: (windows, 3) int32: image, top row, left column.
            sides: (height, width) of a window, int32.

        Returns:
            (windows, rows, columns, classes) float32.
        """
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        pixels = tf.reshape(images, (-1, 3))
        offsets = tf.range(sides[0])[:, None] * width + tf.range(sides[1])  # (window height, window width)
        starts = (corners[:, 0] * height + corners[:, 1]) * width + corners[:, 2]
        count = tf.size(starts)

        def see(done: tf.Tensor, seen: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            chosen = starts[done : done + _WINDOWS_AT_ONCE]
            logits = self._network(tf.gather(pixels, chosen[:, None, None] + offsets))
            return done + tf.size(chosen), seen.write(seen.size(), logits)

        shape = (None, None, None, self.num_classes)
        seen = tf.TensorArray(tf.float32, size=0, dynamic_size=True, infer_shape=False, element_shape=shape)
        _, seen = tf.while_loop(lambda done, _: done < count, see, (tf.constant(0), seen), parallel_iterations=1)
        return seen.concat()


def window_starts(side: tf.Tensor, window: int, overlap: float) -> tf.Tensor:
    """Where windows begin along one side of an image.

    Neighbours share at least the fraction `overlap` of a window, and the last window ends with the image; an image
    that is not longer than a window has one.

    Args:
        side: side of the image, in pixels, int32.
        window: side of the windows, in pixels.
        overlap: least fraction that neighbours share, in [0, 1).

    Returns:
        (windows,) int32, ascending.
    """
    step = max(1, int(window * (1 - overlap)))
    last = tf.maximum(side - window, 0)
    return tf.minimum(tf.range(-(-last // step) + 1) * step, last)


def add_overlapping(parts: tf.Tensor, starts: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Sums parts that lie at different positions of one axis.

    Args:
        parts: (count, size, ...) float32.
        starts: (count,) int32: position at which each part begins.
        length: length of the axis, int32.

    Returns:
        (length, ...) float32.
    """
    places = starts[:, None] + tf.range(tf.shape(parts)[1])  # (count, size)
    return tf.scatter_nd(places[:, :, None], parts, tf.concat([[length], tf.shape(parts)[2:]], axis=0))


def _mirrored_if(condition: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """(batch, height, width, channels) images, mirrored left to right if the condition holds."""
    return tf.cond(condition, lambda: tf.reverse(images, [2]), lambda: images)


def _log(probabilities: tf.Tensor) -> tf.Tensor:
    """Logarithms, kept finite so that they can be interpolated."""
    return tf.math.log(tf.maximum(probabilities, np.finfo(np.float32).tiny))
