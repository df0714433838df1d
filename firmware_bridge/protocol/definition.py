"""THE one definition of the wire between host, microcontroller and drive: numbers, enumerations, messages, faults.

``generate.py`` writes from it the C header of the firmware, the Python dataclasses of the host and two documents.
Nothing else may restate a layout, a number or a name. Framing (COBS, CRC-32C, header) is in ``host/framing.py``.

Conventions: little endian, no padding. Positions are int32 micro-units (um, urad, 1e-6 of a normalised command),
velocities micro-units/s, accelerations micro-units/s^2, jerks milli-units/s^3, efforts micro-newton-metres (of a linear
axis: micro-newtons); time is microseconds of the MCU's free-running clock. A name is ASCII, filled up with zeros.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

NAME_BYTES = 16
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4, "name": NAME_BYTES}


@dataclass(frozen=True, slots=True)
class Constant:
    """One number, its unit in the name."""

    name: str
    value: int
    doc: str


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``count`` is "" (scalar), a number (fixed array), the name of an earlier u8 field, or "rest" (the
    remaining bytes of the payload, 4 bytes an element for i32, 1 for u8). Type "name" is text of ``NAME_BYTES``."""

    name: str
    type: str
    doc: str
    count: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``direction`` is "host" (host to MCU), "mcu" (MCU to host), "drive" (MCU to drive) or "plant".
    ``can_class`` is its priority on CAN, a name of the enumeration CanClass; drive and plant are not on that bus."""

    name: str
    type: int
    direction: str
    doc: str
    fields: tuple[Field, ...] = ()
    can_class: str = "SETUP"


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an enumeration. ``cause`` and ``remedy`` are for people."""

    name: str
    number: int
    cause: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Enumeration:
    """A table of stable numbers. A number is never reused for another meaning."""

    name: str
    doc: str
    values: tuple[Value, ...]


