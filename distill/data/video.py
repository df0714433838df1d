"""Frames into MP4 files and back, with PyAV.

What is read is found by its time stamp: one file may hold many episodes, and a key frame every second or every two
frames. A picture that the decoder had to make up is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from distill.data.files import replacing
from edge_wam.contracts import U8
from edge_wam.errors import ConfigError

OPTIONS = {"crf": "12", "preset": "veryfast", "g": "2"}
"""CRF 12 and full chroma: a goal of three red pixels must survive the codec; GOP 2 as in LeRobot, for random access."""
PIXEL_FORMAT = "yuv444p"
NEAR = 0.25
"""A frame belongs to a moment when it is less than this share of a frame's duration away from it."""
SEEK_FROM = 32
"""Frames to skip from which on seeking is tried: below it decoding is cheaper than finding a key frame."""


def encode(path: Path, frames: U8, fps: int) -> None:
    """Write [T, h, w, 3] as H.264."""
    with replacing(path) as partial, av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXEL_FORMAT
        stream.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())


def shape_of(path: Path) -> tuple[int, int, int]:
    """(height, width, 3) of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width, 3


def read_frames(path: Path, wanted: Sequence[int], *, fps: float, start_s: float, what: str) -> U8:
    """The frames ``wanted`` (numbers within the episode, rising) of the episode that begins at ``start_s``.

    Args:
        what: dataset and episode, for messages.

    Returns:
        uint8 [len(wanted), h, w, 3].

    Raises:
        ConfigError: no such file or no video, another frame rate, a frame that is missing, damaged or of another size.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ConfigError(f"{what}: {path} has no video stream", remedy="copy the file again")
            stream = container.streams.video[0]
            stream.thread_count = 1
            rate = float(stream.average_rate or 0)
            if abs(rate - fps) > 0.01 * fps and stream.frames > 1:
                raise ConfigError(
                    f"{what}: {path} runs at {rate:g} frames per second", expected=f"{fps:g}, as meta/info.json says",
                    remedy="encode the video at the dataset's rate, or leave the episode out",
                )  # fmt: skip
            return _pick(container, stream, [start_s + k / fps for k in wanted], NEAR / fps, f"{what}: {path}")
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(
            f"{what}: {path} cannot be decoded: {error}", expected="a whole video file",
            remedy="copy the file again, or leave the episode out",
        ) from error  # fmt: skip


def read_image(data: bytes, what: str) -> U8:
    """One picture [h, w, 3] from the bytes of a PNG or JPEG file.

    Raises:
        ConfigError: they are none, or damaged.
    """
    try:
        with av.open(io.BytesIO(data), "r") as container:
            frame = next(container.decode(video=0))
            if frame.is_corrupt:
                raise ConfigError(f"{what} is damaged", remedy="copy the file again")
            return np.asarray(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise ConfigError(f"{what} cannot be decoded: {error}", remedy="copy the file again") from error


def _pick(container: Any, stream: Any, times_s: list[float], tolerance_s: float, what: str) -> U8:
    """The frames nearest to ``times_s``, which rise."""
    base, begin = stream.time_base, stream.start_time or 0
    out: list[U8] = []
    frames: Iterator[Any] = iter(())
    at_s = -np.inf  # time of the newest frame that was decoded
    held: Any = None
    for t in times_s:
        if held is None or t - at_s > SEEK_FROM * 4 * tolerance_s:
            container.seek(begin + round(t / base), stream=stream, backward=True)
            frames, held, at_s = container.decode(stream), None, -np.inf
        while held is None or at_s < t - tolerance_s:
            held = next(frames, None)
            if held is None:
                break
            at_s = float((held.pts - begin) * base)
        if held is None or abs(at_s - t) > tolerance_s:
            found = "the video ends before it" if held is None else f"the nearest is at {at_s:.4f} s"
            raise ConfigError(
                f"{what} has no frame at {t:.4f} s: {found}", expected="one frame for every row of the episode",
                remedy="copy the file again, or leave the episode out",
            )  # fmt: skip
        if held.is_corrupt:
            raise ConfigError(f"{what}: the frame at {t:.4f} s is damaged", remedy="copy the file again")
        image = held.to_ndarray(format="rgb24")
        if out and image.shape != out[0].shape:
            raise ConfigError(f"{what}: the picture grows from {out[0].shape} to {image.shape}", remedy="leave it out")
        out.append(image)
    return np.stack(out)
