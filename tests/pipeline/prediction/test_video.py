"""Videos are taken apart into frames; what is damaged is named, and what is not is done."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from pipeline.prediction.input_image import InputImage
from pipeline.prediction.listing import find_images
from pipeline.prediction.video import FrameImage, count_frames, frames, with_frames
from tests.pipeline.prediction.conftest import MakePredictor, blocks, encode, outputs, write

if TYPE_CHECKING:
    from av.container import OutputContainer

av = pytest.importorskip("av")

FRAMES = 20
LIMIT = 1 << 30


def make_video(path: Path, codec: str = "ffv1", pixels: str = "bgr0", **options: str) -> InputImage:
    """A video of `FRAMES` frames; the default codec loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        fill(container, codec, pixels)
    return find_images([str(path)], str(path.parent / "out"))[0]


def fill(container: OutputContainer, codec: str, pixels: str) -> None:
    stream = container.add_stream(codec, rate=10)
    stream.height, stream.width = blocks(0).shape[:2]
    stream.pix_fmt = pixels
    for number in range(FRAMES):
        frame = av.VideoFrame.from_ndarray(blocks(number), format="rgb24").reformat(format=pixels)
        frame.pts, frame.time_base = number, Fraction(1, 10)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def read(image: InputImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image.read(LIMIT))))


def test_frames_are_images_in_the_order_in_which_they_are_shown(tmp_path: Path):
    video = make_video(tmp_path / "film.mkv")

    found = list(frames(video, every=1))

    assert [frame.name for frame in found] == [f"film/frame_{number:06}" for number in range(FRAMES)]
    assert found[3].path == f"{video.path}#3"
    for number, frame in enumerate(found):
        np.testing.assert_array_equal(read(frame), blocks(number))


def test_one_frame_out_of_some_is_taken(tmp_path: Path):
    video = make_video(tmp_path / "film.mp4", "mpeg4", "yuv420p")

    assert [frame.name[-2:] for frame in frames(video, every=8)] == ["00", "08", "16"]
    assert (count_frames(video, every=8), count_frames(video, every=1)) == (3, FRAMES)
    assert count_frames(make_video(tmp_path / "film.mkv"), every=1) is None  # This format does not say.


def test_a_video_held_upright_is_shown_upright(tmp_path: Path):
    video = make_video(tmp_path / "film.mp4", "mpeg4", "yuv420p")
    plain = [read(frame) for frame in frames(video, every=10)]
    # The last matrix is that of the track; the first one is the film's.
    head, _, tail = Path(video.path).read_bytes().rpartition(matrix_bytes(1, 0, 0, 1))
    Path(video.path).write_bytes(head + matrix_bytes(0, 1, -1, 0) + tail)

    turned = [read(frame) for frame in frames(video, every=10)]

    assert len(turned) == 2
    for one, other in zip(turned, plain, strict=True):
        np.testing.assert_array_equal(one, np.rot90(other, -1))  # clockwise


def matrix_bytes(a: int, b: int, c: int, d: int) -> bytes:
    """A display matrix of an MP4 file."""
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return b"".join(value.to_bytes(4, "big", signed=True) for value in values)


def test_frames_are_predicted_and_gone_on_with(predictor: MakePredictor, tmp_path: Path):
    video = make_video(tmp_path / "in/film.mkv")
    write(tmp_path / "in", one__png=encode(blocks(3)))
    images = [*find_images([str(tmp_path / "in")], str(tmp_path / "out")), video]
    stopped = predictor(tmp_path / "out").predict(with_frames(images, every=3))
    first = [next(stopped) for _ in range(4)]
    stopped.close()

    rest = list(predictor(tmp_path / "out").predict(with_frames(images, every=3)))

    assert [new for _, new in first] == [True] * 4
    assert [new for _, new in rest] == [False] * 4 + [True] * 4
    written = outputs(tmp_path / "out")
    assert len(written) == 2 * 8 + 2
    assert written["film/frame_000003_mask.png"] == written["one_mask.png"]


def test_overlays_are_joined_at_the_pace_of_the_video(predictor: MakePredictor, tmp_path: Path):
    video, done = make_video(tmp_path / "film.mkv"), predictor(tmp_path / "out")
    some = [frame for frame in frames(video, every=5) if not frame.name.endswith("05")]
    done.join_overlays(video, 5)
    assert not (tmp_path / "out/film").exists()
    list(done.predict(some))

    done.join_overlays(video, 5)

    with av.open(str(tmp_path / "out/film/overlay.webm")) as container:
        joined = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert [seconds for seconds, _ in joined] == [0.0, 1.0, 1.5]
    for frame, (_, pixels) in zip(some, joined, strict=True):
        overlay = np.asarray(Image.open(tmp_path / "out" / f"{frame.name}_overlay.png"))
        assert np.abs(pixels.astype(float) - overlay).mean() < 20


def test_overlays_of_two_videos_of_one_name_are_two_files(predictor: MakePredictor, tmp_path: Path):
    videos = [make_video(tmp_path / name) for name in ("film.mkv", "film.avi")]

    def join() -> dict[str, bytes]:
        done = predictor(tmp_path / "out")
        list(done.predict(with_frames(videos, 10)))
        for video in videos:
            done.join_overlays(video, 10)
        return {path.name: path.read_bytes() for path in (tmp_path / "out/film").glob("*.webm")}

    first = join()
    assert sorted(map(len, first)) == [len("overlay.webm"), len("overlay-01234567.webm")]
    videos.reverse()
    assert set(join()) == set(first)

    Path(videos[0].path).write_bytes(b"garbage")
    videos[0] = find_images([videos[0].path], str(tmp_path / "out"))[0]
    assert set(join()) == {"overlay.webm"}


