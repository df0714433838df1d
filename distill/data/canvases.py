"""Canvases made when they are asked for, by the kernel that runs on the robot, with the newest ones kept.

A dataset's pictures need not fit into memory: an index says where every frame lies, runs of frames are decoded on
demand, and what was used longest ago goes first. A dataset that does fit is decoded once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.data.info import Entry
from distill.data.reader import Dataset
from edge_wam.contracts import U8
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.kernels import camera_to_canvas

RUN = 64
"""Frames that are decoded together: a key frame is rarely further away, and opening a file costs like 30 of them."""
CACHE_BYTES = 4 << 30


def canvas_of(images: dict[str, U8], embodiment: Embodiment) -> U8:
    """One canvas uint8 [3, Hc, Wc] from one image per camera, by the kernel that runs on the robot.

    Where no camera is, and where a camera's image is missing, the canvas is 0 before the map: as on the robot.
    """
    out = np.zeros((3, embodiment.canvas_height, embodiment.canvas_width), np.float32)
    for c in embodiment.cameras:
        if c.name in images:
            crop = (c.crop_x, c.crop_y, c.crop_width, c.crop_height)
            at = (c.canvas_x, c.canvas_y, c.canvas_width, c.canvas_height)
            camera_to_canvas(images[c.name], crop, out, at)
    return np.asarray(np.rint((out + 1.0) * 127.5), np.uint8)


@dataclass(frozen=True, slots=True)
class Clip:
    """The pictures of one episode: ``videos`` is the dataset's key for each of the robot's cameras."""

    dataset: Dataset
    entry: Entry
    videos: dict[str, str]
    embodiment: Embodiment


class Canvases:
    """uint8 [N, 3, Hc, Wc] of the frames of ``clips`` one after the other; read by slice or by an array of numbers."""

    def __init__(self, clips: Sequence[Clip], cache_bytes: int = CACHE_BYTES) -> None:
        self._clips = list(clips)
        self._ends = np.cumsum([c.entry.length for c in self._clips])
        first = self._clips[0].embodiment
        self.shape = (int(self._ends[-1]), 3, first.canvas_height, first.canvas_width)
        self._room = cache_bytes
        self._fits = int(np.prod(self.shape)) <= cache_bytes
        self._used = 0
        self._kept: OrderedDict[tuple[int, int], U8] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice | NDArray[np.integer]) -> U8:
        """The canvases ``which`` names, in that order; frames of one run of an episode are decoded together.

        Raises:
            ConfigError: a video does not hold what its dataset says.
        """
        index = np.arange(len(self))[which]
        out = np.empty((len(index), *self.shape[1:]), np.uint8)
        clip = np.searchsorted(self._ends, index, side="right")
        frame = index - np.concatenate([[0], self._ends])[clip]
        runs: dict[tuple[int, int], list[int]] = {}
        for at, key in enumerate(zip(clip.tolist(), (frame // RUN).tolist(), strict=True)):
            runs.setdefault(key, []).append(at)
        for key, places in runs.items():
            own = frame[places]
            if self._fits or key in self._kept or len(places) >= RUN // 4:
                out[places] = self._run(key)[own % RUN]
            else:  # what is kept would soon make room for other runs: decode no more than was asked for
                wanted, back = np.unique(own, return_inverse=True)
                out[places] = self._made(key[0], wanted.tolist())[back]
        return out

    def _run(self, key: tuple[int, int]) -> U8:
        """Frames RUN * key[1] and on of clip key[0]."""
        if key not in self._kept:
            last = min((key[1] + 1) * RUN, self._clips[key[0]].entry.length)
            self._kept[key] = self._made(key[0], range(key[1] * RUN, last))
            self._used += self._kept[key].nbytes
            while self._used > self._room and len(self._kept) > 1:
                self._used -= self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(key)
        return self._kept[key]

    def _made(self, number: int, wanted: Sequence[int]) -> U8:
        """The canvases of some frames of a clip."""
        clip = self._clips[number]
        pictures = {name: clip.dataset.frames(clip.entry, video, wanted) for name, video in clip.videos.items()}
        for c in clip.embodiment.cameras:
            if c.name in pictures and pictures[c.name].shape[1:3] != (c.height, c.width):
                raise ConfigError(
                    f"{clip.dataset.root} episode {clip.entry.index}: {clip.videos[c.name]} is "
                    f"{pictures[c.name].shape[2]}x{pictures[c.name].shape[1]}",
                    expected=f"{c.width}x{c.height}, camera {c.name!r}", remedy="leave the episode out",
                )  # fmt: skip
        rows = range(len(wanted))
        return np.stack([canvas_of({k: v[t] for k, v in pictures.items()}, clip.embodiment) for t in rows])
