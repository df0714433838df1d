"""The control process' end of the planning channel: one request in flight, a hard deadline, dead after one miss.

A late answer can never be used: after a miss the channel is closed, and answers are matched by the generation of the
inference process and by sequence number, so that an answer to an older question means nothing.
"""

from __future__ import annotations

import os

from edge_wam.faults import Fault
from edge_wam.planner_wire import AnswerKind, PlanAnswer, PlanRequest, Ready, Trouble, unpack_answer
from edge_wam.shm import Mailbox


class PlannerChannel:
    """Used by the control loop only; no call waits.

    Args:
        requests, answers: the two mailboxes.
        bell_fd: eventfd that wakes the inference process.
        deadline_ns: from request to answer.
    """

    def __init__(self, requests: Mailbox, answers: Mailbox, bell_fd: int, deadline_ns: int) -> None:
        self.ready: Ready | None = None
        self.startup_error = ""
        self.generation = 0
        self.in_flight: PlanRequest | None = None
        self.asked_at_ns = 0
        self.answered_after_ns = 0
        self._requests = requests
        self._answers = answers
        self._bell = bell_fd
        self._deadline_ns = deadline_ns
        self._limit_ns = deadline_ns
        self._seen = 0
        self._dead = False

    @property
    def usable(self) -> bool:
        """Ready and not closed by a miss, a failure or a death."""
        return self.ready is not None and not self._dead

    def restart(self, generation: int) -> None:
        """The operator started a new inference process."""
        self.generation = generation
        self.ready = None
        self.startup_error = ""
        self.in_flight = None
        self._dead = False

    def close(self) -> None:
        """Never use this inference process again."""
        self._dead = True
        self.in_flight = None

    def ask(self, request: PlanRequest, now_ns: int, patience: float = 1.0) -> None:
        """Send one request. ``patience`` multiplies the deadline: a first answer may be slower, while nothing moves."""
        self._requests.put(request.pack())
        os.eventfd_write(self._bell, 1)
        self.in_flight = request
        self.asked_at_ns = now_ns
        self._limit_ns = int(self._deadline_ns * patience)

    @property
    def news(self) -> bool:
        """Something arrived, or the deadline of the request in flight must be checked. Costs a microsecond."""
        return self._answers.number != self._seen

    def poll(self, now_ns: int) -> tuple[bytes, PlanAnswer] | tuple[Fault, str] | None:
        """What came: (exact bytes, answer), or the fault by which the channel was closed, or None.

        READY and STARTUP_FAILED are noted in :attr:`ready` and :attr:`startup_error`.
        """
        if self.in_flight is not None and now_ns - self.asked_at_ns > self._limit_ns:
            waited_ms = (now_ns - self.asked_at_ns) / 1e6
            self.close()
            return Fault.POLICY_DEADLINE_MISSED, f"{waited_ms:.0f} ms"
        got = self._answers.get() if self.news else None
        if got is None:
            return None
        self._seen, data = got
        generation, sequence, what = unpack_answer(data)
        if generation != self.generation:
            return None
        if isinstance(what, Ready):
            self.ready = what
        elif isinstance(what, Trouble) and what.kind is AnswerKind.STARTUP_FAILED:
            self.startup_error = what.text
            self.close()
        elif self.in_flight is not None and sequence == self.in_flight.sequence:
            return self._answered(data, what, now_ns)
        return None

    def _answered(
        self, data: bytes, what: PlanAnswer | Trouble, now_ns: int
    ) -> tuple[bytes, PlanAnswer] | tuple[Fault, str]:
        self.in_flight = None
        self.answered_after_ns = now_ns - self.asked_at_ns
        if isinstance(what, Trouble):
            self.close()
            return (Fault.CHUNK_NOT_FINITE if what.not_finite else Fault.POLICY_FAILED), what.text
        return data, what
