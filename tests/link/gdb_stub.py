"""The few packets of gdb's remote protocol that hang a processor from outside, with no hook in the firmware."""

from __future__ import annotations

import socket
from pathlib import Path

PC = 15
SPIN = bytes.fromhex("fee7")
"""``b .`` : the main loop is gone, interrupts still run."""
MASKED_SPIN = bytes.fromhex("72b6") + SPIN
"""``cpsid i; b .`` : nothing but the NMI runs any more."""


class GdbStub:
    """A halted QEMU guest (connecting halts it); leaving the context lets it run on from its program counter."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10.0)
        self._socket.connect(str(path))

    def __enter__(self) -> GdbStub:
        self._ask("?")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("D")
        finally:
            self._socket.close()

    def write_memory(self, address: int, data: bytes) -> None:
        reply = self._ask(f"M{address:x},{len(data):x}:{data.hex()}")
        assert reply == "OK", f"memory at {address:#x} not written: {reply!r}"

    def read_memory(self, address: int, length: int) -> bytes:
        return bytes.fromhex(self._ask(f"m{address:x},{length:x}"))

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
        data = b""
        while True:
            part = self._socket.recv(4096)
            assert part, "the gdb stub closed the connection"
            data += part
            start = data.find(b"$")
            end = data.find(b"#", start + 1)
            if start >= 0 and 0 <= end <= len(data) - 3:
                self._socket.sendall(b"+")
                return data[start + 1 : end].decode()
