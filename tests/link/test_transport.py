"""A transport moves bytes without ever blocking its owner, and says when the cable is out."""

from __future__ import annotations

import os
import pty
import socket
import threading
import time
from pathlib import Path

import pytest

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host.transport import OUTBOX_BYTES, SocketTransport, open_serial, open_tcp, open_unix


def _pair() -> tuple[SocketTransport, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return SocketTransport(ours, "pair"), theirs


def test_bytes_go_both_ways_and_reading_nothing_does_not_block() -> None:
    transport, peer = _pair()
    assert transport.read() == b""
    transport.write(b"abc")
    assert peer.recv(10) == b"abc"
    peer.sendall(b"xyz")
    assert transport.wait(1.0)
    assert transport.read() == b"xyz"
    transport.close()
    peer.close()


def test_waiting_for_silence_takes_the_timeout_and_no_more() -> None:
    transport, peer = _pair()
    start = time.monotonic()
    assert not transport.wait(0.05)
    assert 0.04 <= time.monotonic() - start < 0.5
    transport.close()
    peer.close()


def test_a_peer_that_does_not_read_never_blocks_and_whole_frames_are_dropped() -> None:
    transport, peer = _pair()
    frame = bytes(range(256)) * 4
    start = time.monotonic()
    for _ in range(2000):
        transport.write(frame)
    assert time.monotonic() - start < 2.0
    assert transport.dropped_frames > 0
    assert len(transport._outbox) <= OUTBOX_BYTES
    peer.settimeout(0.2)
    got = bytearray()
    while True:
        try:
            got += peer.recv(1 << 20)
        except TimeoutError:
            break
        transport.read()
    assert bytes(got) == frame * (len(got) // len(frame))
    assert len(got) // len(frame) == 2000 - transport.dropped_frames
    transport.close()
    peer.close()


def test_a_gone_peer_is_reported_after_the_last_bytes_were_delivered() -> None:
    transport, peer = _pair()
    peer.sendall(b"last words")
    peer.close()
    assert transport.read() == b"last words"
    with pytest.raises(TransportClosed, match="gone"):
        transport.read()
    with pytest.raises(TransportClosed):
        transport.write(b"anyone?")
    transport.close()
    transport.close()


def test_using_a_closed_transport_is_an_error_not_another_descriptor() -> None:
    transport, peer = _pair()
    transport.close()
    with pytest.raises(TransportClosed):
        transport.write(b"x")
    with pytest.raises(TransportClosed):
        transport.read()
    peer.close()


def test_connecting_waits_for_the_listener_to_appear(tmp_path: Path) -> None:
    path = tmp_path / "u0"

    def listen() -> None:
        time.sleep(0.1)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            server.accept()[0].close()

    thread = threading.Thread(target=listen)
    thread.start()
    open_unix(path, timeout_s=5.0).close()
    thread.join()


def test_connecting_to_nobody_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="remedy"):
        open_unix(tmp_path / "nobody", timeout_s=0.05)


def test_tcp_is_connected_without_delay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = open_tcp("127.0.0.1", server.getsockname()[1])
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"hi")
            assert transport.wait(1.0) and transport.read() == b"hi"
        transport.close()


def test_a_terminal_is_raw_so_that_every_byte_value_passes() -> None:
    master, slave = pty.openpty()
    transport = open_serial(os.ttyname(slave))
    os.close(slave)
    everything = bytes(range(256))
    transport.write(everything)
    got = b""
    while len(got) < 256:
        got += os.read(master, 256)
    assert got == everything
    os.write(master, everything)
    got = b""
    while len(got) < 256 and transport.wait(1.0):
        got += transport.read()
    assert got == everything
    os.close(master)
    with pytest.raises(TransportClosed):
        transport.read()
    transport.close()


def test_a_missing_serial_port_is_refused_with_a_remedy() -> None:
    with pytest.raises(LinkError, match="dialout"):
        open_serial("/dev/does-not-exist")
