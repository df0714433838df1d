"""The few packets of gdb's remote protocol with which a running Cortex-M is hung, flooded or overflowed from outside.

No hook in the firmware is needed: the processor is halted, memory and registers are changed, and it runs on. Under
QEMU the guest's clock stands still while it is halted, so an intervention costs no guest time.
"""

from __future__ import annotations

import socket
from pathlib import Path

from firmware_bridge.errors import FirmwareError

PC = 15
SPIN = bytes.fromhex("fee7")
"""``b .`` : the main loop is gone; interrupts are as they were, which means masked if it slept."""
OPEN_SPIN = bytes.fromhex("62b6") + SPIN
"""``cpsie i; b .`` : the main loop is gone, interrupts run."""
MASKED_SPIN = bytes.fromhex("72b6") + SPIN
"""``cpsid i; b .`` : nothing but the NMI runs any more."""


class GdbStub:
    """A halted guest (connecting halts it); leaving the context lets it run on from its program counter.

    Raises:
        FirmwareError: the stub refused, or went away.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30.0)
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
        self._order(f"M{address:x},{len(data):x}:{data.hex()}", f"memory at {address:#x}")

    def read_memory(self, address: int, count: int) -> bytes:
        reply = self._ask(f"m{address:x},{count:x}")
        if len(reply) != 2 * count:
            raise FirmwareError(f"gdb stub: memory at {address:#x} not read: {reply!r}")
        return bytes.fromhex(reply)

    def read_word(self, address: int) -> int:
        """A 32-bit register of a device, or a word of memory."""
        return int.from_bytes(self.read_memory(address, 4), "little")

    def write_word(self, address: int, value: int) -> None:
        self.write_memory(address, value.to_bytes(4, "little"))

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self._ask(f"p{number:x}")), "little")

    def set_register(self, number: int, value: int) -> None:
        self._order(f"P{number:x}={value.to_bytes(4, 'little').hex()}", f"register {number}")

    def set_pc(self, address: int) -> None:
        self.set_register(PC, address)

    def hang(self, address: int, code: bytes = MASKED_SPIN) -> None:
        """Put ``code`` at ``address`` and make the processor run it."""
        self.write_memory(address, code)
        self.set_pc(address)

    def run_to(self, address: int) -> None:
        """Run until the program counter is ``address``, by a breakpoint that is removed again."""
        self._order(f"Z0,{address:x},2", f"breakpoint at {address:#x}")
        self._send("c")
        while not self._packet().startswith(("T05", "S05")):
            pass
        self._order(f"z0,{address:x},2", f"breakpoint at {address:#x}")
        if self.register(PC) != address:
            raise FirmwareError(f"gdb stub: halted at {self.register(PC):#x}", expected=f"{address:#x}")

    def registers(self) -> str:
        """All core registers, as the stub writes them."""
        return self._ask("g")

    def set_registers(self, registers: str) -> None:
        """What :meth:`registers` gave."""
        self._order(f"G{registers}", "registers")

    def _order(self, packet: str, what: str) -> None:
        reply = self._ask(packet)
        if reply != "OK":
            raise FirmwareError(f"gdb stub: {what} not written: {reply!r}")

    def _ask(self, packet: str) -> str:
        self._send(packet)
        while True:
            reply = self._packet()
            # A halted guest says so unasked too, sometimes a second time.
            if packet == "?" or not reply.startswith(("T05", "S05", "T02", "S02")):
                return reply

    def _send(self, packet: str) -> None:
        body = packet.encode()
        self._socket.sendall(b"$" + body + b"#" + f"{sum(body) & 255:02x}".encode())

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
            if not part:
                raise FirmwareError("the gdb stub closed the connection")
            self._buffer += part