@pytest.mark.parametrize("name", ["film.mkv", "film.webm"])
def test_a_file_that_was_cut_off_anywhere_is_not_taken_for_a_whole_one(name: str, tmp_path: Path):
    codec = ("libvpx-vp9", "yuv420p") if name.endswith("webm") else ("mpeg4", "yuv420p")
    video = make_video(tmp_path / name, *codec)
    content = Path(video.path).read_bytes()
    assert not any(frame.problem for frame in frames(video, every=1))

    for percent in (20, 31, 50, 63, 77, 90, 97):
        Path(video.path).write_bytes(content[: len(content) * percent // 100])
        last = list(frames(video, every=1))[-1]
        assert last.problem, percent


def test_a_recording_that_does_not_say_its_length_is_whole(tmp_path: Path):
    class Pipe:
        """A file that cannot go back, as that of a recorder that sends what it records."""

        def __init__(self, file: BinaryIO) -> None:
            self.write = file.write

    path = tmp_path / "film.webm"
    with path.open("wb") as file, av.open(Pipe(file), "w", format="webm") as container:
        fill(container, "libvpx-vp9", "yuv420p")
    video = find_images([str(path)], str(tmp_path / "out"))[0]

    assert b"\x18\x53\x80\x67\x01" + b"\xff" * 7 in path.read_bytes()[:200]
    assert [frame.problem for frame in frames(video, every=1)] == [""] * FRAMES
    path.write_bytes(path.read_bytes()[:-100])
    assert list(frames(video, every=1))[-1].problem.endswith("the file was cut off there")


def test_an_overlay_video_of_somebodys_own_is_never_replaced(predictor: MakePredictor, tmp_path: Path):
    video, done = make_video(tmp_path / "film.mkv"), predictor(tmp_path / "out")
    list(done.predict(frames(video, every=10)))
    own = tmp_path / "out/film/overlay.webm"
    own.write_bytes(b"a film of my own")

    done.join_overlays(video, 10)
    assert own.read_bytes() == b"a film of my own"
    own.unlink()
    done.join_overlays(video, 10)
    first = own.read_bytes()
    for shard in (tmp_path / "out/predictions").glob("*.jsonl"):
        shard.unlink()
    again = predictor(tmp_path / "out")
    list(again.predict(frames(video, every=10)))
    own.write_bytes(first[:1000])
    again.join_overlays(video, 10)

    assert own.stat().st_size == len(first)


def test_what_is_whole_of_a_damaged_video_is_done_and_the_error_names_the_frame(
    predictor: MakePredictor, tmp_path: Path
):
    video = make_video(tmp_path / "film.mp4", "mpeg4", "yuv420p", movflags="faststart")
    whole = [frame.read(LIMIT) for frame in frames(video, every=1)]
    content = Path(video.path).read_bytes()
    Path(video.path).write_bytes(content[: len(content) * 6 // 10])

    outcomes = list(predictor(tmp_path / "out").predict(frames(video, every=1)))

    good = [frame for frame in frames(video, every=1) if isinstance(frame, FrameImage)]
    assert 3 < len(good) < FRAMES - 3
    assert [frame.read(LIMIT) for frame in good] == whole[: len(good)]
    failed = [prediction for prediction, _ in outcomes if prediction.error]
    assert failed[0].error == f"frame {len(good)} cannot be decoded: the video is damaged there, or ends"
    assert failed[0].image == f"{video.path}#{len(good)}"
    assert len(outcomes) - len(failed) == len(good)


def test_what_follows_a_damaged_part_keeps_its_numbers(tmp_path: Path):
    video = make_video(tmp_path / "film.mov", "mjpeg", "yuvj420p")
    whole = {frame.name: frame.read(LIMIT) for frame in frames(video, every=1)}
    content = bytearray(Path(video.path).read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = bytes(len(content) // 10)
    Path(video.path).write_bytes(content)

    found = list(frames(video, every=1))

    bad = [number for number, frame in enumerate(found) if frame.problem]
    assert len(found) == FRAMES
    assert 0 < bad[0] <= bad[-1] < FRAMES - 1
    for frame in found[: bad[0]] + found[bad[-1] + 1 :]:
        assert frame.read(LIMIT) == whole[frame.name]


@pytest.mark.parametrize("content", [b"", b"hello", b"#EXTM3U\n#EXTINF:9,\nhttp://localhost:1/a.mp4\n#EXT-X-ENDLIST\n"])
def test_what_is_no_video_is_a_failure(tmp_path: Path, content: bytes):
    write(tmp_path, film__mp4=content)
    (video,) = find_images([str(tmp_path / "film.mp4")], str(tmp_path / "out"))

    (failed,) = frames(video, every=1)

    assert count_frames(video, every=1) == 1
    assert failed.path == f"{video.path}#0"
    with pytest.raises(DataError, match="frame 0 cannot be decoded: Invalid "):
        failed.read(LIMIT)


def test_a_file_of_sound_alone_is_a_failure(tmp_path: Path):
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    (video,) = find_images([str(tmp_path / "film.mkv")], str(tmp_path / "out"))

    (failed,) = frames(video, every=1)

    assert failed.problem == "frame 0 cannot be decoded: the file contains no video"


def test_a_frame_that_is_too_large_is_not_converted(tmp_path: Path):
    frame = next(frames(make_video(tmp_path / "film.mkv"), every=1))
    with pytest.raises(DataError, match="image too large: 72x56"):
        frame.read(72 * 56 * 3 - 1)
