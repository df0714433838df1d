"""A host's link without manners: what a broken host could send, and a good one's own checks would not let out."""

from __future__ import annotations

import numpy as np

from firmware_bridge.host.link import Link
from firmware_bridge.host.link_state import F64
from firmware_bridge.host.motion import chunk_message


class RudeLink(Link):
    """See the module."""

    def send_unchecked(self, t0_ns: int, dt_ns: int, q: F64, chunk_id: int) -> None:
        """A chunk [H, D] with neither limits, nor order, nor back-pressure; only the MCU can refuse it.

        Raises:
            TransportClosed: the cable is out.
        """
        samples = np.clip(np.rint(np.asarray(q) * 1e6), -(2**31), 2**31 - 1).astype(np.int64)
        self._chunk_id = max(self._chunk_id, chunk_id)
        t0_us = self._sync.to_mcu_us(t0_ns)
        self._talk.send(chunk_message(samples, t0_us, dt_ns, chunk_id, self.limits, self.encoding))