CONSTANTS: tuple[Constant, ...] = (
    Constant("MAX_AXES", 16, "axes that one MCU drives at most"),
    Constant("MAX_KNOTS", 64, "knots that fit on the timeline"),
    Constant("MAX_BODY_BYTES", 640, "frame before COBS: header, payload and CRC"),
    Constant("HEADER_BYTES", 6, "type u8, epoch u8, seq u16, session u16"),
    Constant("CRC_BYTES", 4, "CRC-32C (Castagnoli), little endian"),
    Constant("CHUNK_HEADER_BYTES", 16, "CHUNK payload before its samples"),
    Constant("TICK_US", 1000, "control tick"),
    Constant("GUARD_US", 2000, "a splice takes effect no earlier than two ticks ahead"),
    Constant("LATE_MAX_US", 50_000, "a chunk may start this much in the past and still be trimmed"),
    Constant("HORIZON_MAX_US", 10_000_000, "no knot may lie farther ahead"),
    Constant("HEARTBEAT_PERIOD_US", 20_000, "host heartbeat"),
    Constant("HOST_SILENT_US", 100_000, "no heartbeat for this long: decelerate, hold"),
    Constant("HOST_GONE_US", 2_000_000, "no heartbeat for this long: disarm"),
    Constant("POLICY_FROZEN_US", 250_000, "policy counter unchanged for this long while NOMINAL and RUN: stop"),
    Constant("STARVED_MAX_US", 500_000, "a dry timeline may resume within this time, then the MCU disarms"),
    Constant("BRAKE_MAX_US", 2_000_000, "category 1 stop: the drive goes off after this time whatever the axes do"),
    Constant("ENCODER_TIMEOUT_US", 50_000, "no encoder frame for this long while armed: fault (as shipped)"),
    Constant("TICK_GAP_MAX_US", 4_000, "a tick that comes later than this after the last: fault (as shipped)"),
    Constant("NAME_BYTES", NAME_BYTES, "length of an axis' name on the wire"),
    Constant("CLOCK_ERROR_MAX_US", 1_000, "no motion while the host knows the MCU's clock less well (as shipped)"),
    Constant("HEARTBEAT_AHEAD_MAX_US", 10_000, "a heartbeat stamped farther in the future is no sign of life"),
    Constant("WINDOW_US", 250_000, "length of the window in which window_max bounds the way of an axis"),
    Constant("ANSWERS_PER_TICK", 32, "commands that are answered in one control tick; more are counted and dropped"),
    Constant("HELLO_PERIOD_US", 10_000, "HELLO is sent no more often; a request that comes sooner is answered then"),
    Constant("WATCHDOG_STORM_RESETS", 3, "so many watchdog resets ..."),
    Constant("WATCHDOG_STORM_US", 60_000_000, "... within this time of the MCU's own clock need a power cycle"),
    Constant("STATE_PERIOD_TICKS", 10, "STATE every 10 ms"),
    Constant("STATS_PERIOD_TICKS", 1_000, "STATS every second"),
    Constant("EVENT_RESEND_US", 100_000, "an unacknowledged EVENT is sent again"),
    Constant("EFFORT_TIME_US", 50_000, "more than effort_max in every report for this long: fault; a start may pass"),
    Constant("ENCODER_SLACK_US", 20_000, "reports come late and bunched: so much is added to the time between two"),
    Constant("CAN_ID_ESTOP", 0x001, "the one identifier that stops, whatever its frame carries, for every node"),
    Constant("CAN_TO_HOST", 0x080, "direction bit of a CAN identifier, set from MCU to host"),
    Constant("CAN_NODE_MAX", 7, "CAN nodes are 1 to 7; 0 is everybody"),
    Constant("CAN_CLASSIC_BYTES", 8, "a full classic CAN frame"),
    Constant("CAN_FRAME_BYTES", 64, "a full CAN FD frame"),
    Constant("CAN_PADDING_MAX", 15, "zeros in the last frame of an FD transfer: 49 bytes go into a frame of 64"),
    Constant("CAN_FRAME_TIMEOUT_US", 100_000, "the rest of a CAN transfer comes so soon after a frame, or not at all"),
    Constant("POSITION_ABS_MAX", 100_000_000, "limit table: largest |position|, micro-units"),
    Constant("VELOCITY_MAX_MAX", 100_000_000, "limit table: largest velocity, micro-units/s"),
    Constant("ACCELERATION_MIN", 4_000, "limit table: smallest acceleration (one internal step), micro-units/s^2"),
    Constant("ACCELERATION_MAX_MAX", 2_000_000_000, "limit table: largest acceleration, micro-units/s^2"),
    Constant("JERK_MIN", 4_000, "limit table: smallest jerk (one internal step), milli-units/s^3"),
    Constant("JERK_MAX_MAX", 4_000_000_000, "limit table: largest jerk, milli-units/s^3"),
    Constant("EFFORT_MAX_MAX", 2_000_000_000, "limit table: largest effort, micro-N m or micro-N"),
    Constant("LSB_MAX", 6_000, "limit table: largest micro-units per LSB of the i16 encoding"),
    Constant("DRIVE_RATIO_MAX", 1_000_000, "drive binding: largest |numerator| and denominator of the ratio"),
    Constant("DRIVE_ERR_MODEL", 1 << 16, "drive error: not the model, number or scale that was bound"),
    Constant("DRIVE_ERR_SETUP", 1 << 17, "drive error: wrong mode, protections off, or instructions not answered"),
    Constant("DRIVE_ERR_RANGE", 1 << 18, "drive error: its own position limits are narrower than those of the axis"),
    Constant("DRIVE_ERR_TIMEOUT", 1 << 19, "drive error: its own watchdog is off, so it would hold on for ever"),
    Constant("DRIVE_ERR_VALUE", 1 << 20, "drive error: it reported a number outside of what its model can say"),
    Constant("DRIVE_ERR_DROPPED", 1 << 21, "drive error: its torque is off although it was told to be on"),
    Constant("DRIVE_ERR_SETPOINT", 1 << 22, "drive error: a setpoint that its numbers cannot carry"),
    Constant("HEARTBEAT_FLAG_ARMED", 1, "HEARTBEAT.flags bit 0: the host believes that the arm is armed"),
    Constant("STATE_FLAG_DRIVE_ON", 1, "STATE.flags bit 0: the drive enable is on"),
    Constant("STATE_FLAG_ENCODER_FRESH", 2, "STATE.flags bit 1: the encoder value is fresh"),
    Constant("STATE_FLAG_MOVING", 4, "STATE.flags bit 2: a commanded velocity is not zero"),
    Constant("STATE_FLAG_LIMITS_LOCKED", 8, "STATE.flags bit 3: the limit table is locked"),
    Constant("STATE_FLAG_ESTOP_LATCHED", 16, "STATE.flags bit 4: the emergency stop is latched"),
    Constant("STATE_FLAG_BRAKE_ON", 32, "STATE.flags bit 5: the holding brakes are ordered to grip"),
    Constant("STATE_FLAG_ESTOP_INPUT", 64, "STATE.flags bit 6: the emergency stop input is pressed or its wire broken"),
    Constant("STATE_FLAG_DRIVES_READY", 128, "STATE.flags bit 7: every drive is what was bound, without error"),
    Constant("SETPOINT_FLAG_ENABLE", 1, "SETPOINT.flags bit 0: drive on; without it setpoints repeat the encoder"),
    Constant("SETPOINT_FLAG_BRAKE", 2, "SETPOINT.flags bit 1: holding brake on"),
)

CAN_FD_LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
"""Bytes of a CAN FD frame by its length code (ISO 11898-1); the first nine are those of a classic one."""

