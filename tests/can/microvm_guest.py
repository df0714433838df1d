"""Inside the virtual machine of :mod:`tests.can.microvm`: the kernel's own CAN, and the host's code on it."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import can

from firmware_bridge.host.can_transport import CanTransport
from firmware_bridge.host.conversation import Conversation
from firmware_bridge.host.guest_time import demo_table
from firmware_bridge.host.messages import (
    CAN_FD_LENGTHS,
    CAN_TO_HOST,
    SCHEMA_HASH,
    Ack,
    AckCode,
    CanClass,
    Estop,
    EstopClear,
    Event,
    EventAck,
    Hello,
    HostMessage,
    Limits,
    LimitsGet,
    McuMessage,
    McuState,
)
from firmware_bridge.mcu.build import DEFAULT_OUT
from tests.can.node import CanRig

N_SLCAN = 17
"""Line discipline, linux/tty.h."""
SIOCGIFNAME = 0x8910
SLOWER = 25
"""What an emulated processor is slower by, about."""


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


def _slow_clock() -> int:
    """Monotonic ns, slower by as much as a processor is that is itself emulated.

    The link's own patience is 20 ms for a HELLO. Here its decoding takes longer than that, and a host that asks again
    before it has read the answer drowns in answers.
    """
    return time.monotonic_ns() // SLOWER


def _talk_to_the_firmware(bus: can.BusABC, fd: bool) -> str:
    """HELLO, ten axes of limits written and read back, the emergency stop and its clearing."""
    transport = CanTransport(bus, fd=fd, clock=_slow_clock)
    talk = Conversation(transport, _slow_clock)
    heard: list[McuMessage] = []

    def until(done: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not done() and time.monotonic() < deadline:
            for message, _ in talk.poll():
                heard.append(message)
                if isinstance(message, Event):  # or it is sent again and again
                    talk.send(EventAck(message.event_id))
            transport.wait(0.05)
        return done()

    def hello() -> Hello:
        talk.ask_hello()
        assert until(lambda: not talk.hello_wanted, 60.0), f"no HELLO: {transport.counters}"
        assert talk.hello is not None
        return talk.hello

    def command(message: HostMessage) -> Ack:
        sent = talk.command(message)
        begin = time.perf_counter()
        assert until(lambda: sent.done, 20.0) and sent.answer is not None, f"{sent}: {transport.counters}"
        trips.append(1e3 * (time.perf_counter() - begin))
        return sent.answer

    try:
        assert hello().schema_hash == SCHEMA_HASH
        cut = transport.counters.segments.bad  # what was under way when the interface came up
        trips: list[float] = []
        for axis in demo_table(10).axes:
            answer = command(axis)
            assert answer.code == AckCode.OK, f"{axis}: {answer}"
            heard.clear()
            talk.send(LimitsGet(axis.axis))
            assert until(lambda: any(isinstance(message, Limits) for message in heard), 20.0), f"{transport.counters}"
            (read,) = [message for message in heard if isinstance(message, Limits)]
            assert read.pack() == axis.pack()
        command(Estop())
        latched = hello()
        assert latched.estop == 1 and latched.state == McuState.ESTOP
        assert command(EstopClear(latched.clear_nonce)).code == AckCode.OK
        assert hello().estop == 0
        counters = transport.counters
        assert counters.segments.bad == cut, f"{counters}"
        return (
            f"10 axes written and read back, emergency stop latched, reported and cleared; {len(trips)} commands "
            f"acknowledged, p50 {_percentile(trips, 0.5):.0f} ms, max {max(trips):.0f} ms, {talk.counters.resent} sent "
            f"again; {counters.frames_sent} frames out, {counters.frames_received} in, "
            f"{cut} transfers cut by the beginning and none later"
        )
    finally:
        transport.close()


def _socketcan(interface: str, fd: bool) -> can.BusABC:
    """The kernel filters STATE out: 100 of them a second are more than Python decodes in here."""
    classes = [kind for kind in CanClass if kind is not CanClass.MOTION]
    filters = [{"can_id": kind << 8 | CAN_TO_HOST | 0x10, "can_mask": 0x7F0, "extended": False} for kind in classes]
    return can.Bus(interface="socketcan", channel=interface, fd=fd, can_filters=filters)


def _received(interface: str) -> int:
    """Frames that a network interface has taken in since it is there."""
    return int(Path(f"/sys/class/net/{interface}/statistics/rx_packets").read_text(encoding="ascii"))


def _raw(tty: str) -> int:
    """A terminal without any processing, as a file descriptor."""
    fd = os.open(tty, os.O_RDWR | os.O_NOCTTY)
    attributes = termios.tcgetattr(fd)
    attributes[0] = attributes[1] = attributes[3] = 0
    attributes[2] = termios.CS8 | termios.CREAD | termios.CLOCAL | termios.B115200
    attributes[4] = attributes[5] = termios.B115200
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    return fd


def the_firmware_answers_through_the_kernels_slcan(tty: str) -> str:
    """slcand's work in a few lines, then SocketCAN: classic, as the kernel's slcan has no FD."""
    fd = _raw(tty)
    os.write(fd, b"\rC\rS8\r")
    time.sleep(0.5)
    termios.tcflush(fd, termios.TCIFLUSH)
    os.write(fd, b"O\r")  # and at once: a terminal that is full before the line discipline is there stays throttled
    fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", N_SLCAN))
    try:
        name = fcntl.ioctl(fd, SIOCGIFNAME, bytes(40)).split(b"\0")[0].decode()
        _sh(f"ip link set {name} up")
        said = _talk_to_the_firmware(_socketcan(name, fd=False), fd=False)
        said += f"; {_received(name)} frames through the line discipline"
        _sh(f"ip link set {name} down")
    finally:
        fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", 0))
        os.close(fd)
    return f"{name}: {said}"


def the_firmware_answers_fd_frames_through_vcan(tty: str) -> str:
    """vcan1 to slcan by a relay in a process of its own, because no adapter's kernel driver is here."""
    _sh("ip link add dev vcan1 type vcan", "ip link set vcan1 mtu 72", "ip link set vcan1 up")
    relay = multiprocessing.get_context("fork").Process(target=_relay, args=(tty, "vcan1"), daemon=True)
    relay.start()
    try:
        said = _talk_to_the_firmware(_socketcan("vcan1", fd=True), fd=True)
        assert relay.is_alive()
        return said
    finally:
        relay.kill()
        relay.join()


