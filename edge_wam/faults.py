"""The faults of the host: one table with stable numbers, what each does to the arm, its cause and its remedy.

Numbers below 1000 belong to the microcontroller (``firmware_bridge.protocol``). A number is never reused for another
meaning. ``docs/faults.md`` is generated from this table: ``python -m edge_wam.faults docs/faults.md``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from edge_wam.contracts import DegradeState
from edge_wam.errors import EdgeWamError


class Fault(IntEnum):
    """Stable numbers of the host's faults."""

    POLICY_DEADLINE_MISSED = 1001
    POLICY_DIED = 1002
    POLICY_FAILED = 1003
    POLICY_SILENT = 1004
    CHUNK_NOT_FINITE = 1010
    CHUNK_OUTSIDE_LIMITS = 1011
    CHUNK_TOO_FAST = 1012
    CHUNK_TOO_ABRUPT = 1013
    CHUNK_JUMP = 1014
    CHUNK_STALE = 1015
    CHUNK_LATE = 1016
    CHUNK_SEQUENCE = 1017
    CHUNK_OTHER_MODEL = 1018
    CHUNK_SHAPE = 1019
    CHUNK_REFUSED_BY_MCU = 1020
    PLAN_RAN_OUT = 1021
    CAMERA_GONE = 1030
    CAMERA_FROZEN = 1031
    CAMERA_SLOW = 1032
    LINK_SILENT = 1040
    LINK_FAILED = 1041
    MCU_RESET = 1042
    MCU_STOPPED = 1043
    ARM_REFUSED = 1044
    SURPRISE_HIGH = 1050
    RECORDER_OVERFLOW = 1060
    RECORDER_FAILED = 1061
    CONTROL_LATE = 1070
    CONTROL_STALLED = 1071
    PROCESS_DIED = 1080
    OPERATOR_STOP = 1081
    SUPERVISOR_GONE = 1082


@dataclass(frozen=True, slots=True)
class FaultRow:
    """``descends_to`` NOMINAL means: counted and reported, the arm goes on with what is valid."""

    fault: Fault
    descends_to: DegradeState
    cause: str
    remedy: str


_COUNT, _COAST, _HOLD = DegradeState.NOMINAL, DegradeState.COAST, DegradeState.HOLD
_SOFT, _OFF = DegradeState.SOFT_STOP, DegradeState.SAFE_OFF

