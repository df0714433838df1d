"""The STM32G474 drivers as a library, over a register file that remembers every access and can answer like the part."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

from firmware_bridge.mcu.build import HERE
from firmware_bridge.mcu.targets import COMMON_FLAGS

PORT = HERE / "ports" / "stm32g474"
Get = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)
Put = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)


class Timing(ctypes.Structure):
    """fdcan_timing_t"""

    _fields_ = [(name, ctypes.c_uint32) for name in ("prescaler", "segment1", "segment2", "jump")]


def build_drivers(folder: Path) -> Path:
    path = folder / "stm32_drivers.so"
    sources = [PORT / f"{name}.c" for name in ("clock", "watchdogs", "pins", "uart", "fdcan", "usbfs")]
    sources += [HERE / "usb" / f"{name}.c" for name in ("usb_device", "usb_descriptors", "usb_cdc")]
    sources.append(HERE / "boot" / "stm32g474" / "flash.c")
    subprocess.run(
        ["cc", *COMMON_FLAGS, "-shared", "-fPIC", "-DEW_FAKE_REGISTERS", "-DPORT_SERVO",
         *(f"-I{HERE / p}" for p in ("core", "can", "usb", "ports/common", "ports/stm32g474", "boot/stm32g474")),
         *map(str, sources), str(Path(__file__).with_name("fake_bus.c")), "-o", str(path)], check=True,
    )  # fmt: skip
    return path


class Part:
    """Registers by address. ``log`` has ("get" | "put", address, value); ``answers`` says what an address gives."""

    def __init__(self, library: Path) -> None:
        self.lib = ctypes.CDLL(str(library))
        for name in ("clock_start", "watchdogs_start", "watchdogs_wwdg_counter", "uart_divider", "uart_start",
                     "uart_send", "uart_packet", "uart_packet_done", "estop_step", "light_on", "pins_estop",
                     "fdcan_timing", "fake_can_start", "fake_can_send", "clock_start_usb", "usbfs_start", "usb_cdc_put",
                     "flash_erase", "flash_write", "flash_forgive"):  # fmt: skip
            getattr(self.lib, name).restype = ctypes.c_bool
        for name in ("clock_random", "watchdogs_iwdg_reload", "watchdogs_feed", "fdcan_nbtp", "fdcan_dbtp"):
            getattr(self.lib, name).restype = ctypes.c_uint32
        self.registers: dict[int, int] = {}
        self.log: list[tuple[str, int, int]] = []
        self.answers: dict[int, Callable[[int], int]] = {}
        self.hooks: dict[int, Callable[[int], None]] = {}
        self._get, self._put = Get(self.get), Put(self.put)
        self.lib.fake_bus(self._get, self._put)

    def get(self, address: int) -> int:
        value = self.registers.get(address, 0)
        if address in self.answers:
            value = self.answers[address](value)
        self.log.append(("get", address, value))
        return value

    def put(self, address: int, value: int) -> None:
        self.log.append(("put", address, value))
        self.registers[address] = value
        if address in self.hooks:
            self.hooks[address](value)

    def puts(self, *addresses: int) -> list[tuple[int, int]]:
        """What was written, in order; to these addresses if any are named."""
        return [(a, v) for op, a, v in self.log if op == "put" and (not addresses or a in addresses)]


def header_number(name: str) -> int:
    """A plain number of stm32g474.h."""
    for line in (PORT / "stm32g474.h").read_text().splitlines():
        words = line.split()
        if words[:2] == ["#define", name]:
            return int(words[2].rstrip("u"), 16)
    raise KeyError(name)


