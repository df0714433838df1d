"""Inside the virtual machine of :mod:`tests.can.microvm`: the kernel's own CAN, and the host's code on it."""

from __future__ import annotations

import contextlib
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

from firmware_bridge.host.can_transport import CanOptions, open_can
from firmware_bridge.host.conversation import Conversation
from firmware_bridge.host.messages import (
    CAN_TO_HOST,
    SCHEMA_HASH,
    CanClass,
    Estop,
    EstopClear,
    Hello,
    Limits,
    LimitsGet,
    McuMessage,
    McuState,
)
from firmware_bridge.host.slcan_bus import SlcanBus
from firmware_bridge.mcu.build import DEFAULT_OUT
from tests.can.node import CanRig

N_SLCAN = 17
"""Line discipline, linux/tty.h."""
SIOCGIFNAME = 0x8910


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


def _talk_to_the_firmware(interface: str, fd: bool) -> str:
    """HELLO, twenty commands, the emergency stop and its clearing, over a network interface of the kernel.

    A processor that is itself emulated does not keep up with 100 reports a second through Python: the kernel filters
    STATE out, and what is asserted is every answer.
    """
    transport = open_can(CanOptions("socketcan", interface, fd=fd))
    assert transport._bus is not None
    classes = [kind for kind in CanClass if kind is not CanClass.MOTION]
    transport._bus.set_filters(
        [{"can_id": kind << 8 | CAN_TO_HOST | 0x10, "can_mask": 0x7F0, "extended": False} for kind in classes]
    )
    talk = Conversation(transport, time.monotonic_ns)

    heard: list[McuMessage] = []

    def until(done: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not done() and time.monotonic() < deadline:
            heard.extend(message for message, _ in talk.poll())
            transport.wait(0.005)
        return done()

    def hello() -> Hello:
        talk.ask_hello()
        assert until(lambda: not talk.hello_wanted, 30.0), "no HELLO"
        assert talk.hello is not None
        return talk.hello

    try:
        assert hello().schema_hash == SCHEMA_HASH
        trips = []
        for _ in range(20):
            heard.clear()
            begin = time.perf_counter()
            talk.send(LimitsGet(0))
            if until(lambda: any(isinstance(message, Limits) for message in heard), 5.0):
                trips.append(1e3 * (time.perf_counter() - begin))
        assert len(trips) == 20, f"{len(trips)} of 20 commands answered"
        talk.send(Estop())
        until(lambda: False, 1.0)
        latched = hello()
        assert latched.estop == 1 and latched.state == McuState.ESTOP
        talk.send(EstopClear(latched.clear_nonce))
        until(lambda: False, 1.0)
        assert hello().estop == 0
        counters = transport.counters
        return (
            f"20/20 commands answered, p50 {_percentile(trips, 0.5):.0f} ms, max {max(trips):.0f} ms; "
            f"emergency stop latched, reported and cleared; {counters.frames_sent} frames out, "
            f"{counters.frames_received} in, {counters.segments.bad} transfers incomplete"
        )
    finally:
        transport.close()


def the_firmware_answers_through_the_kernels_slcan(tty: str) -> str:
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
        said = _talk_to_the_firmware(name, fd=False)
        _sh(f"ip link set {name} down")
    finally:
        fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", 0))
        os.close(fd)
    return f"{name}: {said}"


def the_firmware_answers_fd_frames_through_vcan(tty: str) -> str:
    """vcan0 to slcan by a relay, because no adapter's kernel driver is here."""
    _sh("ip link add dev vcan1 type vcan", "ip link set vcan1 mtu 72", "ip link set vcan1 up")
    stop = threading.Event()
    line = SlcanBus(tty, 1_000_000, 5_000_000, tty_baudrate=115_200)
    wire = can.Bus(interface="socketcan", channel="vcan1", fd=True)

    def relay() -> None:
        """One thread: a bus is nobody's who shares it."""
        while not stop.is_set():
            for source, sink in ((line, wire), (wire, line)):
                message = source.recv(0.002)
                while message is not None:
                    with contextlib.suppress(can.CanOperationError):  # the line is slower than the bus
                        if message.arbitration_id >> 8 != CanClass.MOTION:  # see above
                            sink.send(message)
                        message = source.recv(0.0)

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        return _talk_to_the_firmware("vcan1", fd=True)
    finally:
        stop.set()
        thread.join()
        wire.shutdown()
        line.shutdown()


STEPS: tuple[Callable[[str], str], ...] = (
    raw_frames_pass_vcan,
    the_core_is_driven_over_vcan,
    the_firmware_answers_through_the_kernels_slcan,
    the_firmware_answers_fd_frames_through_vcan,
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


