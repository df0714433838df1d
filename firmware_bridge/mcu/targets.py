"""What can be built: the table of firmware targets."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Warnings are errors: the core is meant to be read by a checker too.
COMMON_FLAGS = (
    "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow", "-Wundef",
    "-Wcast-align", "-Wstrict-prototypes", "-Wmissing-prototypes", "-fno-strict-aliasing",
)  # fmt: skip
_ARM = (
    "-mthumb", "-mfloat-abi=soft", "-ffreestanding", "-ffunction-sections",
    "-fdata-sections", "-fno-common", "-nostdlib", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to build. Sources and the linker script are relative to this folder.

    Attributes:
        machine: QEMU's name of the board, empty where no emulator has it.
        core: the MCU core belongs to it.
        headers: folders with headers of other targets.
        board: number that a signed image of it carries, 0: it is not signed.
    """

    file: str
    compiler: str
    flags: tuple[str, ...]
    sources: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    linker_script: str = ""
    machine: str = ""
    core: bool = True
    headers: tuple[str, ...] = ()
    board: int = 0


# CAN frames as text over UARTs, where there is no controller.
_SLCAN = ("can/can_loop.c", "can/slcan.c", "can/slcan_hal.c", "ports/common/can_uart.c")


def _board(machine: str, cpu: str, *flags: str, more: tuple[str, ...] = ()) -> dict[str, Target]:
    """The three variants of an emulated board."""
    folder = f"ports/{machine.replace('-', '_')}"
    sources = (
        "ports/common/startup.c", "ports/common/cortex.c", "ports/common/rings.c", "ports/common/main.c",
        "ports/common/pinless.c", f"{folder}/vectors.c", f"{folder}/board.c", *more,
    )  # fmt: skip
    variants = {
        # As shipped: reset at 20 ms; where the watchdog has two stages, the first at 10 ms.
        "": ("-DPORT_WATCHDOG_MS=20",),
        # For an emulator in real time on a shared PC, which stalls for tens of ms although nothing is wrong.
        "-realtime": ("-DPORT_WATCHDOG_MS=500", "-DPORT_REALTIME"),
        # For instruction-counted time: with WFI the emulator's virtual time would jump over deadlines.
        "-nowfi": ("-DPORT_WATCHDOG_MS=20", "-DPORT_NO_WFI"),
    }
    return {
        f"{machine}{variant}": Target(
            f"{machine}{variant}.elf", "arm-none-eabi-gcc", (f"-mcpu={cpu}", *_ARM, *flags, *defines), sources,
            libraries=("-lgcc",), linker_script=f"{folder}/link.ld", machine=machine,
        )
        for variant, defines in variants.items()
    }


_STM32 = "ports/stm32g474"
_STM32G474 = Target(
    "stm32g474.elf", "arm-none-eabi-gcc",
    ("-mcpu=cortex-m4", *_ARM, "-DPORT_WATCHDOG_MS=20", "-DPORT_CAN=1", "-DPORT_SERVO"),
    ("ports/common/startup.c", "ports/common/cortex.c", "ports/common/rings.c", "ports/common/main.c",
     "can/can_loop.c", f"{_STM32}/vectors.c", f"{_STM32}/board.c", f"{_STM32}/clock.c", f"{_STM32}/watchdogs.c",
     f"{_STM32}/pins.c", f"{_STM32}/uart.c", f"{_STM32}/fdcan.c", f"{_STM32}/servo.c"),
    libraries=("-lgcc",), linker_script=f"{_STM32}/link.ld", board=1,
)  # fmt: skip


def _boot(
    file: str, folder: str, *sources: str, board: int, headers: tuple[str, ...] = (), machine: str = ""
) -> Target:
    """A bootloader: checks a signed image and starts it, or tells why not."""
    return Target(
        file, "arm-none-eabi-gcc", ("-mcpu=cortex-m4", *_ARM),
        ("boot/boot_main.c", "boot/boot_vectors.c", "boot/boot_jump.c", "boot/verify.c", "boot/lms.c", "boot/sha256.c",
         "ports/common/startup.c", "ports/common/cortex.c", *sources),
        libraries=("-lgcc",), linker_script=f"{folder}/boot.ld", core=False, headers=headers, board=board,
        machine=machine,
    )  # fmt: skip


_MPS2 = _board("mps2-an386", "cortex-m4", "-DPORT_CAN=1", "-DPORT_SLCAN", more=_SLCAN)

TARGETS: dict[str, Target] = {
    # The reference: its watchdog's first stage is an NMI. Two of its UARTs stand for CAN controllers; it is node 1.
    **_MPS2,
    **_board("ast1030-evb", "cortex-m4"),  # throughput: UARTs with FIFOs
    # Without sleep, the control path in a memory of its own as on the STM32G474: what a turn costs is counted on it.
    "mps2-an386-fast": replace(
        _MPS2["mps2-an386-nowfi"], file="mps2-an386-fast.elf", linker_script="ports/mps2_an386/fast.ld"
    ),
    # 64 KB of RAM, so half of the timeline; a watchdog that cannot be switched off.
    **_board("lm3s6965evb", "cortex-m3", "-DEW_TIMELINE_KNOTS=32u"),
    # NUCLEO-G474RE. No float in the core, so none of the part's float unit either.
    "stm32g474": _STM32G474,
    # The same with the host link on the part's own USB, a virtual serial port; its pins are those of the CAN host link.
    "stm32g474-usb": replace(
        _STM32G474, file="stm32g474-usb.elf", flags=(*_STM32G474.flags, "-DPORT_USB"),
        sources=(*_STM32G474.sources, f"{_STM32}/usbfs.c",
                 "usb/usb_device.c", "usb/usb_descriptors.c", "usb/usb_cdc.c"),
    ),
    "stm32g474-boot": _boot(
        "stm32g474-boot.elf", "boot/stm32g474", "boot/stm32g474/boot_stm32.c", "boot/stm32g474/flash.c", board=1,
        headers=(_STM32,),
    ),
    # The bootloader and what it starts on the emulated reference board, where both can be tried.
    "mps2-an386-boot": _boot(
        "mps2-an386-boot.elf", "boot/mps2_an386", "boot/mps2_an386/boot_mps2.c", board=2, machine="mps2-an386"
    ),
    "mps2-an386-slot": replace(
        _MPS2["mps2-an386-realtime"], file="mps2-an386-slot.elf", linker_script="boot/mps2_an386/slot.ld", board=2
    ),
    "host": Target(
        "edgewam-mcu-host", "cc", ("-D_GNU_SOURCE", "-DPORT_WATCHDOG_MS=500"),
        ("ports/host/main.c", "ports/host/watchdog.c"),
    ),
    "lib": Target(
        "libedgewam_mcu.so", "cc", ("-shared", "-fPIC", "-fvisibility=default"),
        ("ports/host/lib.c", "ports/host/lib_can.c"),
    ),
}
