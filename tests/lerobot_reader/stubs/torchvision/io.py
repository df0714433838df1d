"""``VideoReader``: seek to the key frame before a time, then frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import torch


class VideoReader:
    def __init__(self, path: str, stream: str = "video") -> None:
        assert stream == "video", stream
        self.container = av.open(path)

    def seek(self, time_s: float, keyframes_only: bool = False) -> VideoReader:
        assert keyframes_only, "PyAV seeks to key frames"
        self.container.seek(int(time_s * av.time_base), backward=True)
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for frame in self.container.decode(video=0):
            image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            yield {"data": image, "pts": float(frame.pts * frame.time_base)}
