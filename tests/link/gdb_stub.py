"""The few packets of gdb's remote protocol that hang a processor from outside, with no hook in the firmware."""

from __future__ import annotations

import socket
from pathlib import Path

PC = 15
SPIN = bytes.fromhex("fee7")
"""``b .`` : the main loop is gone; interrupts are as they were, which means masked if it slept."""
OPEN_SPIN = bytes.fromhex("62b6") + SPIN
"""``cpsie i; b .`` : the main loop is gone, interrupts run."""
MASKED_SPIN = bytes.fromhex("72b6") + SPIN
"""``cpsid i; b .`` : nothing but the NMI runs any more."""


class GdbStub:
    """A halted QEMU guest (connecting halts it); leaving the context lets it run on from its program counter."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10.0)
        self._socket.connect(str(path))
        self._buffer = b""

    def __enter__(self) -> GdbStub:
        self._ask("?")
        # QEMU lets single registers be written only by a client that has read their description.
        self._ask("qXfer:features:read:target.xml:0,ffb")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("D")
        finally:
            self._socket.close()

    def write_memory(self, address: int, data: bytes) -> None:
        reply = self._ask(f"M{address:x},{len(data):x}:{data.hex()}")
        assert reply == "OK", f"memory at {address:#x} not written: {reply!r}"

    def set_pc(self, address: int) -> None:
        reply = self._ask(f"P{PC:x}={address.to_bytes(4, 'little').hex()}")
        assert reply == "OK", f"program counter not set: {reply!r}"

    def hang(self, address: int, code: bytes = MASKED_SPIN) -> None:
        """Put ``code`` at ``address`` and make the processor run it."""
        self.write_memory(address, code)
        self.set_pc(address)

    def _ask(self, packet: str) -> str:
        body = packet.encode()
        self._socket.sendall(b"$" + body + b"#" + f"{sum(body) & 255:02x}".encode())
        while True:
            reply = self._packet()
            # A halted guest says so unasked too, sometimes a second time.
            if packet == "?" or not reply.startswith(("T05", "S05", "T02", "S02")):
                return reply

    def _packet(self) -> str:
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start + 1)
            if start >= 0 and 0 <= end <= len(self._buffer) - 3:
                packet = self._buffer[start + 1 : end].decode()
                self._buffer = self._buffer[end + 3 :]
                self._socket.sendall(b"+")
                return packet
            part = self._socket.recv(4096)
            assert part, "the gdb stub closed the connection"
            self._buffer += part
