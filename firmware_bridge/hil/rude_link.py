"""A host's link without manners: what a broken host could send, and a good one's own checks would not let out."""

from __future__ import annotations

import numpy as np

from firmware_bridge.host.knots import MICRO
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_state import F64
from firmware_bridge.host.messages import ChunkEncoding
from firmware_bridge.host.motion import chunk_message, encode_knots


class RudeLink(Link):
    """See the module."""

    def send_unchecked(self, t0_ns: int, dt_ns: int, q: F64, chunk_id: int) -> None:
        """A chunk [H, D] with neither limits, nor order, nor back-pressure; only the MCU can refuse it.

        Raises:
            TransportClosed: the cable is out.
        """
        bounds = self.limits.knots
        micro = np.rint(np.asarray(q) * MICRO)
        if self.encoding is ChunkEncoding.I16_LSB:  # which cannot say what lies far outside of the limits
            samples = encode_knots(np.clip(micro, bounds.low, bounds.high) / MICRO, self.limits, self.encoding)
        else:
            samples = np.clip(micro, -(2**31), 2**31 - 1).astype("<i4").tobytes()
        self._chunk_id = max(self._chunk_id, chunk_id)
        t0_us = self._sync.to_mcu_us(t0_ns)
        count, axes = len(q), self.limits.dof
        self._talk.send(chunk_message(samples, count, axes, t0_us, dt_ns, chunk_id, self.encoding))
