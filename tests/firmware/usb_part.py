"""The USB device controller of the STM32G474 (RM0440, section 45), seen from its registers and from the bus.

Fields that turn over, flags that a zero clears, the table of buffers in the packet memory, what each kind of
transaction does to an endpoint. It also notes what a driver must never do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tests.firmware.stm32 import Part

BASE, PMA = 0x4000_5C00, 0x4000_6000
CNTR, ISTR, DADDR, BTABLE, BCDR = (BASE + offset for offset in (0x40, 0x44, 0x4C, 0x50, 0x58))
PENDING = 0xE000_E200
CTR, PMAOVR, WKUP, SUSP, RESET = 1 << 15, 1 << 14, 1 << 12, 1 << 11, 1 << 10
FSUSP, PDWN, FRES = 1 << 3, 1 << 1, 1 << 0
DISABLED, STALLED, SHUT, VALID = 0, 1, 2, 3
UID = (0x0123_4567, 0x89AB_CDEF, 0x0055_AA00)

Handshake = Literal["ACK", "NAK", "STALL", ""]
"""Empty: no answer at all."""


class UsbPart(Part):
    """``interrupt`` serves what is due; ``accesses`` are the register accesses that the longest one took."""

    def __init__(self, library: Path) -> None:
        self.endpoints = [0] * 8
        self.memory = bytearray(1024)
        self.flags = 0
        self.control = FRES | PDWN
        self.accesses = 0
        self.misuse: list[str] = []
        super().__init__(library)
        self.registers.update(zip((0x1FFF_7590, 0x1FFF_7594, 0x1FFF_7598), UID, strict=True))
        self.answers[0x4002_1098] = lambda value: value | (value & 1) << 1  # HSI48 is ready when it is on

    # ---- as the driver sees it ----

    def get(self, address: int) -> int:
        if PMA <= address < PMA + 1024:
            self._touched(address - PMA, written=False)
            value = int.from_bytes(self.memory[address - PMA : address - PMA + 2], "little")
        elif BASE <= address < BASE + 32:
            value = self.endpoints[(address - BASE) // 4]
        elif address == ISTR:
            value = self.flags | self._done()
        elif address == CNTR:
            value = self.control
        else:
            return super().get(address)
        self.log.append(("get", address, value))
        return value

    def put(self, address: int, value: int) -> None:
        super().put(address, value)
        if PMA <= address < PMA + 1024:
            self._touched(address - PMA, written=True)
            self.memory[address - PMA : address - PMA + 2] = value.to_bytes(2, "little")
        elif BASE <= address < BASE + 32:
            self._write_endpoint((address - BASE) // 4, value)
        elif address == ISTR:
            self.flags &= value
        elif address == CNTR:
            self.control = value
            if value & FRES:
                self.endpoints = [0] * 8
                self.registers[DADDR] = 0

    def _write_endpoint(self, number: int, value: int) -> None:
        old = self.endpoints[number]
        turning = (old ^ value) & 0x7070
        if old & 0x8800 == 0x8800 and turning & 0x30 == 0x30:
            self.misuse.append(f"endpoint {number} answers while a SETUP waits")
        self.endpoints[number] = turning | (old & value & 0x8080) | (value & 0x070F) | (old & 0x0800)

    def _done(self) -> int:
        for number, state in enumerate(self.endpoints):
            if state & 0x8080:
                return CTR | number | (1 << 4 if state & 0x8000 else 0)
        return 0

    def _touched(self, offset: int, written: bool) -> None:
        """The buffers that the controller may use at this moment belong to it."""
        for number, state in enumerate(self.endpoints):
            transmit, receive = self._buffers(number)
            if (state >> 4) & 3 == VALID and offset in transmit and written:
                self.misuse.append(f"packet of endpoint {number} changed while it may leave")
            if (state >> 12) & 3 == VALID and offset in receive:
                self.misuse.append(f"buffer of endpoint {number} used while a packet may come")

    def _entry(self, number: int, part: int) -> int:
        at = self.registers.get(BTABLE, 0) + 8 * number + part
        return int.from_bytes(self.memory[at : at + 2], "little")

    def _set_count(self, number: int, count: int) -> None:
        at = self.registers.get(BTABLE, 0) + 8 * number + 6
        word = (self._entry(number, 6) & ~0x3FF) | count
        self.memory[at : at + 2] = word.to_bytes(2, "little")

    def _space(self, number: int) -> int:
        word = self._entry(number, 6)
        blocks = (word >> 10) & 31
        return 32 * (blocks + 1) if word & 0x8000 else 2 * blocks

    def _buffers(self, number: int) -> tuple[range, range]:
        transmit, receive = self._entry(number, 0), self._entry(number, 4)
        return range(transmit, transmit + self._entry(number, 2)), range(receive, receive + self._space(number))

    def interrupt(self) -> None:
        """While the line is up the handler runs; it must come down."""
        for _ in range(20):
            masked = self.flags | self._done() & CTR
            if not (masked & self.control & 0xFF80 or self.registers.get(PENDING, 0)):
                return
            self.registers[PENDING] = 0
            before = len(self.log)
            self.lib.usbfs_interrupt()
            self.accesses = max(self.accesses, len(self.log) - before)
            del self.log[before:]
        raise AssertionError("the interrupt never ends")

    # ---- as the bus sees it ----

    @property
    def attached(self) -> bool:
        return bool(self.registers.get(BCDR, 0) & 0x8000) and not self.control & (FRES | PDWN)

    def reset(self) -> None:
        """SE0 for 10 ms. What was already noted as done stays so, or it would be lost."""
        self.endpoints = [state & 0x8080 for state in self.endpoints]
        self.registers[DADDR] = 0
        self.flags |= RESET | (WKUP if self.control & FSUSP else 0)

    def silence(self) -> None:
        """3 ms without a frame: suspended, or unplugged."""
        if not self.control & FSUSP:
            self.flags |= SUSP

    def resume(self) -> None:
        if self.control & FSUSP:
            self.flags |= WKUP

    def _find(self, address: int, endpoint: int) -> int | None:
        own = self.registers.get(DADDR, 0)
        if not self.attached or not own & 0x80 or own & 0x7F != address:
            return None
        return next((n for n, state in enumerate(self.endpoints) if state & 15 == endpoint and state & 0x3030), None)

    def _take(self, number: int, data: bytes) -> None:
        at = self._entry(number, 4)
        self.memory[at : at + len(data)] = data
        self._set_count(number, len(data))

    def _status(self, number: int, transmit: int | None = None, receive: int | None = None) -> None:
        state = self.endpoints[number]
        if transmit is not None:
            state = (state & ~0x30) | transmit << 4
        if receive is not None:
            state = (state & ~0x3000) | receive << 12
        self.endpoints[number] = state

    def setup(self, address: int, data: bytes) -> Handshake:
        number = self._find(address, 0)
        if number is None or self.endpoints[number] & 0x600 != 0x200 or self.endpoints[number] & 0x8000:
            return ""  # with an earlier packet not yet noted it is not heard; the host tries again
        self._take(number, data)
        self._status(number, SHUT, SHUT)
        self.endpoints[number] |= 0x4000 | 0x40 | 0x800 | 0x8000
        return "ACK"

    def out(self, address: int, endpoint: int, toggle: int, data: bytes) -> Handshake:
        number = self._find(address, endpoint)
        state = self.endpoints[number] if number is not None else 0
        status = (state >> 12) & 3
        if number is None or status == DISABLED:
            return ""
        if status != VALID:
            return "STALL" if status == STALLED else "NAK"
        if (state >> 14) & 1 != toggle:
            return "ACK"  # the repetition of one whose acknowledgement was lost: not kept
        if len(data) > self._space(number):
            self._status(number, receive=STALLED)
            return "STALL"
        self._take(number, data)
        self._status(number, receive=SHUT)
        self.endpoints[number] = (self.endpoints[number] & ~0x800 | 0x8000) ^ 0x4000
        return "ACK"

    def fetch(self, address: int, endpoint: int, heard: bool = True) -> tuple[Handshake, int, bytes]:
        """Handshake ("ACK" with data), toggle and data. ``heard`` False: the acknowledgement of the host gets lost."""
        number = self._find(address, endpoint)
        state = self.endpoints[number] if number is not None else 0
        status = (state >> 4) & 3
        if number is None or status == DISABLED:
            return "", 0, b""
        if status != VALID:
            return ("STALL" if status == STALLED else "NAK"), 0, b""
        at, count = self._entry(number, 0), self._entry(number, 2)
        data, toggle = bytes(self.memory[at : at + count]), (state >> 6) & 1
        if heard:
            self._status(number, transmit=SHUT)
            self.endpoints[number] = (self.endpoints[number] | 0x80) ^ 0x40
        return "ACK", toggle, data
