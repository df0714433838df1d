"""What goes over a link is written down byte for byte and told in words, broken frames included."""

from __future__ import annotations

import json
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge_wam.cli.firmware import app
from firmware_bridge.errors import FirmwareError
from firmware_bridge.host import capture, messages, tap
from firmware_bridge.host.capture import FROM_HOST, FROM_MCU, CaptureFile, CapturingTransport, Piece
from firmware_bridge.host.framing import LinkFrame, encode_frame
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.sniff import Heard, Sniffer
from firmware_bridge.mcu.build import build
from firmware_bridge.protocol.definition import MESSAGES
from tests.link.fake_mcu import LIMITS

BEAT = messages.Heartbeat(12_345_678, 7, 250, messages.Degrade.COAST, messages.HEARTBEAT_FLAG_ARMED)


def framed(message: object, *, seq: int = 1, session: int = 0x4711, epoch: int = 3) -> bytes:
    return encode_frame(LinkFrame(message.TYPE, seq, session, message.pack(), epoch).pack())  # type: ignore[attr-defined]


def heard(data: bytes) -> list[Heard]:
    sniffer = Sniffer()
    return [*sniffer.feed(data, 5), *sniffer.end(5)]


def test_a_frame_is_told_with_its_direction_fields_units_and_meanings() -> None:
    (beat,) = heard(framed(BEAT))
    assert (beat.speaker, beat.name, beat.seq, beat.session, beat.epoch) == ("host", "Heartbeat", 1, 0x4711, 3)
    assert beat.values["sent_us"] == (12_345_678, "us")
    assert beat.values["degrade"] == (1, "COAST")
    assert beat.values["flags"] == (1, "ARMED")
    line = beat.line()
    assert "host" in line and "sent_us=12345678 us" in line and "degrade=1 COAST" in line


def test_the_samples_of_a_chunk_are_numbers() -> None:
    chunk = messages.Chunk(1, 2, 100, 2, 1, messages.ChunkEncoding.I32_MICRO, 0, 20, 0, struct.pack("<2i", -5, 9))
    (told,) = heard(framed(chunk))
    assert told.values["samples"] == ([-5, 9], "micro-units")


def test_a_frame_of_the_drive_stream_has_no_header() -> None:
    data = encode_frame(bytes([messages.Setpoint.TYPE]) + messages.Setpoint(9, 1, (4, -4)).pack())
    (told,) = heard(data)
    assert (told.speaker, told.values["setpoint"][0], told.values["flags"][1]) == ("mcu>drive", [4, -4], "ENABLE")


def test_every_message_of_the_definition_is_told(tmp_path: Path) -> None:
    for message in MESSAGES:
        kind = getattr(messages, message.name)
        zeros = {f.name: _zero(f.type, f.count) for f in message.fields}
        body = kind(**zeros).pack()
        head = bytes([kind.TYPE]) if message.direction in ("drive", "plant") else bytes([kind.TYPE, 0, 1, 0, 2, 0])
        (told,) = heard(encode_frame(head + body))
        assert told.error == "" and told.name == message.name and len(told.values) == len(message.fields)
        assert json.loads(json.dumps(told.record()))["message"] == message.name


def _zero(kind: str, count: str) -> object:
    if kind == "name":
        return b"x".ljust(messages.NAME_BYTES, b"\0")
    if count == "rest" and kind == "u8":
        return b""
    return (0,) * (int(count) if count.isdigit() else 0) if count else 0


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda f: f[:9] + bytes([f[9] ^ 0x40 or 1]) + f[10:], "wrong CRC"),
        (lambda f: b"\xff\x11\x12" + b"\0", "not COBS"),
        (lambda f: b"\x11" * 700 + b"\0", "longer than any frame"),
        (lambda f: f[:-4], "cut off"),
        (lambda f: encode_frame(LinkFrame(0x3F, 1, 1, b"").pack()), "unknown type 0x3f"),
        (lambda f: encode_frame(LinkFrame(messages.Arm.TYPE, 1, 1, b"123").pack()), "Arm with a payload of 3"),
        (lambda f: encode_frame(b"\x03"), "Heartbeat without a header"),
    ],
)
def test_a_broken_frame_is_shown_as_broken_with_its_bytes(damage: object, error: str) -> None:
    data = damage(framed(BEAT))  # type: ignore[operator]
    told = heard(data)[0]
    assert error in told.error and told.raw and not told.values
    assert "!!" in told.line() and told.raw[:4].hex(" ") in told.line()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1500), st.integers(1, 64))
