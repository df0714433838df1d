"""Is this machine fit to run the arm? Every check says what it found and, where it is not good, what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_wam.config import RunConfig, load_config
from edge_wam.errors import EdgeWamError
from firmware_bridge.errors import FirmwareError

_DISK_FREE_GB = 2.0
_MEMORY_FREE_GB = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        good: True, False, or None: not good, but something works without it.
        remedy: what to do, where it is not good.
    """

    name: str
    good: bool | None
    text: str
    remedy: str = ""


Check = Callable[[RunConfig], Finding]


def _python(_: RunConfig) -> Finding:
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("python", good, platform.python_version(), "" if good else "use Python 3.11, 3.12 or 3.13")


def _packages(_: RunConfig) -> Finding:
    names = ("numpy", "onnxruntime", "pydantic", "mcap", "cryptography", "pyserial")
    try:
        found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        return Finding("packages", False, f"{error.name} is missing", "pip install edge-wam")
    return Finding("packages", True, found)


def _kernels(_: RunConfig) -> Finding:
    from edge_wam import kernels

    if kernels.backend() != "numpy":
        return Finding("kernels", True, f"compiled ({kernels.backend()})")
    return Finding("kernels", None, "numpy: correct but slow", "make kernels (needs a C compiler)")


def _simulator(config: RunConfig) -> Finding:
    """Draw the cameras of a scene, as the demo does: packages, graphics and speed in one."""
    if config.link.kind != "emulator":
        return Finding("simulator", True, "not needed by this configuration")
    from edge_wam.sim.world import World

    try:
        world = World("reach", 0)
        for camera in ("corner2", "topview"):
            world.render(camera)
        began = time.perf_counter()
        for camera in ("corner2", "topview"):
            world.render(camera)
        took_ms = 1000 * (time.perf_counter() - began)
        world.close()
    except EdgeWamError as error:
        return Finding("simulator", False, error.what, error.remedy)
    text = f"Meta-World {importlib.metadata.version('metaworld')}, two pictures in {took_ms:.0f} ms"
    if took_ms > 40.0:  # of the 50 ms between two pictures of a 20 Hz camera
        return Finding("simulator", None, text, "free the processor: cameras draw every 50 ms")
    return Finding("simulator", True, text)


def _firmware(config: RunConfig) -> Finding:
    from firmware_bridge.host.emulator import choose_kind
    from firmware_bridge.mcu.build import build

    kind = choose_kind() if config.link.emulator == "auto" else config.link.emulator
    try:
        path = build("mps2-an386-realtime" if kind == "qemu" else "host")
    except FirmwareError as error:
        return Finding("firmware", False, error.what, error.remedy)
    if kind == "host" and config.link.kind == "emulator":
        return Finding("firmware", None, f"{path.name}: host port, QEMU or its compiler is not installed",
                       "apt-get install --no-install-recommends qemu-system-arm gcc-arm-none-eabi")
    return Finding("firmware", True, f"{path.name} builds")


def _microcontroller(config: RunConfig) -> Finding:
    from firmware_bridge.host.emulator import QEMU

    if config.link.kind == "emulator":
        found = shutil.which(QEMU)
        return Finding("microcontroller", True if found else None,
                       f"emulated by {QEMU}" if found else "emulated by the firmware's host port",
                       "" if found else "apt-get install --no-install-recommends qemu-system-arm")
    return _real_microcontroller(config)


def _real_microcontroller(config: RunConfig) -> Finding:
    """Say hello to the board: it answers with its protocol and build. Nothing is armed."""
    from edge_wam.control_process import open_transport
    from edge_wam.embodiment import load_embodiment
    from edge_wam.limit_table import limit_table
    from firmware_bridge.host.link import Link

    name, address = "microcontroller", config.link.address
    if config.link.kind == "serial" and not os.access(address, os.R_OK | os.W_OK):
        there = Path(address).exists()
        return Finding(name, False, f"{address} {'may not be opened' if there else 'does not exist'}",
                       "add this user to the group dialout" if there else "check cable, power and the device name")
    try:
        link = Link(open_transport(config.link.kind, address, config.link),
                    limit_table(load_embodiment(config.robot)))
        try:
            state = link.connect()
        finally:
            link.close()
    except (FirmwareError, EdgeWamError) as error:
        return Finding(name, False, error.what, error.remedy)
    return Finding(name, True, f"{address}: {state.mcu_state.name}, last reset {state.reset_cause.name}")


