"""One request in flight, one deadline; after a miss nothing that comes is ever used; nothing unfit becomes a chunk."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_wam.contracts import ActionChunk, Imagination
from edge_wam.faults import Fault
from edge_wam.planner_channel import PlannerChannel
from edge_wam.planner_wire import (
    AnswerKind,
    PlanAnswer,
    PlanRequest,
    Ready,
    Trouble,
    pack_answer,
    pack_ready,
    pack_trouble,
    unpack_answer,
)
from edge_wam.shm import Mailbox

MS = 1_000_000
DEADLINE = 150 * MS
HASH = "cd" * 32
READY = Ready(HASH, np.ones(3, np.float32), 5, 6, True)


def request(sequence: int, generation: int = 0) -> PlanRequest:
    return PlanRequest(
        sequence, generation, True, "öffne die Schublade", {"a": 7, "b": 8}, 123, np.arange(4.0), -np.arange(4.0),
        np.arange(8.0).reshape(2, 4) / 3,
    )


def answer(sequence: int, q: np.ndarray | None = None) -> PlanAnswer:
    chunk = ActionChunk(1000, 50 * MS, np.arange(64.0).reshape(16, 4) / 7, 900, sequence, HASH, 2)
    if q is not None:
        object.__setattr__(chunk, "q", q)
    dream = Imagination(np.arange(12, dtype=np.float32).reshape(2, 2, 3), (5, 6), 900, sequence)
    return PlanAnswer(chunk, dream, np.full((2, 3), 0.5, np.float32), 901, 1, 2, 3)


class Wire:
    """Both ends; ``send`` plays the inference process."""

    def __init__(self) -> None:
        self.requests, self.answers = Mailbox.create("q", 4096), Mailbox.create("a", 65536)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.channel = PlannerChannel(self.requests, self.answers, self.bell, DEADLINE)

    def send(self, data: bytes) -> None:
        self.answers.put(data)

    def ready(self, generation: int = 0) -> None:
        self.send(pack_ready(generation, READY))
        assert self.channel.poll(0) is None

    def close(self) -> None:
        for box in (self.requests, self.answers):
            box.close()
            os.close(box.fd)
        os.close(self.bell)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_requests_and_answers_cross_the_wire_exactly() -> None:
    asked = request(9)
    got = PlanRequest.unpack(asked.pack(), ("a", "b"))
    assert (got.sequence, got.reset, got.instruction, dict(got.frames)) == (9, True, asked.instruction, asked.frames)
    assert np.array_equal(got.prefix, asked.prefix) and np.array_equal(got.setpoint, asked.setpoint)
    sent = answer(9)
    generation, sequence, back = unpack_answer(pack_answer(3, sent))
    assert (generation, sequence) == (3, 9) and isinstance(back, PlanAnswer)
    assert np.array_equal(back.chunk.q, sent.chunk.q) and back.chunk.prefix == 2 and back.chunk.model_hash == HASH
    assert np.array_equal(back.imagination.latents, sent.imagination.latents) and back.imagination.for_ns == (5, 6)
    assert np.array_equal(back.latents, sent.latents) and (back.encode_ns, back.step_ns, back.total_ns) == (1, 2, 3)


def test_nothing_is_usable_before_the_bundle_has_proven_itself(wire: Wire) -> None:
    assert not wire.channel.usable
    wire.ready()
    assert wire.channel.usable and wire.channel.ready is not None and wire.channel.ready.golden_exact


def test_a_bundle_that_cannot_be_used_says_why(wire: Wire) -> None:
    wire.send(pack_trouble(AnswerKind.STARTUP_FAILED, 0, 0, "signed with an unknown key"))
    assert wire.channel.poll(0) is None
    assert not wire.channel.usable and "unknown key" in wire.channel.startup_error


def test_an_answer_in_time_is_used_and_its_latency_known(wire: Wire) -> None:
    wire.ready()
    wire.channel.ask(request(1), 1000 * MS)
    assert wire.channel.poll(1000 * MS + DEADLINE) is None, "the deadline itself is still in time"
    wire.send(pack_answer(0, answer(1)))
    got = wire.channel.poll(1000 * MS + DEADLINE)
    assert got is not None and isinstance(got[1], PlanAnswer)
    assert wire.channel.answered_after_ns == DEADLINE and wire.channel.in_flight is None


def test_after_one_miss_a_late_answer_is_never_used(wire: Wire) -> None:
    wire.ready()
    wire.channel.ask(request(1), 0)
    missed = wire.channel.poll(DEADLINE + 1)
    assert missed is not None and missed[0] is Fault.POLICY_DEADLINE_MISSED and not wire.channel.usable
    wire.send(pack_answer(0, answer(1)))
    assert wire.channel.poll(DEADLINE + 2) is None and not wire.channel.usable


def test_an_answer_that_is_there_but_was_read_too_late_is_a_miss_all_the_same(wire: Wire) -> None:
    wire.ready()
    wire.channel.ask(request(1), 0)
    wire.send(pack_answer(0, answer(1)))
    got = wire.channel.poll(DEADLINE + 1)
    assert got is not None and got[0] is Fault.POLICY_DEADLINE_MISSED


@pytest.mark.parametrize(("generation", "sequence"), [(1, 1), (0, 2), (0, 0)])
def test_answers_of_another_process_or_to_another_question_mean_nothing(
    wire: Wire, generation: int, sequence: int
) -> None:
    wire.ready()
    wire.channel.ask(request(1), 0)
    wire.send(pack_answer(generation, answer(sequence)))
    assert wire.channel.poll(1) is None and wire.channel.in_flight is not None


def test_only_the_operators_restart_opens_the_channel_again(wire: Wire) -> None:
    wire.ready()
    wire.channel.ask(request(1), 0)
    wire.channel.poll(DEADLINE + 1)
    wire.ready()
    assert not wire.channel.usable, "the old process cannot talk itself back in"
    wire.channel.restart(1)
    assert not wire.channel.usable
    wire.ready(0)
    assert not wire.channel.usable
    wire.ready(1)
    assert wire.channel.usable


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 15), st.integers(0, 3), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_chunk_with_a_number_that_is_none_never_comes_out(knot: int, axis: int, value: float) -> None:
    q = np.zeros((16, 4))
    q[knot, axis] = value
    _, _, what = unpack_answer(pack_answer(0, answer(1, q)))
    assert isinstance(what, Trouble) and what.not_finite


def test_a_policy_that_fails_closes_the_channel_with_its_own_words(wire: Wire) -> None:
    wire.ready()
    wire.channel.ask(request(1), 0)
    wire.send(pack_trouble(AnswerKind.ERROR, 0, 1, "camera eye: frame 7 was overwritten"))
    got = wire.channel.poll(1)
    assert got == (Fault.POLICY_FAILED, "camera eye: frame 7 was overwritten") and not wire.channel.usable