ENUMERATIONS: tuple[Enumeration, ...] = (
    Enumeration(
        "McuState",
        "State of the MCU. Only ARMED..STOP may hold the drive enable; ESTOP and FAULT brake, then drop it.",
        (
            Value("BOOT", 0, "not initialised"),
            Value("SELFTEST", 1, "checking itself"),
            Value("DISARMED", 2, "drive off, limits may be written"),
            Value("CONFIGURED", 3, "drive off, limits locked"),
            Value("ARMED", 4, "drive on, holding"),
            Value("RUN", 5, "drive on, following the timeline"),
            Value("STARVED", 6, "the timeline ran dry: braked, holding, a new chunk within 500 ms resumes"),
            Value("STOP", 7, "braked, holding, timeline dropped; leaves only by DISARM or after 2 s without a host"),
            Value("ESTOP", 8, "emergency stop, latched through resets; drive off after braking"),
            Value("FAULT", 9, "fault, latched through resets; drive off"),
        ),
    ),
    Enumeration(
        "StopCause",
        "Why the MCU last took motion away.",
        (
            Value("NONE", 0, "nothing has stopped the arm since it was armed"),
            Value("HOST_SILENT", 1, "no heartbeat for 100 ms", "find out why the control process stalled or died"),
            Value("POLICY_FROZEN", 2, "heartbeats went on but the policy counter stood still for 250 ms",
                  "the planner hangs: look at the inference process"),
            Value("HOST_SOFT_STOP", 3, "the host's degrade state reached SOFT_STOP", "read the host's fault list"),
            Value("HOST_SAFE_OFF", 4, "the host's degrade state reached SAFE_OFF", "read the host's fault list"),
            Value("HOST_NOT_ARMED", 5, "the heartbeat's armed bit went away while armed",
                  "the host lost track or was restarted: connect and arm again"),
            Value("DISARM", 6, "DISARM command"),
            Value("HOST_GONE", 7, "no heartbeat for 2 s", "restart the control process, then arm"),
            Value("STARVED", 8, "no new chunk within 500 ms after the timeline ran dry",
                  "plan faster, send longer chunks, or hold on purpose with HOLD"),
            Value("ESTOP", 9, "emergency stop", "make the robot safe, then clear it by the operator's act"),
            Value("FAULT", 10, "a fault", "look the fault number up in the table of faults"),
            Value("HOLD", 11, "HOLD command"),
            Value("WINDOW", 12, "an axis went farther within 250 ms than its window_max",
                  "plan slower, or raise window_max in the robot file"),
        ),
    ),
    Enumeration(
        "Fault",
        "Faults of the MCU (numbers below 1000; those of the host start at 1000). Latched until FAULT_ACK.",
        (
            Value("NONE", 0, "no fault"),
            Value("SELFTEST", 1, "the power-on self-test of the firmware failed",
                  "power-cycle; if it repeats, flash the firmware again or replace the board"),
            Value("WATCHDOG", 2, "the hardware watchdog reset the MCU: a tick, the main loop or an interrupt hung",
                  "read the program counter in HELLO against the ELF (addr2line); acknowledge, configure, arm"),
            Value("TICK_OVERRUN", 3, "two control ticks were farther apart than allowed",
                  "something blocks the MCU: see STATS.tick_gap_max_us"),
            Value("ENCODER_LOST", 4, "no valid encoder value arrived in time while the drive was on",
                  "check the drive's cable and power"),
            Value("FOLLOWING_ERROR", 5, "an axis is farther from its setpoint than its limit",
                  "look for a collision or an overload; check following_error_max"),
            Value("LIMITER_CHECK", 6, "the limiter's own output broke a limit: a defect of firmware or memory",
                  "do not run; report it with the recording"),
            Value("HARD_FAULT", 7, "the processor took a hard fault",
                  "read the program counter in HELLO against the ELF (addr2line) and report it"),
            Value("STACK_OVERFLOW", 8, "the stack canary was overwritten", "report it with the build id"),
            Value("WATCHDOG_STORM", 9, "three watchdog resets within a minute",
                  "power-cycle: nothing else clears it; then find out what hangs before arming again"),
            Value("EFFORT", 10, "an axis needed more effort than its limit",
                  "look for a collision or an overload; check effort_max"),
            Value("DRIVE_ERROR", 11, "a drive reported an error of its own; the EVENT of kind DRIVE has its bits",
                  "look the bits up in the drive's manual; clear the cause, acknowledge"),
            Value("ENCODER_IMPLAUSIBLE", 12, "an encoder value moved farther than the axis can",
                  "check the encoder, its cable and the zero offset"),
            Value("MEMORY", 13, "the memory check found a changed word",
                  "power-cycle; if it repeats, replace the board"),
        ),
    ),
    Enumeration(
        "AckCode",
        "Answer to a command. Below 16: accepted. From 16: refused, nothing changed.",
        (
            Value("OK", 0, "done"),
            Value("OK_TRIMMED", 1, "taken without its first knots, which were too close or past; arg = knots dropped"),
            Value("DUPLICATE", 2, "this chunk_id is already running; ignored"),
            Value("BAD_STATE", 16, "not possible in this state; arg = state", "see the states in docs/protocol.md"),
            Value("BAD_SESSION", 17, "frame of another boot of the MCU", "ask HELLO; the MCU was reset"),
            Value("BAD_LENGTH", 18, "the payload's length does not fit its message; arg = length"),
            Value("BAD_SCHEMA", 19, "host and firmware were generated from different definitions",
                  "flash the firmware of this release"),
            Value("BAD_LIMITS_CRC", 20, "the limit table in the MCU is not the one the host means"),
            Value("LOCKED", 21, "the limit table is locked", "DISARM first"),
            Value("RANGE", 22, "a knot is outside the position limits or too fast; arg = knot * 256 + axis"),
            Value("JUMP", 23, "the chunk does not begin near the running plan; arg = axis"),
            Value("FULL", 24, "more knots than free places; arg = free places",
                  "send fewer knots; with arg 0 the chunk before is still being judged: wait for its answer"),
            Value("LATE", 25, "the chunk began too long ago; arg = lateness in us",
                  "lower the latency; send the newest plan"),
            Value("OLD_CHUNK", 26, "chunk_id is lower than the running one; arg = running chunk_id"),
            Value("BAD_VALUE", 27, "a field is out of range; arg = its index in the message"),
            Value("NO_ENCODER", 28, "no fresh encoder value, or of another number of axes"),
            Value("BAD_NONCE", 29, "the nonce is not the one in HELLO: clearing must answer what is latched now"),
            Value("UNKNOWN", 30, "unknown message type; arg = type"),
            Value("FAR", 31, "a knot lies more than 10 s ahead"),
            Value("POSITION", 32, "the axis is outside its position limits; arg = axis", "move it inside, then arm"),
            Value("MOVING", 33, "the axes still move", "wait for standstill"),
            Value("NO_HOST", 34, "arming needs a fresh heartbeat in degrade state NOMINAL"),
            Value("CLOCK", 35, "the host knows the MCU's clock less well than is allowed; arg = its bound in us",
                  "look for a slow or lossy cable"),
            Value("MOVE", 36, "one chunk moves an axis farther than its move_max; arg = axis"),
            Value("POWER_CYCLE", 37, "only a power cycle clears this fault; arg = fault"),
            Value("ESTOP_INPUT", 38, "the emergency stop input is still pressed, or its wire is broken"),
            Value("DRIVE", 39, "a drive is absent, not ready, or this board has no bus for its kind; arg = axis"),
            Value("EPOCH", 40, "made for another configuration than the one that is locked now",
                  "configure and arm again: somebody else configured the MCU"),
        ),
    ),
    Enumeration(
        "EventKind",
        "What an EVENT tells.",
        (
            Value("BOOT", 0, "arg0 = reset cause, arg1 = boots"),
            Value("STATE", 1, "arg0 = old state, arg1 = new state"),
            Value("STOP", 2, "arg0 = stop cause"),
            Value("FAULT", 3, "arg0 = fault, arg1 = axis or -1"),
            Value("EVENTS_LOST", 4, "arg0 = events that were overwritten before they were acknowledged"),
            Value("DRIVE", 5, "arg0 = axis, arg1 = the drive's own error bits, from bit 16 on DRIVE_ERR_*"),
        ),
    ),
    Enumeration(
        "ResetCause",
        "Why the MCU started.",
        (
            Value("POWER_ON", 0, "power-on"),
            Value("WATCHDOG", 1, "hardware watchdog"),
            Value("HARD_FAULT", 2, "hard fault"),
            Value("SOFTWARE", 3, "software reset"),
            Value("UNKNOWN", 4, "reset without a record: reset pin, or brown-out where the port cannot tell"),
            Value("BROWN_OUT", 5, "the supply voltage fell", "check the supply under load"),
        ),
    ),
    Enumeration(
        "Check",
        "Who must have reported since the last feed of the watchdog, as bit numbers of HELLO.reset_missing.",
        (
            Value("TICK", 0, "a control tick ran to its end, in time", "see STATS.tick_gap_max_us, tick_work_max_us"),
            Value("ENCODER", 1, "encoder values were judged", "report it with the build id"),
            Value("MEMORY", 2, "guard words, limit table and code are unchanged", "see fault MEMORY"),
            Value("STACK", 3, "the stack canary is intact", "see fault STACK_OVERFLOW"),
            Value("COMMS", 4, "the host link and the drive link were served", "look for a babbling peer"),
            Value("INTERRUPT", 5, "the tick's interrupt came", "the timer or the interrupt controller hangs"),
        ),
    ),
    Enumeration(
        "Degrade",
        "The host's degrade ladder, carried by every heartbeat.",
        (
            Value("NOMINAL", 0, "planning"),
            Value("COAST", 1, "on the last valid chunk"),
            Value("HOLD", 2, "holding"),
            Value("SOFT_STOP", 3, "the MCU stops too"),
            Value("SAFE_OFF", 4, "the MCU stops and disarms"),
        ),
    ),
    Enumeration(
        "ChunkEncoding",
        "How the samples of a chunk are written, knot by knot, axis by axis.",
        (
            Value("I32_MICRO", 0, "int32 micro-units"),
            Value("I16_LSB", 1, "int16 in the axis' lsb of the locked limit table"),
        ),
    ),
    Enumeration(
        "ChunkMode",
        "What happens to the running plan.",
        (
            Value("REPLACE_FROM_T0", 0, "the running plan is kept before the chunk and replaced from it on"),
        ),
    ),
    Enumeration(
        "ChunkInterpolation",
        "What happens between the knots of a chunk.",
        (
            Value("HERMITE", 0, "cubic; the MCU chooses the velocities at the knots, monotone between them"),
            Value("LINEAR", 1, "straight lines"),
            Value("HERMITE_VELOCITY", 2, "cubic; after all positions the chunk carries a velocity for each"),
        ),
    ),
    Enumeration(
        "AxisKind",
        "What an axis is; gives the unit of its numbers.",
        (
            Value("REVOLUTE", 0, "a joint, rad"),
            Value("PRISMATIC", 1, "a linear joint, m"),
            Value("CARTESIAN", 2, "a coordinate of the hand, m: its position limits are a side of the workspace box"),
            Value("UNITLESS", 3, "a normalised command, as of a gripper"),
        ),
    ),
    Enumeration(
        "DriveKind",
        "Who moves the axis.",
        (
            Value("SIM", 0, "setpoint and encoder frames on the drive stream"),
            Value("FEETECH", 1, "servo on a half-duplex serial bus (STS and SCS series)"),
            Value("MIT", 2, "motor drive on CAN in MIT mode (Damiao, CubeMars)"),
        ),
    ),
    Enumeration(
        "CanClass",
        "Priority of a message on CAN, three bits of its identifier. Within one, transfers come one after the other.",
        (
            Value("ESTOP", 0, "single frame, identifier 0x001, any length; never reassembled"),
            Value("STOP", 1, "wishes to stand still"),
            Value("BEAT", 2, "what must not wait: heartbeats and the clock's stamps"),
            Value("ANSWER", 3, "answers and events, and the question who is there"),
            Value("MOTION", 4, "plans and reports"),
            Value("SETUP", 5, "everything else, and what nobody knows"),
        ),
    ),
    Enumeration(
        "FeetechModel",
        "DRIVE_SET.model of a FEETECH drive. Torque at stall is the maker's.",
        (
            Value("NONE", 0, "not a model"),
            Value("STS3215", 1, "7.4 V, 1.91 N m"),
            Value("STS3215_12V", 2, "12 V, 2.94 N m; reports the same number as the 7.4 V one"),
            Value("STS3250", 3, "12 V, 4.9 N m"),
            Value("SM8512BL", 4, "24 V, 8.34 N m"),
            Value("SCS0009", 5, "6 V, 0.225 N m, 1024 steps over 300 degrees"),
        ),
    ),
    Enumeration(
        "MitModel",
        "DRIVE_SET.model of a MIT drive. Ranges are +-rad, +-rad/s, +-N m.",
        (
            Value("NONE", 0, "not a model"),
            Value("DM4310", 1, "Damiao: 12.5, 30, 10"),
            Value("DM4310_48V", 2, "Damiao: 12.5, 50, 10"),
            Value("DM4340", 3, "Damiao: 12.5, 8, 28"),
            Value("DM4340_48V", 4, "Damiao: 12.5, 10, 28"),
            Value("DM6006", 5, "Damiao: 12.5, 45, 20"),
            Value("DM8006", 6, "Damiao: 12.5, 45, 40"),
            Value("DM8009", 7, "Damiao: 12.5, 45, 54"),
            Value("DM10010L", 8, "Damiao: 12.5, 25, 200"),
            Value("DM10010", 9, "Damiao: 12.5, 20, 200"),
            Value("DMH3510", 10, "Damiao: 12.5, 280, 1"),
            Value("DMH6215", 11, "Damiao: 12.5, 45, 10"),
            Value("DMG6220", 12, "Damiao: 12.5, 45, 10"),
            Value("AK10_9", 13, "CubeMars: 12.5, 50, 65"),
            Value("AK60_6", 14, "CubeMars: 12.5, 45, 15"),
            Value("AK70_10", 15, "CubeMars: 12.5, 50, 25"),
            Value("AK80_6", 16, "CubeMars: 12.5, 76, 12"),
            Value("AK80_9", 17, "CubeMars: 12.5, 50, 18"),
            Value("AK80_64", 18, "CubeMars: 12.5, 8, 144"),
        ),
    ),
)

