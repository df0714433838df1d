"""The model's memory: keys and values of past frames, handed out at the ages at which it was trained to see them."""

from __future__ import annotations

from collections import deque

import numpy as np

from edge_wam.bundle.manifest import Model
from edge_wam.contracts import F32


class FrameHistory:
    """Past frames by capture time. A slot of the model's context is filled by the frame nearest to its age.

    Args:
        model: sizes; ``past_stride_knots`` knots lie between two slots.
        dt_ns: knot spacing, ns.
    """

    def __init__(self, model: Model, dt_ns: int) -> None:
        self._stride_ns = model.past_stride_knots * dt_ns
        self._slots = model.past_frames
        self._tokens = model.tokens_per_frame + 1
        # Planning at most four times per knot keeps every frame that a slot can still ask for.
        self._frames: deque[tuple[int, F32]] = deque(maxlen=4 * model.past_stride_knots * (model.past_frames + 1))

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def newest_ns(self) -> int | None:
        """Capture time of the newest frame, None when empty."""
        return self._frames[-1][0] if self._frames else None

    def clear(self) -> None:
        """Forget everything: a new episode, or another instruction."""
        self._frames.clear()

    def append(self, at_ns: int, kv: F32) -> None:
        """Keep a copy of ``kv`` [layers, 2, tokens + 1, width] of the frame of ``at_ns``, not before the newest.

        The same frame seen again replaces itself: it must not count twice.
        """
        if self._frames and self._frames[-1][0] == at_ns:
            self._frames.pop()
        self._frames.append((at_ns, kv.copy()))

    def fill(self, now_ns: int, past_kv: F32, past_mask: F32) -> None:
        """Write the context of a frame captured at ``now_ns``, oldest first; a slot without a frame is zeros, mask 0.

        A frame serves a slot only when it is less than half a slot off, so none serves two.

        Args:
            past_kv: float32 [layers, 2, past_frames * (tokens + 1), width], overwritten.
            past_mask: float32 [1, past_frames], overwritten with 0 or 1.
        """
        past_kv[...] = 0.0
        past_mask[...] = 0.0
        for slot in range(self._slots):
            wanted_ns = now_ns - (self._slots - slot) * self._stride_ns
            best = min(self._frames, key=lambda frame: abs(frame[0] - wanted_ns), default=None)
            if best is None or 2 * abs(best[0] - wanted_ns) >= self._stride_ns:
                continue
            past_kv[:, :, slot * self._tokens : (slot + 1) * self._tokens] = best[1]
            past_mask[0, slot] = 1.0


def context_buffers(model: Model) -> tuple[F32, F32]:
    """Zeroed ``past_kv`` and ``past_mask`` of the sizes that :meth:`FrameHistory.fill` writes."""
    tokens = model.past_frames * (model.tokens_per_frame + 1)
    return np.zeros((model.layers, 2, tokens, model.width), np.float32), np.zeros((1, model.past_frames), np.float32)
