"""The capture loop of one camera process: paced by absolute deadlines, each frame stamped before it is taken."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_wam.contracts import U8
from edge_wam.realtime import Pacer
from edge_wam.shm import FrameRing


def capture_loop(
    grab: Callable[[], tuple[U8, int] | None], ring: FrameRing, rate_hz: float, stop: Callable[[], bool]
) -> Pacer:
    """Publish ``grab()`` into ``ring`` at ``rate_hz`` until ``stop()``.

    Args:
        grab: returns (image uint8 [height, width, 3], capture time in ns of CLOCK_MONOTONIC), or None when the device
            has no new image: nothing is published then, so that the reader sees the camera fall silent.
            The capture time is when the light (or the simulated state) was sampled, not when the copy was done.
        ring: the ring of this camera; its size is the image's size.
        rate_hz: frames per second.
        stop: asked once per frame.

    Returns:
        The pacer, with its lateness histogram.
    """
    pacer = Pacer(rate_hz)
    pacer.start(time.monotonic_ns())
    while not stop():
        got = grab()
        if got is not None:
            ring.publish(*got)
        pacer.sleep()
    return pacer
