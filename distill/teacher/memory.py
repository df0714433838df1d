"""Keys and values of the frames that were really seen, in one allocation, written in place.

The reference concatenates and stacks its cache in every layer of every pass (5 GB of copies a pass at 14B); here each
pass writes behind what is there, and only :meth:`Memory.advance` makes it stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.teacher.config import TeacherConfig
from distill.teacher.layers import Attend, dense
from edge_wam.errors import ContractError


class Memory:
    """A window of frames: keys and values [depth, B, tokens, heads, head_width], rotated.

    Args:
        batch: how many windows at once.
        device, dtype: those of the model.
    """

    def __init__(self, config: TeacherConfig, batch: int, device: torch.device | str, dtype: torch.dtype) -> None:
        self.config = config
        self.frames = 0
        self._frame_tokens = config.frame_tokens
        registers = config.actions_per_block + config.states_per_block
        tokens = config.window_frames * config.frame_tokens + registers
        shape = (config.depth, batch, tokens, config.heads, config.head_width)
        self._k = torch.empty(shape, device=device, dtype=dtype)
        self._v = torch.empty(shape, device=device, dtype=dtype)

    @property
    def full(self) -> bool:
        """No further chunk fits: the window begins anew, as in the reference."""
        return self.frames + self.config.frames_per_block > self.config.window_frames

    def clear(self) -> None:
        """Begin a new window."""
        self.frames = 0

    def expect(self, grid: tuple[int, int, int], at_least: int = 0) -> None:
        """Raises ContractError if these frames do not fit behind what is there."""
        if self.frames + grid[0] > self.config.window_frames:
            raise ContractError(
                f"{grid[0]} frames behind {self.frames}", expected=f"at most {self.config.window_frames} in a window",
                remedy="begin a new window",
            )  # fmt: skip
        if self.frames < at_least:
            raise ContractError("a chunk before any frame", expected="the window's first frame, remembered")

    def writer(self, block: int, tokens: int) -> Attend:
        """Attention of new clean tokens to the window and to themselves; their keys and values stay after `advance`."""
        return self._attention(block, tokens, 0)

    def reader(self, block: int, video_tokens: int, alone: int) -> Attend:
        """Attention of a noisy chunk. Its last ``alone`` tokens see only themselves."""
        return self._attention(block, video_tokens, alone)

    def advance(self, frames: int) -> None:
        """Keep the frames that every block has just written."""
        self.frames += frames

    def _attention(self, block: int, video_tokens: int, alone: int) -> Attend:
        begin = self.frames * self._frame_tokens
        k_all, v_all = self._k[block], self._v[block]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            assert k.shape[1] >= video_tokens
            end = begin + k.shape[1]
            k_all[:, begin:end] = k
            v_all[:, begin:end] = v
            together = dense(q[:, : q.shape[1] - alone], k_all[:, :end], v_all[:, :end])
            if not alone:
                return together
            return torch.cat([together, dense(q[:, -alone:], k[:, -alone:], v[:, -alone:])], 1)

        return attend
