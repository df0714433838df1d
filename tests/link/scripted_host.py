"""A host that can be killed: arms, moves axis x up and down at 0.2 m/s, and never stops by itself.

    python -m tests.link.scripted_host SOCKET [--freeze-policy-after S] [--max-clock-error-ms MS]

Prints CONNECTED, ARMED, MOVING, then one line per second; a refusal of the link ends it with its text.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

import numpy as np

from firmware_bridge.errors import LinkBusy
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import ChunkEncoding
from firmware_bridge.host.transport import open_unix
from tests.link.fake_mcu import LIMITS

SPEED = 0.2
SPAN = 0.4
DT_NS = 50_000_000
KNOTS = 16
LEAD_NS = 60_000_000
REPLAN_NS = 100_000_000
"""As the demo plans. With the 100 ms to HOST_SILENT it stays below the 250 ms to POLICY_FROZEN: a host that dies at
any moment of its cycle is found out by its silence."""
CYCLE_NS = 10_000_000


def triangle(seconds: np.ndarray) -> np.ndarray:
    """x(t): from 0 up to SPAN and back, at SPEED everywhere."""
    phase = np.mod(seconds * SPEED, 2 * SPAN)
    return np.where(phase < SPAN, phase, 2 * SPAN - phase)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--freeze-policy-after", type=float, default=1e9)
    parser.add_argument("--max-clock-error-ms", type=float, default=5.0)
    arguments = parser.parse_args()

    link = Link(
        open_unix(arguments.socket),
        LIMITS,
        max_clock_error_ns=round(arguments.max_clock_error_ms * 1e6),
        encoding=ChunkEncoding.I16_LSB,
    )
    link.connect()
    print("CONNECTED", flush=True)
    link.configure()
    link.arm()
    print("ARMED", flush=True)
    home = link.state.position
    begin = now = time.monotonic_ns()
    next_plan, counter, chunk_id = begin, 0, 0
    cycle = begin
    while True:
        link.poll()
        if now >= next_plan:
            next_plan += REPLAN_NS
            chunk_id += 1
            t0 = now + LEAD_NS
            q = np.tile(home, (KNOTS, 1))
            q[:, 0] = triangle((t0 + np.arange(KNOTS) * DT_NS - begin - LEAD_NS) / 1e9)
            with contextlib.suppress(LinkBusy):
                link.send_chunk(t0, DT_NS, q, chunk_id)
            if now - begin < arguments.freeze_policy_after * 1e9:
                counter += 1
            if chunk_id == 1:
                print("MOVING", flush=True)
        link.heartbeat(counter, 0)
        cycle += CYCLE_NS
        link.service(cycle)
        now = time.monotonic_ns()
        cycle = max(cycle, now - 5 * CYCLE_NS)


if __name__ == "__main__":
    sys.exit(main())
