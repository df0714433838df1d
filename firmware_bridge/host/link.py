"""The host's end of the wire: connect, configure, arm, stream motion, notice everything that goes wrong.

One loop owns a link; nothing here blocks except the acts of an operator (connect, configure, arm, disarm, clear), which
wait for their answer. Between its cycles the loop calls :meth:`Link.service` instead of sleeping: answers of the MCU
are then stamped when they arrive, and the clocks stay synchronised to tens of microseconds. It never arms by itself.
"""

from __future__ import annotations

import math

from firmware_bridge.errors import ChunkRefused, ClockError, LinkBusy, LinkError, TransportClosed
from firmware_bridge.host.conversation import Conversation
from firmware_bridge.host.drives import drive_error_text
from firmware_bridge.host.link_session import ENERGISED, HEARTBEAT_NS, MILLISECOND, LinkSession
from firmware_bridge.host.link_state import F64, LinkState
from firmware_bridge.host.messages import (
    MAX_KNOTS,
    MCUSTATE_TEXT,
    SCHEMA_HASH,
    STATE_FLAG_DRIVES_READY,
    AckCode,
    Arm,
    Degrade,
    Disarm,
    DriveKind,
    EstopClear,
    Fault,
    FaultAck,
    Hold,
    LimitsCommit,
    McuState,
)
from firmware_bridge.host.motion import check_times, chunk_message, encode_knots
from firmware_bridge.host.transport import Transport

CONNECT_EXCHANGES, CONNECT_EXCHANGES_MAX = 16, 64
"""Clock exchanges before :meth:`Link.connect` returns: more where the first ones were all slow."""
CHUNKS_IN_FLIGHT = 2
DRIVES_S = 1.0
"""The MCU asks each drive who it is: 16 servos on one bus take 0.25 s."""
_HEARTBEAT_EARLY_NS = 2 * MILLISECOND
"""A 100 Hz caller beats every second cycle, even when a cycle comes a little early."""


