"""What a scenario can do to a bench: one table. Who carries it out, what it needs to know, where it can be done.

On a real board the software does everything but what needs a debugger inside of the processor or a hand on the
hardware; for those the table says which bench action a person or a relay has to perform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Room = Literal["host", "cable", "plant", "mcu"]
Target = Literal[
    "lockstep", "host", "mps2-an386", "mps2-an386-icount", "ast1030-evb", "lm3s6965evb", "board"
]
LOCKSTEP: frozenset[Target] = frozenset({"lockstep"})
HOST: frozenset[Target] = frozenset({"host"})
QEMU: frozenset[Target] = frozenset({"mps2-an386", "mps2-an386-icount", "ast1030-evb", "lm3s6965evb"})
MPS2: frozenset[Target] = frozenset({"mps2-an386", "mps2-an386-icount"})
_REAL: frozenset[Target] = frozenset({"host", "board"})
REAL_TIME: frozenset[Target] = _REAL | QEMU
ANYWHERE: frozenset[Target] = LOCKSTEP | REAL_TIME


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of injection.

    Attributes:
        room: who does it: the scripted host, the cable between, the plant, or a hand inside of the microcontroller.
        about: for people.
        needs: parameters that must be given; ``may``: that may be.
        targets: where it can be injected for real.
        by_hand: on a board, what a person or a relay does instead; empty where software can.
    """

    room: Room
    about: str
    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    targets: frozenset[Target] = ANYWHERE
    by_hand: str = ""


_TIMED = frozenset({"duration_ms"})
_WAYS = frozenset({"duration_ms", "direction"})
_JOINT = frozenset({"joint"})

INJECTIONS: dict[str, Kind] = {
    "host_kill": Kind("host", "kill -9 of the control process; in lockstep it is never called again"),
    "host_stop": Kind("host", "SIGSTOP, and SIGCONT after duration_ms where that is given", may=_TIMED),
    "policy_freeze": Kind("host", "the planner hangs, the heartbeat thread lives on"),
    "clock_jump": Kind("host", "the host's clock jumps by value seconds", needs=frozenset({"value"})),
    "chunk_storm": Kind("host", "rate chunks a second more than planned", needs=frozenset({"rate", "duration_ms"})),
    "nan_plan": Kind("host", "the planner's chunks hold a number that is none", may=_TIMED),
    "outside_plan": Kind("host", "the planner's chunks lie outside the position limits", may=_TIMED),
    "estop": Kind("host", "the host sends the emergency stop"),
    "soft_stop": Kind("host", "the host's degrade state becomes SOFT_STOP"),
    "disarm": Kind("host", "the operator disarms"),
    "link_cut": Kind("cable", "the cable is pulled: the host sees its port close"),
    "link_silent": Kind("cable", "one wire breaks: nothing arrives, nobody is told", may=_WAYS),
    "bit_errors": Kind("cable", "every bit flips with probability rate", needs=frozenset({"rate"}), may=_WAYS),
    "babble": Kind("cable", "a stranger talks on the wire, rate bytes a second", needs=frozenset({"rate"}), may=_TIMED),
    "frames_truncated": Kind("cable", "every third frame is cut short", may=_WAYS),
    "frames_duplicated": Kind("cable", "every third frame arrives twice", may=_WAYS),
    "frames_reordered": Kind("cable", "every third frame arrives after the next", may=_WAYS),
    "frames_flipped": Kind("cable", "every third frame has a few bits flipped", may=_WAYS),
    "frames_delayed": Kind("cable", "everything arrives value ms late", needs=frozenset({"value"}), may=_WAYS),
    "estop_frame": Kind("cable", "an emergency stop frame from a stranger, in no session"),
    "encoder_stuck": Kind("plant", "the reading of joint stands still", needs=_JOINT),
    "encoder_offset": Kind("plant", "the reading of joint jumps by value rad", needs=_JOINT | {"value"}),
    "encoder_silent": Kind(
        "plant", "no encoder values; with value: that many ms out of twice that", may=frozenset({"value"})
    ),
    "wrong_sign": Kind("plant", "the drive of joint pushes the other way", needs=_JOINT),
    "dead_motor": Kind("plant", "the motor of joint gives no torque", needs=_JOINT),
    "overload": Kind("plant", "value N pull the flange down", needs=frozenset({"value"})),
    "mcu_hang": Kind(
        "mcu", "the main loop spins, interrupts run", targets=QEMU | HOST,
        by_hand="halt the core with a debug probe that leaves the watchdog running, set PC to an endless loop, go on",
    ),
    "mcu_hang_masked": Kind(
        "mcu", "the processor spins with interrupts masked", targets=QEMU,
        by_hand="as mcu_hang, with PRIMASK set",
    ),
    "interrupt_storm": Kind(
        "mcu", "an interrupt that is pending again whenever it returns", targets=MPS2,
        by_hand="feed a square wave of several MHz into an external interrupt input that is enabled",
    ),
    "stack_overflow": Kind(
        "mcu", "frames are pushed until the stack has run over its limit, and popped again", targets=MPS2,
        by_hand="overwrite the word at _stack_limit with a debug probe",
    ),
    "brown_out": Kind(
        "mcu", "a reset that no software asked for; memory keeps its content", targets=LOCKSTEP | QEMU | HOST,
        by_hand="drop the supply below the brown-out threshold for 10 ms (programmable supply or relay)",
    ),
    "power_cycle": Kind(
        "mcu", "the supply goes away and comes back: memory is lost", targets=QEMU | HOST,
        by_hand="switch the board's supply off for 2 s (relay)",
    ),
    "estop_pin": Kind(
        "mcu", "the emergency stop input opens", targets=frozenset(),
        by_hand="open the emergency stop circuit (button or relay on the input)",
    ),
}

PARAMETERS = ("joint", "value", "rate", "direction", "duration_ms")
