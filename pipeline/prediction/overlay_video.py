"""A video of the overlays, with the frame times of the video that they were made from."""

import io
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import IO

import numpy as np
from PIL import Image

from components.storage.atomic import create
from components.storage.file_systems import file_system
from pipeline.prediction.input_image import InputImage
from pipeline.prediction.journal import Prediction
from pipeline.prediction.outputs import MARK, OVERLAY_ENDING, OVERLAY_VIDEO_ENDING
from pipeline.prediction.video import Frame, frames, library

#: VP9, which browsers play, with its real-time settings.
CODEC, SETTINGS = "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}

#: Timestamps are in milliseconds, as in the format.
TICK = Fraction(1, 1000)


def joined_overlays(video: InputImage) -> InputImage:
    """The journal's entry for the overlays of a video."""
    return InputImage(f"{video.path}#overlay", posixpath.join(video.name, "overlay"), video.state)


def write_overlay_video(
    video: InputImage, every: int, out: str, name: str, find: Callable[[InputImage], Prediction | None]
) -> str | None:
    """Joins the overlays of a video's frames; a frame without one is left out, and the previous one is shown longer.

    Args:
        video: The video.
        every: Step between the frames that were predicted.
        out: Folder of the outputs.
        name: Name of the file without suffix, relative to that folder.
        find: Returns the prediction of a frame.

    Returns:
        The file that was written; None if no frame has an overlay.
    """
    overlays = _overlays(video, every, out, find)
    first = next(overlays, None)
    if first is None:
        return None
    path = os.path.join(out, name + OVERLAY_VIDEO_ENDING)
    with tempfile.TemporaryFile() as file:
        _encode(chain([first], overlays), first[1].shape[:2], file)
        file.seek(0)
        with create(path) as target:
            shutil.copyfileobj(file, target)
    return path


def _encode(overlays: Iterable[tuple[float, np.ndarray]], size: tuple[int, ...], file: IO[bytes]) -> None:
    with library().open(file, "w", format="webm") as container:
        container.metadata["title"] = MARK
        stream = container.add_stream(CODEC, time_base=TICK, options=SETTINGS)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        tick = -1
        for seconds, pixels in overlays:
            tick = max(tick + 1, round(seconds / TICK))  # Damaged videos may have decreasing times.
            frame = library().VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
            frame.pts, frame.time_base = tick, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _overlays(
    video: InputImage, every: int, out: str, find: Callable[[InputImage], Prediction | None]
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the time in seconds since the beginning, and an overlay, (height, width, 3) uint8."""
    for frame in frames(video, every):
        prediction = find(frame) if isinstance(frame, Frame) else None
        if isinstance(frame, Frame) and prediction and not prediction.error:
            path = os.path.join(out, prediction.name + OVERLAY_ENDING)
            with file_system(path).open(path) as file:
                yield frame.decoded.time or 0.0, np.asarray(Image.open(io.BytesIO(file.read())))