class Link(LinkSession):
    """See the module.

    Args:
        transport: the byte stream.
        limits: the table that the MCU shall enforce.
        clock: host clock, monotonic ns; simulated ns in lockstep.
        max_clock_error_ns: motion is refused while the clocks are known less well than this. 1 ms; 5 ms for an MCU
            that is emulated in real time on a PC.
        encoding: of chunks. ``I16_LSB`` nearly halves the frame (16 knots x 4 axes: 156 instead of 284 bytes) and
            rounds knots to 1/32767 of the largest position, 16 um for +-0.5 m.
    """

    def heartbeat(self, policy_counter: int, degrade_state: int) -> None:
        """Call once per control cycle, from the loop that knows how the rest is doing; sends every 20 ms.

        A worse or better degrade state goes out at once.

        Args:
            policy_counter: advances only when the planner really advanced.
            degrade_state: 0 NOMINAL .. 4 SAFE_OFF.
        """
        now = self._clock()
        degrade = int(Degrade(degrade_state))
        self._policy_counter = policy_counter & 0xFFFFFFFF
        if now < self._beat_due_ns - _HEARTBEAT_EARLY_NS and degrade == self._beat_degrade:
            return
        self._beat_degrade = degrade
        self._beat_due_ns = now + HEARTBEAT_NS
        self._send_heartbeat(now)

    def send_chunk(self, t0_ns: int, dt_ns: int, q: F64, chunk_id: int) -> None:
        """Send timed knots: knot k holds at ``t0_ns + k * dt_ns`` of the link's clock. Does not wait for the answer.

        Args:
            q: [H, D] axis units.
            chunk_id: increasing, from 1.

        Raises:
            ChunkRefused: a number that is none, outside the limits, of another shape, or a time that the wire cannot
                carry. Nothing was sent.
            ClockError: the clocks are not known well enough.
            LinkBusy: two chunks are unanswered or bytes wait: the MCU does not keep up. Nothing was sent.
            LinkError: not armed, or the MCU was reset.
            TransportClosed: the cable is out.
        """
        now = self._clock()
        places = MAX_KNOTS if self._talk.hello is None else min(MAX_KNOTS, self._talk.hello.max_knots)
        samples = encode_knots(q, self.limits, self.encoding, places)
        check_times(t0_ns, dt_ns, len(q), now)
        if not self._chunk_id < chunk_id <= 0xFFFFFFFF:
            raise ChunkRefused(f"chunk_id {chunk_id}", expected=f"more than {self._chunk_id}, the last one sent")
        if self._reset_seen or not self._armed:
            raise LinkError(
                "the MCU was reset" if self._reset_seen else "the MCU is not armed by this host",
                expected="an armed MCU", remedy="arming is the operator's act",
            )
        self._require_clock()
        if not self._talk.open:
            raise TransportClosed("the cable is out", remedy="plug it in and connect again")
        self._settle_chunks()
        if len(self._chunks) >= CHUNKS_IN_FLIGHT or self._talk.transport.backlog:
            self._talk.counters.chunks_skipped += 1
            raise LinkBusy(
                f"{len(self._chunks)} chunks unanswered, {self._talk.transport.backlog} bytes waiting",
                expected=f"less than {CHUNKS_IN_FLIGHT} and none", remedy="send the newest plan a little later",
            )
        t0_us = self._sync.to_mcu_us(t0_ns)
        message = chunk_message(samples, len(q), self.limits.dof, t0_us, dt_ns, chunk_id, self.encoding)
        self._chunk_id = chunk_id
        self._chunks.append(self._talk.command(message))
        self._talk.counters.chunks_sent += 1

    def hold(self) -> None:
        """Drop the plan, brake, stay armed. Sent again until it is answered; does not wait."""
        self._talk.command(Hold())

    def estop(self) -> None:
        """Brake, drive off, latched. Sent every 10 ms until the MCU reports the latch; does not wait."""
        self._estop_due_ns = self._clock()
        self._pump()

    # -- acts of an operator ----------------------------------------------------------------------------------------

    def connect(self, timeout_s: float = 5.0) -> LinkState:
        """Find the MCU, check that it speaks this protocol, synchronise the clocks, wait for its first state.

        Raises:
            LinkError: nobody answers, or the firmware was built from another definition.
            TransportClosed: the cable is out.
        """
        self._talk.ask_hello()
        self._await(lambda: not self._talk.hello_wanted, timeout_s, "HELLO")
        hello = self._hello()
        if hello.schema_hash != SCHEMA_HASH:
            raise LinkError(
                f"the firmware speaks protocol {hello.schema_hash:08x}", expected=f"{SCHEMA_HASH:08x}",
                remedy="flash the firmware of this release",
            )
        self._adopt()
        for count in range(CONNECT_EXCHANGES_MAX):
            if count >= CONNECT_EXCHANGES and self._sync.bound_ns(self._clock()) <= self.max_clock_error_ns:
                break
            before = self._sync.samples
            self._ask_time(self._clock())
            # A lost exchange costs 50 ms and is simply not counted.
            self._wait(lambda before=before: self._sync.samples > before, 0.05)  # type: ignore[misc]
        self._await(lambda: self._report_us > 0 and self._sync.samples > 0, timeout_s, "STATE")
        return self.state

    def attach(self, transport: Transport) -> None:
        """Go on over another byte stream (the cable was out). :meth:`connect` comes next; nothing is armed."""
        self._talk.transport.close()
        before = self._talk
        self._talk = Conversation(transport, self._clock)
        self._talk.continue_from(before)

    def configure(self) -> None:
        """Upload the limit table, lock it by its CRC, read it back; wait until the MCU has checked the drives.

        Raises:
            LinkError: the drive is on, a latch is set, the MCU refused or holds another table than was sent, or a drive
                is not there or not what the table says.
        """
        hello = self._refresh_hello()
        state = McuState(hello.state)
        if state not in (McuState.DISARMED, McuState.CONFIGURED):
            text = MCUSTATE_TEXT[state]
            raise LinkError(
                f"limits cannot be written in state {text.name} ({text.cause})", expected="DISARMED",
                remedy="disarm" if state in ENERGISED else "clear the emergency stop or the fault first",
            )
        if hello.locked:
            self._do(Disarm())
        self._configured = False
        self._drive_errors.clear()
        for message in self.limits.uploads():
            self._do(message)
        # A repetition after a lost answer finds the table locked; whether it is ours is checked below.
        committed = self._do(LimitsCommit(self.limits.dof, self.limits.crc), again_ok=AckCode.BAD_STATE)
        hello = self._refresh_hello()
        if not hello.locked or hello.limits_crc != self.limits.crc:
            raise LinkError(
                f"the MCU locked limits with CRC {hello.limits_crc:08x}", expected=f"{self.limits.crc:08x}",
                remedy="power-cycle the MCU and configure again",
            )
        for axis, name in zip(self.limits.axes, self.limits.names, strict=True):
            held = self._read_limits(axis.axis)
            if held.pack() != axis.pack():
                raise LinkError(
                    f"axis {name}: the MCU holds {held}", expected=f"{axis}",
                    remedy="power-cycle the MCU and configure again",
                )
        self._configured, self._epoch = True, self._talk.epoch
        self._await(lambda: self._report is not None and self._report.axes == self.limits.dof, 0.5, "STATE")
        if any(drive.kind != DriveKind.SIM for drive in self.limits.drives):
            self._await_drives(committed.now_us)

    def _await_drives(self, since_us: int) -> None:
        """Drives are asked by the MCU who they are and how they are set up: that takes a moment after the commit."""

        def ready() -> bool:
            report = self._report
            return report is not None and report.now_us > since_us and bool(report.flags & STATE_FLAG_DRIVES_READY)

        if self._wait(ready, DRIVES_S):
            return
        self._configured = False
        names = self.limits.names
        wrong = [f"axis {names[axis]} {drive_error_text(self.limits.drives[axis], errors)}"
                 for axis, errors in sorted(self._drive_errors.items()) if axis < self.limits.dof]  # fmt: skip
        raise LinkError(
            "; ".join(wrong) or "a drive does not answer", expected="every drive as the robot file says",
            remedy="set the drive up, or correct the file" if wrong else "check power, cable and numbers of the drives",
        )

    def arm(self) -> None:
        """The operator's act. The drive goes on and holds where the arm is.

        Raises:
            ClockError: the clocks are not known well enough.
            LinkError: a reset was not acknowledged, limits are not configured, or the MCU refused.
        """
        if self._reset_seen:
            raise LinkError(
                "the MCU was reset under this link", expected="an operator who has looked why",
                remedy="acknowledge_reset(), clear the fault, configure, arm",
            )
        if not self._configured:
            raise LinkError("the limits are not configured", expected="configure() before arm()")
        self._require_clock()
        self._armed = True  # from here the heartbeat says so, or the MCU would take the arm away again at once
        self._armed_since_us = 1 << 63
        try:
            self._send_heartbeat(self._clock())
            ack = self._do(Arm(self.limits.crc, SCHEMA_HASH), again_ok=AckCode.BAD_STATE, beat=True)
            if ack.code == AckCode.BAD_STATE and ack.arg != McuState.ARMED:
                raise LinkError(f"Arm refused by the MCU in state {MCUSTATE_TEXT[ack.arg].name}")
            now = self.state
            if now.mcu_state not in ENERGISED:
                raise LinkError(f"armed, and at once {now.mcu_state.name}: {now.fault.name}, {now.stop_cause.name}")
        except LinkError:
            self._armed = False
            raise
        self._armed_since_us = ack.now_us
        self._chunk_id = 0

    def disarm(self) -> None:
        """Brake, then drive off. Returns when the MCU has taken the command, before the arm has stopped.

        Raises:
            LinkError: no answer; the MCU then stops by itself as soon as the heartbeats end.
        """
        self._do(Disarm(), beat=True)
        self._armed = False
        self._configured = False

    def clear_estop(self) -> None:
        """Clear the latched emergency stop. Never arms."""
        self._estop_due_ns = None
        self._do(EstopClear(self._refresh_hello().clear_nonce), again_ok=AckCode.BAD_STATE)
        if self._refresh_hello().estop:
            raise LinkError("the emergency stop is still latched", remedy="wait for standstill and clear again")

    def clear_fault(self) -> Fault:
        """Acknowledge the latched fault, and say which it was. Never arms."""
        fault = Fault(self._refresh_hello().fault)
        if fault is not Fault.NONE:
            self._do(FaultAck(fault), again_ok=AckCode.BAD_STATE)
            if self._refresh_hello().fault:
                raise LinkError(f"fault {fault.name} is still latched", remedy="remove its cause and clear again")
        return fault

    def acknowledge_reset(self) -> None:
        """The operator has seen that the MCU was reset. Configuring and arming are still to be done."""
        self._reset_seen = False

    def close(self) -> None:
        """Give the byte stream back. An armed MCU stops by itself 100 ms later."""
        self._talk.open = False
        self._talk.transport.close()

    def _require_clock(self) -> None:
        bound = self._sync.bound_ns(self._clock())
        if not bound <= self.max_clock_error_ns:
            known = "unknown" if math.isinf(bound) else f"{bound / 1e6:.2f} ms"
            raise ClockError(
                f"error bound of the MCU's clock: {known}", expected=f"at most {self.max_clock_error_ns / 1e6:g} ms",
                remedy="call service() instead of sleeping between cycles; look for a slow or lossy cable",
            )

