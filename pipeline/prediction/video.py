"""The frames of videos as images, and their overlays joined into a video.

Frames are decoded one after the other, as they are requested. The joined video has the frame times of the original.
"""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from components.storage.atomic import create
from components.storage.file_systems import file_system
from data.errors import ConfigError, DataError
from pipeline.prediction.input_image import InputImage
from pipeline.prediction.journal import Prediction
from pipeline.prediction.outputs import MARK, OVERLAY_ENDING, OVERLAY_VIDEO_ENDING, png

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

#: FFmpeg's demuxers for `VIDEO_ENDINGS`. Others read playlists, which refer to further files and addresses.
FORMATS = "mov,matroska,avi,mpeg,mpegts"

#: VP9, which browsers play, with its real-time settings.
CODEC, SETTINGS = "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}

#: Timestamps are in milliseconds, as in the format.
TICK = Fraction(1, 1000)


@dataclass(frozen=True, kw_only=True)
class FrameImage(InputImage):
    """A frame that has been decoded, but not yet converted."""

    decoded: VideoFrame

    def read(self, max_bytes: int) -> bytes:
        """The frame as an upright RGB PNG; raises DataError if it is larger than allowed, or of an unknown format."""
        width, height = self.decoded.width, self.decoded.height
        if 3 * width * height > max_bytes:
            raise DataError(f"image too large: {width}x{height} takes more than the allowed {max_bytes} bytes")
        try:
            pixels = self.decoded.to_ndarray(format="rgb24")  # (height, width, 3) uint8
        except (library().FFmpegError, ValueError) as error:
            raise DataError(f"unsupported image: its colours cannot be converted to RGB: {error}") from None
        quarters = round(self.decoded.rotation / 90)  # The counterclockwise rotation that the camera recorded.
        return png(Image.fromarray(np.rot90(pixels, quarters)), compress_level=1)


def with_frames(images: Iterable[InputImage], every: int) -> Iterator[InputImage]:
    """The images, with each video replaced by every n-th of its frames.

    Raises:
        ConfigError: There is a video, but the library that reads it is not installed.
    """
    for image in images:
        if image.is_video:
            yield from frames(image, every)
        else:
            yield image


def frames(video: InputImage, every: int) -> Iterator[InputImage]:
    """Every n-th frame of a video, numbered from 0 in presentation order.

    Each damaged frame is included, with its problem, and so is the first one that is missing at the end.
    """
    number = 0
    try:
        with _opened(video) as container:
            for decoded in _decoded(container):
                if decoded is None or decoded.is_corrupt:
                    yield _missing(video, number, "the video is damaged there, or ends")
                elif number % every == 0:
                    yield FrameImage(**_identity(video, number), decoded=decoded)
                number += 1
            if "matroska" in container.format.name and _is_cut_off(video):
                yield _missing(video, number, "the file was cut off there")
    except DataError as error:
        yield _missing(video, number, str(error))


def count_frames(video: InputImage, every: int) -> int | None:
    """The number of images that `frames` yields; None if the video does not state its length."""
    try:
        with _opened(video) as container:
            declared = container.streams.video[0].frames if container.streams.video else 1
    except DataError:
        declared = 1  # The video becomes one image with a problem.
    return -(-declared // every) or None


@contextmanager
def _opened(video: InputImage) -> Iterator[InputContainer]:
    """Opens a video and reads its header; any error while it is open is raised as a DataError."""
    av = library()
    try:
        with (
            file_system(video.path).open(video.path) as file,
            av.open(file, options={"format_whitelist": FORMATS}) as container,
        ):
            yield container
    except (av.FFmpegError, OSError) as error:
        raise DataError(error.strerror or str(error)) from None


def _decoded(container: InputContainer) -> Iterator[VideoFrame | None]:
    """The frames of the first video stream; None for one that cannot be decoded, or if the file is truncated."""
    if not container.streams.video:
        raise DataError("the file contains no video")
    stream, packets = container.streams.video[0], 0
    for packet in container.demux(stream):
        packets += bool(packet.size)  # The last packet is empty: it flushes the decoder.
        try:
            yield from packet.decode()
        except library().FFmpegError:
            yield None
    if packets < len(stream.index_entries):
        yield None


def _is_cut_off(video: InputImage) -> bool:
    """Whether a Matroska or WebM file is truncated.

    FFmpeg treats a truncated file as complete, and reports it only in its log. So the file is read once more without a
    decoder, whose threads might log while they are being stopped, and deadlock.
    """
    log = library().logging
    log.set_skip_repeated(False)  # Otherwise, FFmpeg would not report the second of two such files.
    log.set_level(log.ERROR)
    try:
        with log.Capture() as messages, _opened(video) as container:
            for _ in container.demux():
                pass
    finally:
        log.set_level(None)
    return any("ended prematurely" in message for _, _, message in messages)


def library() -> ModuleType:
    """PyAV; raises ConfigError if it is not installed."""
    try:
        import av
    except ImportError:
        raise ConfigError('videos need the package "av": .venv/bin/python -m pip install av') from None
    return av


def _identity(video: InputImage, number: int) -> dict:
    name = posixpath.join(video.name, f"frame_{number:06}")
    return {"path": f"{video.path}#{number}", "name": name, "state": video.state}


def _missing(video: InputImage, number: int, reason: str) -> InputImage:
    return InputImage(**_identity(video, number), problem=f"frame {number} cannot be decoded: {reason}")


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
        with library().open(file, "w", format="webm") as container:
            container.metadata["title"] = MARK
            stream = container.add_stream(CODEC, time_base=TICK, options=SETTINGS)
            stream.height, stream.width = first[1].shape[:2]
            stream.pix_fmt = "yuv420p"
            tick = -1
            for seconds, pixels in chain([first], overlays):
                tick = max(tick + 1, round(seconds / TICK))  # Damaged videos may have decreasing times.
                frame = library().VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
                frame.pts, frame.time_base = tick, TICK
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        file.seek(0)
        with create(path) as target:
            shutil.copyfileobj(file, target)
    return path


def _overlays(
    video: InputImage, every: int, out: str, find: Callable[[InputImage], Prediction | None]
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the time in seconds since the beginning, and an overlay, (height, width, 3) uint8."""
    for frame in frames(video, every):
        prediction = find(frame) if isinstance(frame, FrameImage) else None
        if isinstance(frame, FrameImage) and prediction and not prediction.error:
            path = os.path.join(out, prediction.name + OVERLAY_ENDING)
            with file_system(path).open(path) as file:
                yield frame.decoded.time or 0.0, np.asarray(Image.open(io.BytesIO(file.read())))
