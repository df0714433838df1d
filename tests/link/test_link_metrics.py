"""What a link says of itself as a line: rates, round trips, and every loss that either side can know of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware_bridge.host import link_metrics as lm
from firmware_bridge.host.framing import LinkFrame, encode_frame
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_metrics import Rate, WireMeter
from firmware_bridge.host.link_state import mcu_dropped
from firmware_bridge.host.messages import Hello, TimeResp
from firmware_bridge.mcu.build import build
from tests.link.fake_mcu import LIMITS, FakeMcu


def test_a_rate_is_the_mean_of_the_last_second() -> None:
    rate = Rate()
    for tick in range(200):
        rate.add(50, tick * 10_000_000)
    assert rate.per_second(2_000_000_000) == 5000.0
    assert rate.per_second(2_500_000_000) == 2500.0
    assert rate.per_second(4_000_000_000) == 0.0


def test_metrics_are_made_ten_times_a_second_and_not_more_often() -> None:
    meter = WireMeter()
    meter.trip(5)
    first = meter.metrics(0, 0)
    meter.trip(7)
    assert meter.metrics(lm.SLOT_NS - 1, 9) is first
    assert meter.metrics(lm.SLOT_NS, 9).rtt_p99_ns == 7


@pytest.fixture
def fake() -> Iterator[tuple[FakeMcu, Link]]:
    mcu = FakeMcu()
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    yield mcu, link
    link.close()


@pytest.mark.parametrize(
    ("damage", "counted"),
    [
        (lambda mcu: mcu.say_raw(b"\x07junk\0"), "bad_cobs"),
        (lambda mcu: mcu.say_raw(encode_frame(b"x" * 20)[:-2] + b"\x01\0"), "bad_crc"),
        (lambda mcu: mcu.say_raw(b"\x11" * 2000 + b"\0"), "oversize"),
        (lambda mcu: mcu.say_raw(encode_frame(LinkFrame(0x3F, 1, mcu.session, b"").pack())), "malformed"),
        (lambda mcu: mcu.say(mcu.report(), session=mcu.session ^ 1), "foreign_session"),
        (lambda mcu: setattr(mcu, "_seq", mcu._seq + 5) or mcu.say(mcu.report()), "rx_gaps"),
    ],
)
def test_every_loss_has_a_counter_and_is_in_the_sum(
    fake: tuple[FakeMcu, Link], damage: Callable[[FakeMcu], None], counted: str
) -> None:
    mcu, link = fake
    before = link.state.counters.dropped
    damage(mcu)
    link.poll()
    mcu.time_ns += lm.SLOT_NS
    counters = link.state.counters
    assert getattr(counters, counted, 0) + getattr(counters.framing, counted, 0) >= 1
    assert counters.dropped > before and link.state.metrics.dropped == counters.dropped


def test_answers_to_nothing_and_messages_that_nobody_polls_are_counted(fake: tuple[FakeMcu, Link]) -> None:
    mcu, link = fake
    before = link.state.counters.unasked
    mcu.say(mcu.hello(12345))
    link.poll()
    assert link.state.counters.unasked == before + 1
    for _ in range(4200):
        mcu.say(mcu.report())
    link._pump()
    assert link.state.counters.unread >= 104


def test_a_lost_clock_exchange_is_counted(fake: tuple[FakeMcu, Link]) -> None:
    mcu, link = fake
    mcu.swallow = lambda message: isinstance(message, TimeResp)
    link.service(mcu.time_ns + 3_000_000_000)
    assert link.state.counters.times_lost >= 2


def test_an_emergency_stop_does_not_wait_for_a_lost_hello(fake: tuple[FakeMcu, Link]) -> None:
    mcu, link = fake
    mcu.swallow = lambda message: isinstance(message, Hello)
    link._talk.ask_hello()
    assert link._talk.hello_wanted
    link.estop()
    assert mcu.estop == 1


def test_rates_and_round_trips_of_a_session_with_the_core(firmware: Path) -> None:
    mcu = LibraryTransport(build("lib", firmware))
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    before = link.state.counters.dropped  # what the MCU said before it was known who it is
    for counter in range(200):
        link.heartbeat(counter, 0)
        link.service(mcu.now_ns() + 10_000_000)
    found = link.state.metrics
    assert 1500 < found.out_bytes_s < 3000, "50 heartbeats of 30 bytes a second, and clock exchanges"
    assert found.in_bytes_s > 100 * 30, "100 states a second"
    assert found.answers >= 16 and 0 <= found.rtt_p50_ns <= found.rtt_p99_ns <= 20_000_000
    assert found.dropped == before and mcu_dropped(link.state.stats) == 0
    link.close()