_LIMIT_FIELDS: tuple[Field, ...] = (
    Field("axis", "u8", "which axis, from 0"),
    Field("position_min", "i32", "micro-units"),
    Field("position_max", "i32", "micro-units"),
    Field("velocity_max", "u32", "micro-units/s"),
    Field("acceleration_max", "u32", "micro-units/s^2"),
    Field("following_error_max", "u32", "micro-units between setpoint and encoder"),
    Field("jump_max", "u32", "micro-units between running plan and new chunk at the splice"),
    Field("lsb", "u32", "micro-units per LSB of the i16 encoding"),
    Field("jerk_max", "u32", "milli-units/s^3"),
    Field("effort_max", "u32", "micro-N m or micro-N, 0: not watched"),
    Field("move_max", "u32", "micro-units between the smallest and the largest position of one chunk"),
    Field("window_max", "u32", "micro-units of way within WINDOW_US"),
    Field("velocity_lsb", "u32", "micro-units/s per LSB of the i16 encoding"),
    Field("kind", "u8", "AxisKind"),
    Field("name", "name", "of the axis"),
)

_DRIVE_FIELDS: tuple[Field, ...] = (
    Field("axis", "u8", "which axis, from 0"),
    Field("kind", "u8", "DriveKind"),
    Field("model", "u8", "of the drive; 0 for SIM"),
    Field("address", "u16", "servo number, or CAN identifier of commands"),
    Field("reply", "u16", "CAN identifier of the answers, else 0"),
    Field("zero", "i32", "micro-units of the axis at the drive's own zero"),
    Field("ratio_num", "i32", "axis units per drive unit, numerator; negative turns the direction round"),
    Field("ratio_den", "i32", "denominator, at least 1"),
    Field("kp", "u32", "milli, position gain of a MIT drive"),
    Field("kd", "u32", "milli, velocity gain of a MIT drive"),
)