_ROWS = (
    FaultRow(Fault.POLICY_DEADLINE_MISSED, _COAST, "no answer of the inference process within plan.deadline_ms; the "
             "channel is closed and a late answer is thrown away",
             "compare `edge-wam bench` with plan.deadline_ms; restart the policy, then arm"),
    FaultRow(Fault.POLICY_DIED, _COAST, "the inference process ended while it was needed",
             "read its last lines in the session log; restart the policy, then arm"),
    FaultRow(Fault.POLICY_FAILED, _COAST, "the policy raised an error instead of answering",
             "read the text beside the fault; replay the recording"),
    FaultRow(Fault.POLICY_SILENT, _COAST, "no chunk was accepted for four plan periods and a deadline although answers "
             "came", "look at the refusals before this one"),
    FaultRow(Fault.CHUNK_NOT_FINITE, _COAST, "the model's chunk holds a number that is none; the whole "
             "chunk is refused", "replay the recording; do not run this bundle"),
    FaultRow(Fault.CHUNK_OUTSIDE_LIMITS, _COAST, "a knot lies outside an axis' position limits by more than the "
             "tolerance; the whole chunk is refused", "check bundle against robot file; replay the recording"),
    FaultRow(Fault.CHUNK_TOO_FAST, _COAST, "a knot asks for more than guard.refuse_speed_ratio times an axis' velocity "
             "limit; the whole chunk is refused", "check chunk_dt_ms and velocity_max; replay the recording"),
    FaultRow(Fault.CHUNK_TOO_ABRUPT, _COUNT, "no slowing of the chunk keeps an axis' acceleration limit; the running "
             "chunk goes on", "if it happens often: acceleration_max is below what the model was trained with"),
    FaultRow(Fault.CHUNK_JUMP, _COUNT, "the chunk does not continue the running plan; the running chunk goes on",
             "the model ignored its committed prefix, or the answer came later than planned"),
    FaultRow(Fault.CHUNK_STALE, _COUNT, "the chunk's oldest input is older than the camera budget and two plan periods",
             "cameras or inference are too slow for plan.rate_hz"),
    FaultRow(Fault.CHUNK_LATE, _COUNT, "fewer than two knots of the chunk lie ahead of the splice",
             "cameras or inference are too slow for the chunk's length"),
    FaultRow(Fault.CHUNK_SEQUENCE, _COAST, "the chunk's sequence number is not the one that was asked for",
             "report it with the recording"),
    FaultRow(Fault.CHUNK_OTHER_MODEL, _COAST, "the chunk was made by another bundle than the one verified",
             "restart the session"),
    FaultRow(Fault.CHUNK_SHAPE, _COAST, "the chunk has another number of axes or another knot spacing than the robot",
             "bundle and robot file do not belong together"),
    FaultRow(Fault.CHUNK_REFUSED_BY_MCU, _COUNT, "the microcontroller refused the chunk (its reason is beside the "
             "fault) and goes on with the plan it has", "see the acknowledge codes in docs/protocol.md"),
    FaultRow(Fault.PLAN_RAN_OUT, _HOLD, "the last knot of the running chunk was reached without a new chunk",
             "see the fault before it"),
    FaultRow(Fault.CAMERA_GONE, _COAST, "a camera delivered no new frame for monitor.camera_gone_ms",
             "check cable and driver; arm again when it is back"),
    FaultRow(Fault.CAMERA_FROZEN, _COAST, "a camera repeats identical pixels although the arm moves",
             "restart the camera; arm again when it is back"),
    FaultRow(Fault.CAMERA_SLOW, _COUNT, "a camera delivers less than 80 % of its promised rate",
             "lower rate_hz in the robot file or free the machine"),
    FaultRow(Fault.LINK_SILENT, _HOLD, "no state from the microcontroller for 100 ms",
             "check cable and power; the microcontroller stops the arm by itself"),
    FaultRow(Fault.LINK_FAILED, _SOFT, "the transport to the microcontroller failed",
             "check cable and power; restart the session"),
    FaultRow(Fault.MCU_RESET, _OFF, "the microcontroller was reset; it is disarmed and stays so",
             "read reset cause and program counter; find out why before arming"),
    FaultRow(Fault.MCU_STOPPED, _SOFT, "the microcontroller took permission away (its cause is beside the fault)",
             "see docs/mcu-faults.md"),
    FaultRow(Fault.ARM_REFUSED, _OFF, "arming was refused (the reason is beside the fault)", "remove the reason"),
    FaultRow(Fault.SURPRISE_HIGH, _COAST, "what the cameras show differs from what the model imagined by more than "
             "monitor.surprise_limit", "the scene left what the model knows; look, then arm again"),
    FaultRow(Fault.RECORDER_OVERFLOW, _COUNT, "the recorder's queue was full: messages are missing in the recording",
             "use a faster disk; the control loop does not wait for it"),
    FaultRow(Fault.RECORDER_FAILED, _COUNT, "the recording could not be written (the reason is beside the fault)",
             "free the disk"),
    FaultRow(Fault.CONTROL_LATE, _COUNT, "a control tick began more than two periods late",
             "give the control process its own core (realtime.cpus)"),
    FaultRow(Fault.CONTROL_STALLED, _HOLD, "the control loop stood still for more than 100 ms; the microcontroller has "
             "stopped the arm", "find what blocked the machine"),
    FaultRow(Fault.PROCESS_DIED, _COAST, "a process of the session ended", "read its last lines in the session log"),
    FaultRow(Fault.OPERATOR_STOP, _SOFT, "the operator asked for a stop", "none needed"),
    FaultRow(Fault.SUPERVISOR_GONE, _SOFT, "the supervising process ended", "start the session again"),
)

FAULTS: dict[int, FaultRow] = {int(row.fault): row for row in _ROWS}


class Refused(EdgeWamError):
    """A chunk or a request that the runtime does not take. The arm goes on with what it has.

    Args:
        fault: its row in the table.
        what: the thing that is wrong, with the value found.
        expected: what would have been accepted.
    """

    def __init__(self, fault: Fault, what: str, *, expected: str = "") -> None:
        self.fault = fault
        super().__init__(f"{fault.value} {fault.name}: {what}", expected=expected, remedy=FAULTS[fault].remedy)


def markdown() -> str:
    """The text of docs/faults.md."""
    does = {_COUNT: "counted, the arm goes on"}
    lines = [
        "# Faults of the host",
        "",
        "Generated by `python -m edge_wam.faults docs/faults.md`. Numbers below 1000 are the microcontroller's: see",
        "[mcu-faults.md](mcu-faults.md).",
        "",
        "COAST finishes the running chunk, then holds. HOLD brakes and holds. SOFT_STOP brakes, holds, then disarms.",
        "SAFE_OFF is disarmed. Up again only by the operator.",
        "",
        "| number | name | does | cause | remedy |",
        "|---|---|---|---|---|",
    ]
    for row in _ROWS:
        action = does.get(row.descends_to, row.descends_to.name)
        lines.append(f"| {row.fault.value} | {row.fault.name} | {action} | {row.cause} | {row.remedy} |")
    return "\n".join([*lines, ""])


def main(path: Path) -> None:
    """Write the document."""
    path.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