def _relay(tty: str, interface: str) -> None:
    """An adapter with FD: lines to frames and frames to lines, STATE left out. On bytes: objects cost too much.

    It goes before the conversation, and what came together it passes on together: between two frames of a transfer the
    firmware waits for 100 ms at most.
    """
    os.nice(-10)
    line = _raw(tty)
    os.write(line, b"\rC\rS8\rY5\rO\r")
    wire = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    wire.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
    wire.bind((interface,))
    poller = select.poll()
    for source in (line, wire.fileno()):
        poller.register(source, select.POLLIN)
    motion = b"%X" % CanClass.MOTION
    rest = b""
    while True:
        readable = [fd for fd, _ in poller.poll()]
        if wire.fileno() in readable:
            lines = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    lines.append(_line(wire.recv(72, socket.MSG_DONTWAIT)))
            os.write(line, b"".join(lines))
        if line in readable:
            *lines, rest = (rest + os.read(line, 4096)).replace(b"\a", b"").split(b"\r")
            for text in lines:
                if text[:1] in (b"t", b"b") and text[1:2] != motion:
                    wire.send(_frame(text))


def _frame(line: bytes) -> bytes:
    """``struct can_frame`` or ``struct canfd_frame`` of a line of slcan."""
    data = bytes.fromhex(line[5:].decode("ascii"))
    flags, size = (5, 72) if line[:1] == b"b" else (0, 16)  # 5: an FD frame, its bit rate switched
    return struct.pack("=IBBxx64s", int(line[1:4], 16), len(data), flags, data)[:size]


def _line(frame: bytes) -> bytes:
    """And back."""
    identifier, count = struct.unpack_from("=IB", frame)
    kind = b"b" if len(frame) == 72 else b"t"
    data = frame[8 : 8 + count].hex().upper().encode("ascii")
    return kind + b"%03X%X" % (identifier & 0x7FF, CAN_FD_LENGTHS.index(count)) + data + b"\r"


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