_STOPS_FIELDS: tuple[Field, ...] = (
    Field("brake_after_ms", "u32", "standing still in STOP for this long: holding brakes on; 0: never"),
    Field("torque_off_after_ms", "u32", "brakes on for this long: drive off, DISARMED; 0: never"),
)

MESSAGES: tuple[Message, ...] = (
    Message("HelloReq", 0x01, "host", "Who are you? Accepted in any session.", (
        Field("nonce", "u32", "echoed in HELLO"),
    ), can_class="ANSWER"),
    Message("TimeReq", 0x02, "host", "First of the four stamps. Accepted in any session.", (
        Field("t1_ns", "u64", "host clock when sent, echoed"),
    ), can_class="BEAT"),
    Message("Heartbeat", 0x03, "host", "Every 20 ms. Not acknowledged.", (
        Field("sent_us", "u64", "MCU clock when sent, by the host's estimate: its age counts from here"),
        Field("policy_counter", "u32", "advances only when the planner really advanced"),
        Field("clock_error_us", "u32", "the host's bound of the error of that estimate"),
        Field("degrade", "u8", "Degrade"),
        Field("flags", "u8", "HEARTBEAT_FLAG_*"),
    ), can_class="BEAT"),
    Message("LimitsSet", 0x04, "host", "Writes one axis of the limit table; DISARMED only.", _LIMIT_FIELDS),
    Message("LimitsCommit", 0x05, "host", "Locks the limit table if its CRC is the one given.", (
        Field("axes", "u8", "number of axes, 1..16"),
        Field("crc", "u32", "CRC-32C over the LIMITS_SET, then the DRIVE_SET payloads of all axes, then STOPS_SET"),
    )),
    Message("Arm", 0x06, "host", "The operator's act. Drive on, hold where the arm is.", (
        Field("limits_crc", "u32", "the committed table's CRC"),
        Field("schema_hash", "u32", "SCHEMA_HASH of the host"),
    )),
    Message("Disarm", 0x07, "host", "Brake, then drive off; unlocks the limit table.", can_class="STOP"),
    Message("Chunk", 0x08, "host", "Timed knots. Knot k is at t0_us + k * dt_10us * 10 us. Never retransmitted.", (
        Field("chunk_id", "u32", "must increase while armed; a repeated id is acknowledged again and ignored"),
        Field("t0_us", "u32", "MCU clock modulo 2^32, time of the first knot"),
        Field("dt_10us", "u16", "knot spacing in 10 us, 1 ms .. 655.35 ms"),
        Field("n", "u8", "knots, 1..64"),
        Field("axes", "u8", "must be the committed number"),
        Field("encoding", "u8", "ChunkEncoding"),
        Field("mode", "u8", "ChunkMode"),
        Field("blend_ms", "u8", "shortest time over which the running plan passes into the new one (20 is usual)"),
        Field("interpolation", "u8", "ChunkInterpolation"),
        Field("samples", "u8", "n * axes positions, knot by knot; HERMITE_VELOCITY: then as many velocities", "rest"),
    ), can_class="MOTION"),
    Message("Hold", 0x09, "host", "Drop the timeline, brake, stay ARMED.", can_class="STOP"),
    Message("Estop", 0x0A, "host", "Brake, drive off, latched. Accepted in any session and state.", can_class="ESTOP"),
    Message("EstopClear", 0x0B, "host", "Clears the latch; never re-arms.", (
        Field("nonce", "u32", "HELLO.clear_nonce"),
    )),
    Message("FaultAck", 0x0C, "host", "Clears the latched fault; never re-arms.", (
        Field("fault", "u16", "the fault number that is latched"),
    )),
    Message("EventAck", 0x0D, "host", "Not acknowledged itself.", (
        Field("event_id", "u32", "EVENT.event_id"),
    ), can_class="ANSWER"),
    Message("LimitsGet", 0x0E, "host", "Read one axis of the limit table back.", (
        Field("axis", "u8", "which axis, from 0"),
    )),
    Message("DriveSet", 0x0F, "host", "Binds one axis to its drive; DISARMED only. Without it: SIM.", _DRIVE_FIELDS),
    Message("DriveGet", 0x10, "host", "Read one binding back.", (
        Field("axis", "u8", "which axis, from 0"),
    )),
    Message("StopsSet", 0x11, "host", "The second stage of a stop; DISARMED only. Without it: none.", _STOPS_FIELDS),
    Message("StopsGet", 0x12, "host", "Read the second stage back."),
    Message("Hello", 0x81, "mcu", "At boot and on HELLO_REQ.", (
        Field("schema_hash", "u32", "SCHEMA_HASH of the firmware"),
        Field("build_id", "u32", "first 4 bytes of the SHA-256 of the firmware's sources"),
        Field("version", "u32", "of the firmware: major << 16 | minor << 8 | patch"),
        Field("nonce", "u32", "of the HELLO_REQ, 0 at boot"),
        Field("boots", "u32", "boots since power-on"),
        Field("reset_cause", "u8", "ResetCause"),
        Field("reset_pc", "u32", "program counter at the watchdog's first stage or hard fault, else 0"),
        Field("reset_tick", "u32", "control tick at that moment"),
        Field("reset_missing", "u8", "bit per Check that had not reported when the watchdog bit, else 0"),
        Field("watchdog_resets", "u8", "watchdog resets within the last minute of the MCU's clock"),
        Field("fault", "u16", "latched Fault"),
        Field("estop", "u8", "1: emergency stop latched"),
        Field("clear_nonce", "u32", "for ESTOP_CLEAR"),
        Field("limits_crc", "u32", "of the locked table, 0 when not locked"),
        Field("locked", "u8", "1: limit table locked"),
        Field("state", "u8", "McuState"),
        Field("max_knots", "u8", "places on the timeline"),
        Field("max_axes", "u8", "axes"),
        Field("tick_hz", "u16", "control rate"),
        Field("watchdog_ms", "u16", "time from last feed to reset, 0: none"),
        Field("now_us", "u64", "MCU clock"),
    )),
    Message("TimeResp", 0x82, "mcu", "Second to third stamp.", (
        Field("t1_ns", "u64", "of the TIME_REQ"),
        Field("t2_us", "u64", "MCU clock when the request's delimiter arrived"),
        Field("t3_us", "u64", "MCU clock when this answer was made"),
    ), can_class="BEAT"),
    Message("Ack", 0x83, "mcu", "Answer to every command except HELLO_REQ, TIME_REQ, HEARTBEAT and EVENT_ACK.", (
        Field("of_type", "u8", "type of the command"),
        Field("code", "u8", "AckCode"),
        Field("of_seq", "u16", "seq of the command"),
        Field("arg", "i32", "depends on the code"),
        Field("now_us", "u64", "MCU clock"),
        Field("lead_us", "i32", "CHUNK: t0 minus MCU time on arrival; else 0"),
        Field("free_knots", "u8", "free places on the timeline"),
    ), can_class="ANSWER"),
    Message("State", 0x84, "mcu", "Every 10 ms.", (
        Field("now_us", "u64", "MCU clock of the tick that this describes"),
        Field("tick", "u32", "control ticks since boot"),
        Field("state", "u8", "McuState"),
        Field("stop_cause", "u8", "StopCause, kept until the next ARM"),
        Field("fault", "u16", "latched Fault"),
        Field("flags", "u8", "STATE_FLAG_*"),
        Field("degrade", "u8", "Degrade of the last heartbeat"),
        Field("knots", "u8", "knots still on the timeline"),
        Field("chunk_id", "u32", "last accepted chunk, 0: none"),
        Field("remaining_us", "i32", "time until the timeline runs dry, 0 when dry"),
        Field("heartbeat_age_ms", "u16", "65535: never"),
        Field("policy_age_ms", "u16", "since the policy counter last changed, 65535: never"),
        Field("clipped", "u16", "bit per axis: the limiter changed the plan since the last STATE"),
        Field("axes", "u8", "length of the arrays: committed, else that of the encoder"),
        Field("position", "i32", "encoder, micro-units", "axes"),
        Field("setpoint", "i32", "commanded, micro-units", "axes"),
        Field("velocity", "i32", "commanded, micro-units/s", "axes"),
        Field("effort", "i32", "as the drive reports it, micro-N m or micro-N; 0 where it does not", "axes"),
    ), can_class="MOTION"),
    Message("Event", 0x85, "mcu", "Sent again every 100 ms until EVENT_ACK.", (
        Field("event_id", "u32", "from 1, increasing"),
        Field("at_us", "u64", "MCU clock when it happened"),
        Field("kind", "u8", "EventKind"),
        Field("arg0", "i32", "see EventKind"),
        Field("arg1", "i32", "see EventKind"),
    ), can_class="ANSWER"),
    Message("Stats", 0x86, "mcu", "Every second. Counters since boot unless said otherwise.", (
        Field("ticks", "u32", "control ticks run"),
        Field("late_ticks", "u32", "control ticks that had to be caught up"),
        Field("tick_gap_max_us", "u32", "longest time between two tick calls in the last second"),
        Field("rx_frames", "u32", "valid frames"),
        Field("rx_bad", "u32", "frames with broken COBS, CRC or length"),
        Field("rx_oversize", "u32", "frames longer than the receiver"),
        Field("rx_session", "u32", "frames of another session"),
        Field("rx_gaps", "u32", "sequence numbers that were skipped"),
        Field("rx_overrun", "u32", "bytes lost by the port"),
        Field("tx_dropped", "u32", "frames that did not fit in the transmit ring"),
        Field("drive_bad", "u32", "encoder frames that were broken or of another number of axes"),
        Field("chunks", "u32", "chunks accepted"),
        Field("chunks_trimmed", "u32", "of these, trimmed"),
        Field("chunks_late", "u32", "chunks refused as late"),
        Field("chunks_refused", "u32", "chunks refused otherwise"),
        Field("clips", "u32", "axis-ticks in which the limiter changed the plan"),
        Field("watchdog_margin_min_us", "u32", "least time that was left to the watchdog's first stage at a feed"),
        Field("stack_free_min", "u32", "bytes of stack never used, 0: unknown"),
        Field("tick_work_max_us", "u32", "longest control tick in the last second, its own work, 0: unknown"),
        Field("heartbeats_stale", "u32", "heartbeats that came too late, or from the future"),
        Field("rx_flooded", "u32", "commands dropped because too many came in one tick; an ESTOP never is"),
        Field("transfers_bad", "u32", "CAN transfers with a missing, repeated or foreign frame"),
        Field("can_errors", "u32", "CAN error frames"),
        Field("can_bus_off", "u32", "times that the CAN controller left the bus"),
        Field("drive_frames", "u32", "valid frames of drives"),
        Field("late_histogram", "u32", "ticks by lateness: <50, <100, <200, <500, <1000, <2000, <4000 us, more", "8"),
    )),
    Message("Limits", 0x87, "mcu", "Answer to LIMITS_GET.", _LIMIT_FIELDS),
    Message("Drive", 0x88, "mcu", "Answer to DRIVE_GET.", _DRIVE_FIELDS),
    Message("Stops", 0x89, "mcu", "Answer to STOPS_GET.", _STOPS_FIELDS),
    Message("Setpoint", 0x40, "drive", "One per tick. Drive frames have no header: COBS(type, payload, CRC-32C).", (
        Field("tick", "u32", "control tick"),
        Field("flags", "u8", "SETPOINT_FLAG_*"),
        Field("setpoint", "i32", "micro-units, one per axis", "rest"),
    )),
    Message("Encoder", 0x41, "plant", "About 200 Hz.", (
        Field("plant_seq", "u32", "increasing"),
        Field("axes", "u8", "length of the arrays"),
        Field("position", "i32", "micro-units", "axes"),
        Field("effort", "i32", "micro-N m or micro-N, 0 where it is not measured", "axes"),
    )),
)


def canonical() -> str:
    """The definition as one string that changes exactly when the wire changes (texts for people are not part of it)."""
    return json.dumps(
        {
            "constants": {c.name: c.value for c in CONSTANTS},
            "enumerations": {e.name: {v.name: v.number for v in e.values} for e in ENUMERATIONS},
            "messages": {
                m.name: [m.type, m.direction, m.can_class, [[f.name, f.type, f.count] for f in m.fields]]
                for m in MESSAGES
            },
            "can_fd_lengths": CAN_FD_LENGTHS,
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def schema_hash() -> int:
    """First 4 bytes of the SHA-256 of the canonical definition, little endian."""
    return int.from_bytes(hashlib.sha256(canonical().encode()).digest()[:4], "little")
