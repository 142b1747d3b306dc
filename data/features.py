"""Feature keys of the examples, which are defined only here.

ExampleGen writes, for each labelled image:

=================  =======  ===========================================================================
key                dtype    content
=================  =======  ===========================================================================
image              bytes    the encoded image, 8 bits a channel: JPEG or PNG
mask               bytes    8-bit gray PNG, same height and width: class ids, or `IGNORE_LABEL` (void)
key                bytes    path of the image relative to the dataset's root, unique
source             bytes    where the image comes from (camera, city, sequence); evaluation slices by it
height, width      int64    pixels
brightness         float32  mean luma / 255, in [0, 1]
contrast           float32  standard deviation of luma / 255, in [0, 0.5]
void_fraction      float32  fraction of the mask that is `IGNORE_LABEL`, in [0, 1]
pixels/<class>     int64    number of pixels of the class
=================  =======  ===========================================================================
"""

from collections.abc import Sequence

IMAGE = "image"
MASK = "mask"
KEY = "key"
SOURCE = "source"
HEIGHT = "height"
WIDTH = "width"
BRIGHTNESS = "brightness"
CONTRAST = "contrast"
VOID_FRACTION = "void_fraction"

#: The ignore label (void): pixels with this value in a normalised mask count neither in the loss nor in a metric.
IGNORE_LABEL = 255

#: Class ids are stored in 8 bits, and one value is the ignore label.
MAX_CLASSES = 255


def pixels_key(class_name: str) -> str:
    """The feature that counts the pixels of a class."""
    return f"pixels/{class_name}"


def scalar_keys(class_names: Sequence[str]) -> list[str]:
    """The scalar columns, which statistics and validation work on, without the encoded bytes."""
    return [
        SOURCE,
        HEIGHT,
        WIDTH,
        BRIGHTNESS,
        CONTRAST,
        VOID_FRACTION,
        *[pixels_key(name) for name in class_names],
    ]