def _bundle(config: RunConfig) -> Finding:
    from edge_wam.app.opening import open_configured_bundle

    try:
        bundle = open_configured_bundle(config)
    except EdgeWamError as error:
        return Finding("bundle", False, error.what, error.remedy)
    assert bundle.signer is not None
    text = f"{bundle.manifest.name} {bundle.model_hash[:12]}, signed by {bundle.signer.name}"
    if bundle.signer.is_demo and config.link.kind != "emulator":
        return Finding("bundle", None, text, "sign it with your own key and set allow_demo_key = false")
    return Finding("bundle", True, text)


def _golden(config: RunConfig) -> Finding:
    from edge_wam.app.opening import open_configured_bundle
    from edge_wam.policy import Policy

    try:
        policy = Policy(open_configured_bundle(config), threads=config.plan.threads)
        result = policy.verify_golden()
    except EdgeWamError as error:
        return Finding("golden run", False, error.what, error.remedy)
    timing = policy.last_timing
    took = f", {timing.total_ns / 1e6:.0f} ms a call" if timing is not None else ""
    same = "equal to the last bit" if result.exact else f"off by {result.worst:.2g}, within tolerance"
    if timing is not None and timing.total_ns / 1e6 > config.plan.deadline_ms / 2:
        return Finding("golden run", None, same + took + f": close to the deadline of {config.plan.deadline_ms:g} ms",
                       "free the machine, or raise plan.threads; see edge-wam bench")
    return Finding("golden run", True, same + took)


def _recordings(config: RunConfig) -> Finding:
    folder = config.recording_dir.resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("recordings", False, f"{folder} is not writable", "set recording_dir in the configuration")
    free = shutil.disk_usage(existing).free / 1e9
    good = free > _DISK_FREE_GB
    return Finding("recordings", good, f"{folder}, {free:.0f} GB free",
                   "" if good else f"free the disk: at least {_DISK_FREE_GB:g} GB")


def _cores(config: RunConfig) -> Finding:
    count = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    text = f"{count} cores, load {load:.1f}"
    if count < 2:
        return Finding("processor", None, text, "two cores: one for the emulated microcontroller, one for the rest")
    if load > count:
        return Finding("processor", None, text, "end other programs: real time needs idle cores")
    return Finding("processor", True, text)


def _memory(_: RunConfig) -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    good = free > _MEMORY_FREE_GB
    return Finding("memory", good, f"{free:.1f} GB available", "" if good else "free memory: at least 1 GB")


def _priority(config: RunConfig) -> Finding:
    """What the configuration asks of the operating system, against what this user may have."""
    wanted = config.realtime
    refused = []
    if wanted.nice < 0:
        floor = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
        if os.geteuid() != 0 and wanted.nice < floor:
            refused.append(f"nice {wanted.nice}")
    may_have = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    if os.geteuid() != 0 and wanted.fifo_priority > may_have >= 0:
        refused.append(f"SCHED_FIFO {wanted.fifo_priority}")
    if refused:
        return Finding("priority", None, f"this user may not have {' and '.join(refused)}",
                       "raise the limits nice and rtprio for this user in /etc/security/limits.conf")
    return Finding("priority", True, f"nice {wanted.nice}, SCHED_FIFO {wanted.fifo_priority or 'off'}")


def _shared_memory(_: RunConfig) -> Finding:
    from edge_wam.shm import Mailbox

    try:
        box = Mailbox.create("doctor", 64)
        box.put(b"hello")
        got = box.get()
        box.close()
        os.close(box.fd)
    except OSError as error:
        return Finding("shared memory", False, f"{error.strerror}", "a Linux kernel with memfd_create is needed")
    return Finding("shared memory", got is not None and got[1] == b"hello", "frames and mailboxes work")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("kernels", _kernels),
    ("shared memory", _shared_memory),
    ("processor", _cores),
    ("memory", _memory),
    ("priority", _priority),
    ("recordings", _recordings),
    ("simulator", _simulator),
    ("firmware", _firmware),
    ("microcontroller", _microcontroller),
    ("bundle", _bundle),
    ("golden run", _golden),
)


def examine(config_file: Path) -> Iterator[Finding]:
    """Every check, one after the other. No check moves anything, and none ends the examination.

    A configuration that cannot be read is the only finding, because every other check depends on it.
    """
    try:
        config = load_config(config_file)
    except EdgeWamError as error:
        yield Finding("configuration", False, error.what, error.remedy)
        return
    yield Finding("configuration", True, str(config_file))
    for name, check in CHECKS:
        try:
            yield check(config)
        except Exception as error:  # a check that breaks is itself a finding; the others still run
            yield Finding(name, False, f"the check itself failed: {type(error).__name__}: {error}", "report this")
