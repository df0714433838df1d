"""Inside the virtual machine of :mod:`tests.can.microvm`: the kernel's own CAN, and the host's code on it."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable

import can
import numpy as np

from firmware_bridge.host.can_transport import CanOptions, open_can
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import ChunkEncoding, McuState
from firmware_bridge.host.slcan_bus import SlcanBus
from firmware_bridge.mcu.build import DEFAULT_OUT
from tests.can.node import CanRig
from tests.link.fake_mcu import LIMITS

N_SLCAN = 17
"""Line discipline, linux/tty.h."""
SIOCGIFNAME = 0x8910
CLOCK_ERROR_NS = 5_000_000


def _sh(*commands: str) -> None:
    """BusyBox's ``ip``: this machine's files need not have one."""
    for command in commands:
        done = subprocess.run(["/dev/busybox", *command.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def raw_frames_pass_vcan(_tty: str) -> str:
    """AF_CAN raw sockets, FD, both ways."""
    _sh("ip link add dev vcan0 type vcan", "ip link set vcan0 mtu 72", "ip link set vcan0 up")
    times = []
    with (
        can.Bus(interface="socketcan", channel="vcan0", fd=True) as a,
        can.Bus(interface="socketcan", channel="vcan0", fd=True) as b,
    ):
        for i in range(200):
            data = bytes([i]) * 64
            begin = time.perf_counter()
            a.send(can.Message(arbitration_id=0x123, is_extended_id=False, is_fd=True, bitrate_switch=True, data=data))
            got = b.recv(1.0)
            times.append(time.perf_counter() - begin)
            assert got is not None and bytes(got.data) == data and got.is_fd and got.bitrate_switch
    return f"200/200 FD frames, p50 {1e6 * _percentile(times, 0.5):.0f} us, p99 {1e6 * _percentile(times, 0.99):.0f} us"


def the_core_is_driven_over_vcan(_tty: str) -> str:
    """The native core on one socket, the host's link on another, in the core's own time."""
    said = []
    for fd in (False, True):
        buses = [can.Bus(interface="socketcan", channel="vcan0", fd=True) for _ in range(2)]
        rig = CanRig(DEFAULT_OUT / "libedgewam_mcu.so", (buses[0], buses[1]), fd=fd)
        rig.mcu.patience_s = 0.002
        rig.ready()
        rig.send(rig.ramp(), 1)
        rig.run(0.3)
        assert rig.link.state.mcu_state is McuState.RUN
        rig.link.estop()
        rig.run(0.3)
        assert rig.link.state.mcu_state is McuState.ESTOP
        counters = rig.transport.counters
        assert counters.segments.bad == 0
        said.append(f"{'FD' if fd else 'classic'}: {counters.frames_sent} frames out, {counters.frames_received} in")
        rig.close()
    return "; ".join(said)


def _drive_the_firmware(interface: str, fd: bool) -> str:
    """Hello, configure, arm, move, emergency stop, over a network interface of the kernel."""
    transport = open_can(CanOptions("socketcan", interface, fd=fd))
    link = Link(transport, LIMITS, max_clock_error_ns=CLOCK_ERROR_NS, encoding=ChunkEncoding.I16_LSB)
    policy = 0

    def run(seconds: float) -> None:
        nonlocal policy
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            policy += 1
            link.heartbeat(policy, 0)
            link.poll()
            link.service(time.monotonic_ns() + 10_000_000)

    try:
        link.connect()
        rtt = link.state.rtt_ns
        if link.state.mcu_state is McuState.ESTOP:
            link.clear_estop()
        link.configure()
        link.arm()
        begin_ns = time.monotonic_ns() + 200_000_000
        q = np.tile(np.array(link.state.position), (16, 1))
        q[:, 0] += 0.05 * 0.05 * np.arange(16)
        start = q[0, 0]
        link.send_chunk(begin_ns, 50_000_000, q, 1)
        run(0.7)
        moved = link.state.position[0] - start
        state = link.state.mcu_state
        answer = link.state.last_chunk
        assert state is McuState.RUN, f"{state.name} by {link.state.stop_cause.name}"
        assert answer is not None and moved > 0.005, moved
        link.estop()
        run(0.4)
        assert link.state.mcu_state is McuState.ESTOP
        link.clear_estop()
        counters = transport.counters
        return (
            f"shortest round trip {rtt / 1e6:.1f} ms, chunk answered in {answer.round_trip_ns / 1e6:.1f} ms, moved "
            f"{1000 * moved:.1f} mm, {counters.frames_sent} frames out, {counters.frames_received} in, "
            f"{counters.segments.bad} bad, {counters.error_frames} error frames"
        )
    finally:
        link.close()


def the_firmware_is_driven_through_the_kernels_slcan(tty: str) -> str:
    """slcand's work in a few lines, then SocketCAN: classic, as the kernel's slcan has no FD."""
    fd = os.open(tty, os.O_RDWR | os.O_NOCTTY)
    attributes = termios.tcgetattr(fd)
    attributes[0] = attributes[1] = attributes[3] = 0
    attributes[2] = termios.CS8 | termios.CREAD | termios.CLOCAL | termios.B115200
    attributes[4] = attributes[5] = termios.B115200
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    os.write(fd, b"\rC\rS8\rO\r")
    time.sleep(0.2)
    termios.tcflush(fd, termios.TCIFLUSH)
    fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", N_SLCAN))
    try:
        name = fcntl.ioctl(fd, SIOCGIFNAME, bytes(40)).split(b"\0")[0].decode()
        _sh(f"ip link set {name} up")
        said = _drive_the_firmware(name, fd=False)
        _sh(f"ip link set {name} down")
    finally:
        fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", 0))
        os.close(fd)
    return f"{name}: {said}"


def the_firmware_is_driven_with_fd_frames_through_vcan(tty: str) -> str:
    """vcan0 to slcan by a relay, because no adapter's kernel driver is here."""
    _sh("ip link add dev vcan1 type vcan", "ip link set vcan1 mtu 72", "ip link set vcan1 up")
    stop = threading.Event()
    line = SlcanBus(tty, 1_000_000, 5_000_000, tty_baudrate=115_200)
    wire = can.Bus(interface="socketcan", channel="vcan1", fd=True)

    def relay(source: can.BusABC, sink: can.BusABC) -> None:
        while not stop.is_set():
            message = source.recv(0.05)
            while message is not None:
                try:
                    sink.send(message)
                    break
                except can.CanOperationError:
                    time.sleep(0.001)  # the line is slower than the bus

    threads = [threading.Thread(target=relay, args=pair) for pair in ((line, wire), (wire, line))]
    for thread in threads:
        thread.start()
    try:
        return _drive_the_firmware("vcan1", fd=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        wire.shutdown()
        line.shutdown()


STEPS: tuple[Callable[[str], str], ...] = (
    raw_frames_pass_vcan,
    the_core_is_driven_over_vcan,
    the_firmware_is_driven_through_the_kernels_slcan,
    the_firmware_is_driven_with_fd_frames_through_vcan,
)


def main(arguments: list[str]) -> int:
    """0 if every step passed."""
    print(f"kernel {os.uname().release}, Python {sys.version.split()[0]}, python-can {can.__version__}", flush=True)
    failed = 0
    for step in STEPS:
        try:
            print(f"PASS {step.__name__}: {step(arguments[0])}", flush=True)
        except Exception:  # every step is to be seen
            failed += 1
            print(f"FAIL {step.__name__}\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