def test_no_byte_is_hidden_and_nothing_raises(data: bytes, step: int) -> None:
    """A good frame after any noise is told; noise is told as errors with all its bytes."""
    good = framed(BEAT)
    sniffer = Sniffer()
    stream = data + b"\0" + good
    told = [h for at in range(0, len(stream), step) for h in sniffer.feed(stream[at : at + step], 1)]
    assert told[-1].name == "Heartbeat" and not told[-1].error
    shown = sum(len(h.raw) for h in told if h.error)
    assert shown == len(data) - data.count(0) or any(not h.error for h in told[:-1])


def test_a_session_with_the_core_is_captured_whole_in_both_directions(firmware: Path, tmp_path: Path) -> None:
    mcu = LibraryTransport(build("lib", firmware))
    path = tmp_path / "session.pcapng"
    link = Link(CapturingTransport(mcu, CaptureFile(path)), LIMITS, clock=mcu.now_ns)
    link.connect()
    link.close()
    told = list(tap.decode(tap.from_file(path)))
    assert not [h for h in told if h.error]
    names = {(h.speaker, h.name) for h in told}
    assert {("host", "HelloReq"), ("mcu", "Hello"), ("host", "TimeReq"), ("mcu", "TimeResp"), ("mcu", "State")} <= names
    times = [h.at_ns for h in told]
    assert times == sorted(times)


def test_a_recording_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcapng"
    pieces = [Piece(10, FROM_HOST, framed(BEAT)), Piece(20, FROM_MCU, b"\x01\x02"), Piece(30, FROM_HOST, b"abc")]
    data = capture.head() + b"".join(capture.packet(piece) for piece in pieces)
    path.write_bytes(data)
    assert list(capture.read(path)) == pieces
    for cut in range(len(capture.head()), len(data)):
        path.write_bytes(data[:cut])
        assert list(capture.read(path)) == pieces[: len(list(capture.read(path)))]


@pytest.mark.parametrize("content", [b"", b"\x0a\x0d\x0d\x0a", b"\x0a\x0d\x0d\x0a" + b"\xff" * 30, b"x" * 100])
def test_what_is_no_recording_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pcapng"
    path.write_bytes(content)
    with pytest.raises(FirmwareError, match="no recording"):
        list(capture.read(path))


def test_the_command_tells_lines_json_and_only_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "raw.bin"
    path.write_bytes(framed(BEAT) + b"\x05junk\0" + framed(messages.Hold(), seq=2))
    run = CliRunner()
    lines = run.invoke(app, ["sniff", str(path)]).stdout.splitlines()
    assert len(lines) == 3 and "Heartbeat" in lines[0] and "!!" in lines[1] and "Hold" in lines[2]
    documents = [json.loads(line) for line in run.invoke(app, ["sniff", str(path), "--json"]).stdout.splitlines()]
    assert [d["message"] for d in documents] == ["Heartbeat", "", "Hold"]
    assert documents[0]["units"]["sent_us"] == "us" and documents[1]["error"]
    only = run.invoke(app, ["sniff", str(path), "--only", "hold"]).stdout.splitlines()
    assert len(only) == 2 and "!!" in only[0]


def test_a_tap_in_the_middle_passes_both_directions_on_and_tells_them(tmp_path: Path) -> None:
    mcu_at, host_at = tmp_path / "mcu", tmp_path / "host"
    state = framed(messages.TimeResp(1, 2, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(mcu_at))
        server.listen(1)
        told: list[Heard] = []

        def listen() -> None:
            told.extend(tap.decode(tap.in_the_middle(host_at, mcu_at, seconds=20.0)))

        thread = threading.Thread(target=listen)
        thread.start()
        mcu, _ = server.accept()
        with mcu, _connect(host_at) as host:
            mcu.settimeout(10.0)
            host.settimeout(10.0)
            host.sendall(framed(BEAT))
            assert mcu.recv(4096) == framed(BEAT)
            mcu.sendall(state)
            assert host.recv(4096) == state
        thread.join(20.0)
    assert [(h.speaker, h.name) for h in told] == [("host", "Heartbeat"), ("mcu", "TimeResp")]
    assert not host_at.exists()


def _connect(path: Path) -> socket.socket:
    deadline = threading.Event()
    for _ in range(1000):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            return sock
        except OSError:
            sock.close()
            deadline.wait(0.01)
    raise AssertionError(f"{path} does not listen")
