"""Buses of python-can that need no driver, and a rig on them."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest

from firmware_bridge.mcu.build import build
from tests.can.node import CanRig
from tests.link.bench import ROOT
from tests.link.conftest import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]  # a test that the machine demonstrably stalled is done again

_CHANNELS = itertools.count()


@pytest.fixture(scope="session")
def firmware() -> Path:
    """Where builds are kept between runs."""
    return ROOT / "build" / "firmware"


@pytest.fixture(scope="session")
def library(firmware: Path) -> Path:
    return build("lib", firmware)


def open_buses(interface: str) -> tuple[can.BusABC, can.BusABC]:
    """Two ends of one bus."""
    if interface == "virtual":
        channel = f"edge-wam-{next(_CHANNELS)}"
        return can.Bus(interface="virtual", channel=channel), can.Bus(interface="virtual", channel=channel)
    # Multicast that does not leave this machine. A port of our own, or two test runs would share one bus.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    first, second = (
        can.Bus(interface="udp_multicast", channel="239.74.163.2", port=port, hop_limit=0, fd=True) for _ in range(2)
    )
    return first, second


@pytest.fixture
def make_rig(library: Path) -> Iterator[Callable[..., CanRig]]:
    """Rigs that are closed at the end."""
    rigs: list[CanRig] = []

    def make(interface: str = "virtual", *, fd: bool = True, seed: int = 1) -> CanRig:
        rigs.append(CanRig(library, open_buses(interface), fd=fd, seed=seed))
        rigs[-1].mcu.patience_s = 0.0005 if interface == "udp_multicast" else 0.0
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
