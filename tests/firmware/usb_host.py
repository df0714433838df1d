"""A USB host: transfers out of transactions (USB 2.0, chapter 8), enumeration as Linux does it, a serial port."""

from __future__ import annotations

import struct

from tests.firmware.usb_part import UsbPart

PATIENCE = 50
"""Tries of one transaction; each is preceded by the interrupts that are due."""


class Stalled(Exception):
    """The device refused."""


class Deaf(Exception):
    """No answer, or NAK for ever."""


class UsbHost:
    """Toggles of the data endpoints are kept here as a host keeps them."""

    def __init__(self, part: UsbPart) -> None:
        self.part = part
        self.address = 0
        self.out_toggle = 0
        self.in_toggle = 0

    def reset(self) -> None:
        self.part.reset()
        self.address = self.out_toggle = self.in_toggle = 0
        self.part.interrupt()

    # ---- control transfers ----

    def setup(self, kind: int, request: int, value: int, index: int, length: int) -> None:
        packet = struct.pack("<BBHHH", kind, request, value, index, length)
        for _ in range(3):
            if self.part.setup(self.address, packet) == "ACK":
                self.part.interrupt()
                return
            self.part.interrupt()
        raise Deaf(f"setup {packet.hex(' ')} to address {self.address}")

    def _fetch(self, expected: int) -> bytes:
        for _ in range(PATIENCE):
            handshake, toggle, data = self.part.fetch(self.address, 0)
            self.part.interrupt()
            if handshake == "STALL":
                raise Stalled
            if handshake == "":
                raise Deaf("control in")
            if handshake == "ACK":
                assert toggle == expected, "DATA0 and DATA1 in turn"
                return data
        raise Deaf("NAK for ever")

    def _hand(self, toggle: int, data: bytes) -> None:
        for _ in range(PATIENCE):
            handshake = self.part.out(self.address, 0, toggle, data)
            self.part.interrupt()
            if handshake == "STALL":
                raise Stalled
            if handshake == "":
                raise Deaf("control out")
            if handshake == "ACK":
                return
        raise Deaf("NAK for ever")

    def read(self, kind: int, request: int, value: int, index: int, length: int, packets: int = 1000) -> bytes:
        """A control read; after so many packets the host has enough and goes on to the status stage."""
        self.setup(kind, request, value, index, length)
        data, toggle = b"", 1
        while len(data) < length and packets:
            part = self._fetch(toggle)
            data, toggle, packets = data + part, toggle ^ 1, packets - 1
            assert len(part) <= 64 and len(data) <= length, "no more than was asked for"
            if len(part) < 64:
                break
        if length:
            self._hand(1, b"")
        else:
            assert self._fetch(1) == b""
        return data

    def write(self, kind: int, request: int, value: int, index: int, data: bytes = b"") -> None:
        self.setup(kind, request, value, index, len(data))
        toggle = 1
        for at in range(0, len(data), 64):
            self._hand(toggle, data[at : at + 64])
            toggle ^= 1
        assert self._fetch(1) == b"", "the status of a write is empty"

    def descriptor(self, kind: int, index: int = 0, length: int = 255, language: int = 0) -> bytes:
        return self.read(0x80, 6, kind << 8 | index, language, length)

    # ---- what Linux does with a new device ----

    def set_address(self, address: int) -> None:
        self.write(0x00, 5, address, 0)
        self.address = address

    def configure(self, value: int = 1) -> None:
        self.write(0x00, 9, value, 0)
        self.out_toggle = self.in_toggle = 0

    def enumerate(self, address: int = 9) -> None:
        self.reset()
        assert self.descriptor(1, length=64)[7] == 64
        self.reset()
        self.set_address(address)
        self.configure()

    def dtr(self, on: bool) -> None:
        self.write(0x21, 0x22, 3 if on else 0, 0)

    def open_port(self) -> None:
        self.enumerate()
        self.dtr(True)

    # ---- bulk ----

    def hand(self, data: bytes) -> bool:
        """One packet to the port; False: it does not take it now."""
        handshake = self.part.out(self.address, 1, self.out_toggle, data)
        self.part.interrupt()
        self._judge(handshake)
        self.out_toggle ^= handshake == "ACK"
        return handshake == "ACK"

    def fetch(self, heard: bool = True) -> bytes | None:
        """One packet from the port; None: there is none, or it is the repetition of the last."""
        handshake, toggle, data = self.part.fetch(self.address, 1, heard)
        self.part.interrupt()
        self._judge(handshake)
        if handshake != "ACK" or toggle != self.in_toggle:
            return None
        self.in_toggle ^= 1
        return data

    def _judge(self, handshake: str) -> None:
        if handshake == "STALL":
            raise Stalled
        if handshake == "":
            raise Deaf("bulk")
