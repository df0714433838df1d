"""The state machine, every state against every event, and what a command may do in every state."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.limits import sim_drive
from firmware_bridge.host.messages import AckCode, McuState
from tests.firmware.mcu import Mcu, limits, load

LIB = load()
LIB.ew_next_state.restype = ctypes.c_uint8
LIB.ew_next_state.argtypes = [ctypes.c_uint8, ctypes.c_uint8]
LIB.ew_may_move.restype = ctypes.c_bool
LIB.ew_may_move.argtypes = [ctypes.c_uint8]
NONE = 255
EVENTS = ("BOOTED", "READY", "COMMIT", "ARM", "CHUNK", "DRY", "HOLD", "STOP", "OFF", "ESTOP", "FAULT", "CLEARED")
# Written down a second time, from DESIGN and not from the C table: what is not here must be impossible.
MOVING = {"CHUNK": "RUN", "HOLD": "ARMED", "STOP": "STOP", "OFF": "DISARMED", "ESTOP": "ESTOP", "FAULT": "FAULT"}
ALLOWED = {
    "BOOT": {"BOOTED": "SELFTEST"},
    "SELFTEST": {"READY": "DISARMED", "ESTOP": "ESTOP", "FAULT": "FAULT"},
    "DISARMED": {"COMMIT": "CONFIGURED", "OFF": "DISARMED", "ESTOP": "ESTOP", "FAULT": "FAULT"},
    "CONFIGURED": {"ARM": "ARMED", "OFF": "DISARMED", "ESTOP": "ESTOP", "FAULT": "FAULT"},
    "ARMED": MOVING,
    "RUN": {**MOVING, "DRY": "STARVED"},
    "STARVED": MOVING,
    "STOP": {"STOP": "STOP", "OFF": "DISARMED", "ESTOP": "ESTOP", "FAULT": "FAULT"},
    "ESTOP": {"ESTOP": "ESTOP", "CLEARED": "DISARMED"},
    "FAULT": {"ESTOP": "ESTOP", "FAULT": "FAULT", "CLEARED": "DISARMED"},
}


@pytest.mark.parametrize("state", list(McuState), ids=lambda state: str(state.name))
def test_every_transition_is_the_one_written_down_and_no_other_exists(state: McuState) -> None:
    for number, event in enumerate(EVENTS):
        wanted = ALLOWED[state.name].get(event)
        got = LIB.ew_next_state(state, number)
        assert got == (McuState[wanted] if wanted else NONE), f"{state.name} + {event}"


def test_numbers_outside_the_table_lead_nowhere() -> None:
    assert all(LIB.ew_next_state(state, event) == NONE for state in (10, 11, 200, 255) for event in range(16))
    assert all(LIB.ew_next_state(state, event) == NONE for state in range(10) for event in (12, 13, 255))


def test_armed_is_reached_only_by_arming() -> None:
    into = {
        (McuState(state).name, EVENTS[event])
        for state in range(10)
        for event in range(12)
        if LIB.ew_next_state(state, event) == McuState.ARMED
    }
    assert into == {("CONFIGURED", "ARM"), ("ARMED", "HOLD"), ("RUN", "HOLD"), ("STARVED", "HOLD")}


def test_a_chunk_may_move_the_arm_in_three_states_only() -> None:
    assert [McuState(s).name for s in range(12) if LIB.ew_may_move(s)] == ["ARMED", "RUN", "STARVED"]


def _disarmed() -> Mcu:
    mcu = Mcu()
    mcu.heartbeat_on = True
    mcu.tick(21)
    return mcu


def _configured() -> Mcu:
    mcu = _disarmed()
    mcu.configure()
    return mcu


def _armed() -> Mcu:
    return Mcu().ready()


def _run() -> Mcu:
    mcu = _armed()
    assert mcu.ask(mcu.chunk([(0,)] * 16)).code == AckCode.OK
    mcu.tick(60)
    return mcu


def _starved() -> Mcu:
    mcu = _run()
    mcu.until(McuState.STARVED)
    return mcu


def _stop() -> Mcu:
    mcu = _armed()
    mcu.degrade = m.Degrade.SOFT_STOP
    mcu.until(McuState.STOP)
    mcu.degrade = m.Degrade.NOMINAL
    mcu.tick(21)
    return mcu


def _estop() -> Mcu:
    mcu = _armed()
    mcu.ask(m.Estop())
    mcu.tick(2)
    return mcu


def _fault() -> Mcu:
    mcu = _armed()
    mcu.encoder_on = False
    mcu.until(McuState.FAULT)
    mcu.encoder_on = True
    mcu.tick(21)
    return mcu


MAKERS: dict[str, Callable[[], Mcu]] = {
    "DISARMED": _disarmed, "CONFIGURED": _configured, "ARMED": _armed, "RUN": _run, "STARVED": _starved,
    "STOP": _stop, "ESTOP": _estop, "FAULT": _fault,
}  # fmt: skip
OK, BAD_STATE, LOCKED = AckCode.OK, AckCode.BAD_STATE, AckCode.LOCKED
COMMANDS: dict[str, Callable[[Mcu], m.HostMessage]] = {
    "limits_set": lambda mcu: mcu.table()[0],
    "drive_set": lambda mcu: sim_drive(0),
    "stops_set": lambda mcu: m.StopsSet(1, 1),
    "limits_commit": lambda mcu: m.LimitsCommit(1, mcu.limits_crc()),
    "arm": lambda mcu: m.Arm(mcu.limits_crc(), m.SCHEMA_HASH),
    "disarm": lambda mcu: m.Disarm(),
    "chunk": lambda mcu: mcu.chunk([(0,)] * 16),
    "hold": lambda mcu: m.Hold(),
    "estop": lambda mcu: m.Estop(),
    "estop_clear": lambda mcu: m.EstopClear(mcu.hello().clear_nonce),
    "fault_ack": lambda mcu: m.FaultAck(mcu.hello().fault),
}
# Answer and state two ticks later. "" means: unchanged.
_STOPPED = {
    "limits_set": (LOCKED, ""), "drive_set": (LOCKED, ""), "stops_set": (LOCKED, ""), "limits_commit": (BAD_STATE, ""),
    "arm": (BAD_STATE, ""), "chunk": (BAD_STATE, ""),
    "hold": (BAD_STATE, ""), "estop": (OK, "ESTOP"), "estop_clear": (BAD_STATE, ""), "fault_ack": (BAD_STATE, ""),
}  # fmt: skip
_LIVE = {**_STOPPED, "disarm": (OK, "DISARMED"), "chunk": (OK, "RUN"), "hold": (OK, "ARMED")}
TABLE: dict[str, dict[str, tuple[AckCode, str]]] = {
    "DISARMED": {
        **_STOPPED, "limits_set": (OK, ""), "drive_set": (OK, ""), "stops_set": (OK, ""),
        "limits_commit": (AckCode.BAD_LIMITS_CRC, ""), "disarm": (OK, ""),
    },
    "CONFIGURED": {**_STOPPED, "arm": (OK, "ARMED"), "disarm": (OK, "DISARMED")},
    "ARMED": _LIVE,
    "RUN": _LIVE,
    "STARVED": _LIVE,
    "STOP": {**_STOPPED, "disarm": (OK, "DISARMED")},
    "ESTOP": {**_STOPPED, "disarm": (OK, ""), "estop_clear": (OK, "DISARMED")},
    "FAULT": {**_STOPPED, "disarm": (OK, ""), "fault_ack": (OK, "DISARMED")},
}


@pytest.mark.parametrize("state", list(TABLE))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_in_every_state(state: str, command: str) -> None:
    mcu = MAKERS[state]()
    assert mcu.state.name == state
    drive_was_on = mcu.drive_on
    code, after = TABLE[state][command]
    assert mcu.ask(COMMANDS[command](mcu)).code == code
    mcu.tick(2)
    assert mcu.state.name == (after or state)
    if not drive_was_on:
        assert mcu.drive_on == (mcu.state == McuState.ARMED)


@pytest.mark.parametrize("state", list(TABLE))
def test_the_drive_is_on_only_where_it_may_be(state: str) -> None:
    mcu = MAKERS[state]()
    assert mcu.drive_on == (state in ("ARMED", "RUN", "STARVED", "STOP"))
    report = mcu.report()
    assert bool(report.flags & m.STATE_FLAG_DRIVE_ON) == mcu.drive_on
    assert bool(report.flags & m.STATE_FLAG_LIMITS_LOCKED) == (state != "DISARMED")
    assert bool(report.flags & m.STATE_FLAG_ESTOP_LATCHED) == (state == "ESTOP")


@pytest.mark.parametrize("state", ["CONFIGURED", "ARMED", "STOP", "ESTOP", "FAULT"])
def test_on_the_way_back_to_disarmed_the_limit_table_is_unlocked_and_must_be_sent_again(state: str) -> None:
    mcu = MAKERS[state]()
    if state == "ESTOP":
        mcu.ask(m.EstopClear(mcu.hello().clear_nonce))
    elif state == "FAULT":
        mcu.ask(m.FaultAck(mcu.hello().fault))
    else:
        mcu.ask(m.Disarm())
    mcu.until(McuState.DISARMED, 5)
    assert (mcu.hello().locked, mcu.hello().limits_crc) == (0, 0)
    assert mcu.arm().code == AckCode.BAD_STATE
    assert mcu.ask(m.LimitsCommit(1, mcu.limits_crc())).code == AckCode.BAD_LIMITS_CRC
    mcu.configure()
    assert mcu.arm().code == AckCode.OK


def test_a_table_that_is_locked_cannot_be_changed_and_is_the_one_read_back() -> None:
    mcu = _configured()
    other = limits(0, (1, 2, 4000, 4000, 1, 1, 1))
    assert mcu.ask(other).code == AckCode.LOCKED
    assert mcu.ask(m.LimitsCommit(1, mcu.limits_crc())).code == AckCode.BAD_STATE
    (held,) = [x for x in mcu.send(m.LimitsGet(0)) if isinstance(x, m.Limits)]
    assert held.pack() == mcu.table()[0].pack()
