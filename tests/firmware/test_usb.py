"""The virtual serial port: stack and register driver together, driven over an emulated bus by a host that misbehaves.

No silicon is here: electrical behaviour, timing and what the manual leaves out are steps of docs/firmware-bench.md.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.firmware.stm32 import build_drivers, header_number
from tests.firmware.usb_host import Deaf, Stalled, UsbHost
from tests.firmware.usb_part import BCDR, CNTR, DADDR, FSUSP, PMAOVR, UID, WKUP, UsbPart

LIBRARY: list[Path] = []
LONGEST_INTERRUPT = 128
"""Register accesses: 64 bytes in, 64 out, a SETUP and 64 bytes of its answer, two bytes an access: 100. The rest is for
the endpoints around them."""

DEVICE = bytes.fromhex("12 01 00 02 02 00 00 40 09 12 01 00 00 01 01 02 03 01")
CONFIGURATION = bytes.fromhex(
    "09 02 43 00 02 01 00 C0 00"  # 67 bytes, two interfaces, self powered, no current
    "09 04 00 00 01 02 02 00 00"  # communications, abstract control model, no AT commands
    "05 24 00 20 01"  # CDC 1.20
    "05 24 01 00 01"  # no call management
    "04 24 02 02"  # line coding and line state
    "05 24 06 00 01"  # interface 0 is in charge of 1
    "07 05 82 03 10 00 FF"
    "09 04 01 00 02 0A 00 00 00"
    "07 05 01 02 40 00 00"
    "07 05 81 02 40 00 00"
)


@pytest.fixture(scope="module", autouse=True)
def _library(tmp_path_factory: pytest.TempPathFactory) -> None:
    LIBRARY[:] = [build_drivers(tmp_path_factory.mktemp("usb"))]


class Port:
    """Part and host on one cable."""

    def __init__(self) -> None:
        self.part = UsbPart(LIBRARY[0])
        assert self.part.lib.usbfs_start() is True
        self.part.log.clear()
        self.host = UsbHost(self.part)

    def put(self, data: bytes) -> int:
        """What the main loop gets rid of in one turn."""
        taken = 0
        while taken < len(data) and self.part.lib.usb_cdc_put(data[taken]):
            taken += 1
        self.turn()
        return taken

    def turn(self) -> None:
        self.part.lib.usb_cdc_turn()
        self.part.interrupt()

    def received(self) -> bytes:
        """What the main loop reads of its ring."""
        buffer = ctypes.create_string_buffer(4096)
        count = self.part.lib.fake_received(buffer) & 0xFFFF
        return buffer.raw[:count]

    def close(self) -> None:
        """What held all the time."""
        assert self.part.misuse == []
        assert self.part.lib.fake_wrong_width() == 0
        assert self.part.accesses <= LONGEST_INTERRUPT


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


# ---- start ----


def test_48_mhz_come_from_the_internal_oscillator_which_the_frames_of_the_host_trim(port: Port) -> None:
    registers = port.part.registers
    assert registers[header_number("RCC_CRRCR")] & 1
    assert (registers.get(header_number("RCC_CCIPR"), 0) >> 26) & 3 == 0, "HSI48"
    trim = registers[header_number("CRS_CFGR")]
    assert (trim >> 28) & 3 == 2 and trim & 0xFFFF == 48_000 - 1, "against frames of 1 ms"
    assert abs((trim >> 16 & 0xFF) - 48_000 * 0.0014 / 2) < 1, "half a step of the trimming"
    assert registers[header_number("CRS_CR")] & 0x60 == 0x60


def test_the_host_sees_the_device_only_when_everything_is_ready() -> None:
    part = UsbPart(LIBRARY[0])
    assert not part.attached
    assert part.lib.usbfs_start() is True
    writes = [address for address, _ in part.puts()]
    assert writes.index(BCDR) == len(writes) - 1 and part.attached
    assert part.puts(CNTR)[0][1] & 3 == 1, "the transceiver starts up in reset"
    assert part.registers[DADDR] == 0x80


def test_without_its_clock_the_device_does_not_attach() -> None:
    part = UsbPart(LIBRARY[0])
    part.answers[header_number("RCC_CRRCR")] = lambda value: value & 1
    assert part.lib.usbfs_start() is False
    assert not part.attached


# ---- enumeration ----


def test_it_enumerates_byte_by_byte(port: Port) -> None:
    host = port.host
    host.reset()
    assert host.descriptor(1, length=64) == DEVICE
    host.reset()
    host.set_address(77)
    assert host.descriptor(1, length=18) == DEVICE
    assert host.descriptor(2, length=9) == CONFIGURATION[:9]
    assert host.descriptor(2, length=67) == CONFIGURATION
    assert host.descriptor(2, length=64) == CONFIGURATION[:64], "a whole packet is a whole answer"
    assert host.descriptor(3, 0) == bytes.fromhex("04 03 09 04")
    strings = [host.descriptor(3, index, language=0x409) for index in (1, 2, 3)]
    assert all(s[0] == len(s) and s[1] == 3 for s in strings)
    assert [s[2:].decode("utf-16-le") for s in strings] == [
        "edge-wam", "motion gateway", "".join(f"{word:08X}" for word in UID),
    ]  # fmt: skip
    host.configure()
    assert host.read(0x80, 8, 0, 0, 1) == b"\x01"
    host.write(0x21, 0x20, 0, 0, bytes.fromhex("C0 C6 2D 00 00 00 08"))
    assert host.read(0xA1, 0x21, 0, 0, 7) == bytes.fromhex("C0 C6 2D 00 00 00 08")
    host.dtr(True)


def test_the_descriptors_lie_end_to_end_and_name_each_endpoint_once() -> None:
    at, endpoints, interfaces = 0, [], []
    while at < len(CONFIGURATION):
        length, kind = CONFIGURATION[at], CONFIGURATION[at + 1]
        if kind == 5:
            endpoints.append(CONFIGURATION[at + 2])
        if kind == 4:
            interfaces.append(CONFIGURATION[at + 2])
        at += length
    assert at == len(CONFIGURATION) == int.from_bytes(CONFIGURATION[2:4], "little")
    assert interfaces == [0, 1] and len(set(endpoints)) == len(endpoints) == 3


def test_the_address_changes_after_the_status_stage_and_not_before(port: Port) -> None:
    host = port.host
    host.reset()
    host.setup(0x00, 5, 33, 0, 0)
    assert port.part.registers[DADDR] == 0x80, "the status still goes to the old one"
    assert host._fetch(1) == b""
    assert port.part.registers[DADDR] == 0x80 | 33
    with pytest.raises(Deaf):
        host.descriptor(1)
    host.address = 33
    assert host.descriptor(1) == DEVICE


@pytest.mark.parametrize(("value", "index", "length"), [(128, 0, 0), (65535, 0, 0), (3, 1, 0), (3, 0, 1)])
def test_an_address_that_is_none_is_refused(port: Port, value: int, index: int, length: int) -> None:
    port.host.reset()
    port.host.setup(0x00, 5, value, index, length)
    with pytest.raises(Stalled):
        port.host._fetch(1)
    assert port.host.descriptor(1) == DEVICE


def test_a_setup_in_place_of_the_status_takes_the_address_back(port: Port) -> None:
    port.host.reset()
    port.host.setup(0x00, 5, 33, 0, 0)
    assert port.host.descriptor(1) == DEVICE
    assert port.host.read(0x80, 6, 0x0100, 0, 0) == b"", "whose status goes the same way as that of the first"
    assert port.part.registers[DADDR] == 0x80


def test_before_the_configuration_and_after_its_end_only_the_control_pipe_answers(port: Port) -> None:
    host = port.host
    host.reset()
    host.set_address(5)
    for _ in range(2):
        for action in (lambda: host.hand(b"x"), host.fetch, lambda: host.part.fetch(5, 2)[0] or host._judge("")):
            with pytest.raises(Deaf):
                action()
        with pytest.raises(Stalled):
            host.dtr(True)
        host.configure(1)
        assert host.hand(b"x") is True and host.part.fetch(5, 2)[0] == "NAK"
        host.configure(0)
        assert host.read(0x80, 8, 0, 0, 1) == b"\x00"


@pytest.mark.parametrize(
    ("kind", "request_", "value", "index", "length"),
    [
        (0x00, 9, 2, 0, 0), (0x00, 5, 128, 0, 0), (0x00, 5, 3, 0, 1), (0x80, 6, 0x0600, 0, 10), (0x80, 6, 0x0201, 0, 9),
        (0x80, 6, 0x0304, 0x409, 255), (0x00, 7, 0x0100, 0, 18), (0x00, 3, 1, 0, 0), (0x02, 3, 0, 0x80, 0),
        (0x02, 3, 0, 0x03, 0), (0x02, 3, 1, 0x81, 0), (0x82, 12, 0, 0x81, 2), (0x01, 11, 1, 0, 0), (0x81, 10, 0, 2, 1),
        (0x82, 0, 0, 0x83, 2), (0x21, 0x23, 100, 0, 0), (0x21, 0x22, 1, 1, 0), (0x21, 0x20, 0, 0, 8),
        (0x21, 0x20, 0, 0, 0), (0xA1, 0x20, 0, 0, 7), (0x80, 9, 1, 0, 0), (0x40, 0, 0, 0, 0), (0xC0, 0xFF, 0, 0, 64),
        (0x05, 5, 1, 0, 0),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_and_the_next_request_is_heard(
    port: Port, kind: int, request_: int, value: int, index: int, length: int
) -> None:
    host = port.host
    host.open_port()
    host.setup(kind, request_, value, index, length)
    with pytest.raises(Stalled):
        host._fetch(1)
    with pytest.raises(Stalled):
        host._hand(1, b"")
    assert host.descriptor(1) == DEVICE
    assert port.put(b"still here") == 10 and host.fetch() == b"still here"


def test_status_says_self_powered_and_which_endpoint_is_halted(port: Port) -> None:
    host = port.host
    host.open_port()
    assert host.read(0x80, 0, 0, 0, 2) == b"\x01\x00"
    assert host.read(0x81, 0, 0, 1, 2) == b"\x00\x00" and host.read(0x81, 10, 0, 1, 1) == b"\x00"
    host.write(0x01, 11, 0, 1)
    for endpoint in (0x01, 0x81, 0x82):
        host.write(0x02, 3, 0, endpoint)
        assert host.read(0x82, 0, 0, endpoint, 2) == b"\x01\x00"
        host.write(0x02, 1, 0, endpoint)
        assert host.read(0x82, 0, 0, endpoint, 2) == b"\x00\x00"
    assert host.read(0x82, 0, 0, 0, 2) == b"\x00\x00"


def test_a_request_for_nothing_of_something_is_answered_with_a_status_only(port: Port) -> None:
    port.host.reset()
    assert port.host.read(0x80, 6, 0x0100, 0, 0) == b""
    assert port.host.descriptor(1) == DEVICE


# ---- abuse of the control pipe ----


@pytest.mark.parametrize("packets", [0, 1, 2])
def test_a_setup_ends_any_transfer_and_so_does_an_early_status(port: Port, packets: int) -> None:
    host = port.host
    host.reset()
    host.setup(0x80, 6, 0x0200, 0, 67)
    for toggle in (1, 0)[:packets]:
        host._fetch(toggle)
    assert host.descriptor(1) == DEVICE, "a SETUP in the middle"
    assert host.read(0x80, 6, 0x0200, 0, 67, packets=max(packets, 1)) == CONFIGURATION[: 64 if packets < 2 else 67]
    assert host.descriptor(1) == DEVICE


@pytest.mark.parametrize("count", [0, 1, 6, 8, 64])
def test_line_coding_of_a_wrong_length_is_refused_and_not_kept(port: Port, count: int) -> None:
    host = port.host
    host.open_port()
    before = host.read(0xA1, 0x21, 0, 0, 7)
    assert before == bytes.fromhex("00 C2 01 00 00 00 08")
    host.setup(0x21, 0x20, 0, 0, 7)
    host._hand(1, bytes([0xEE]) * count)
    with pytest.raises(Stalled):
        host._fetch(1)
    assert host.read(0xA1, 0x21, 0, 0, 7) == before


def test_data_where_the_status_belongs_is_refused(port: Port) -> None:
    host = port.host
    host.reset()
    host.setup(0x80, 6, 0x0100, 0, 18)
    assert host._fetch(1) == DEVICE
    host._hand(1, b"no")
    with pytest.raises(Stalled):
        host._hand(0, b"")
    assert host.descriptor(1) == DEVICE


def test_a_setup_of_a_wrong_length_is_refused(port: Port) -> None:
    port.host.reset()
    assert port.part.setup(0, b"\x80\x06\x00") == "ACK"
    port.part.interrupt()
    assert port.part.fetch(0, 0)[0] == "STALL"
    assert port.host.descriptor(1) == DEVICE


def test_a_status_and_the_next_setup_in_one_interrupt_are_both_served(port: Port) -> None:
    host, part = port.host, port.part
    host.enumerate()
    host.setup(0x21, 0x22, 1, 0, 0)
    assert part.fetch(host.address, 0) == ("ACK", 1, b"")
    assert part.setup(host.address, bytes.fromhex("80 06 00 01 00 00 12 00")) == "ACK"
    part.interrupt()
    assert host._fetch(1) == DEVICE


def test_a_setup_in_the_middle_of_an_answer_is_not_answered_with_the_rest_of_it(port: Port) -> None:
    host, part = port.host, port.part
    host.reset()
    host.setup(0x80, 6, 0x0200, 0, 67)
    assert part.fetch(0, 0)[2] == CONFIGURATION[:64]
    assert part.setup(0, bytes.fromhex("80 06 00 01 00 00 12 00")) == "ACK", "before the interrupt was served"
    part.interrupt()
    assert host._fetch(1) == DEVICE


SETUPS = st.one_of(
    st.binary(min_size=8, max_size=8),
    st.tuples(
        st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x21, 0xA1]),
        st.sampled_from([0, 1, 3, 5, 6, 8, 9, 10, 11, 32, 33, 34]), st.integers(0, 3), st.integers(0, 3),
        st.sampled_from([0, 1, 2, 0x81, 0x82]), st.just(0), st.sampled_from([0, 1, 7, 8, 18, 64, 255]), st.just(0),
    ).map(bytes),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(SETUPS, st.integers(0, 3), st.binary(max_size=64)), max_size=12))
def test_no_request_hangs_the_device_or_makes_an_interrupt_long(requests: list[tuple[bytes, int, bytes]]) -> None:
    port = Port()
    port.host.open_port()
    for setup, steps, data in requests:
        for address in {port.host.address, port.part.registers[DADDR] & 0x7F}:
            port.part.setup(address, setup)
            port.part.interrupt()
            for _ in range(steps):
                port.part.fetch(address, 0)
                port.part.out(address, 0, 1, data)
                port.part.interrupt()
    port.host.open_port()
    assert port.put(b"alive") == 5 and port.host.fetch() == b"alive"
    assert port.host.hand(b"too") and port.received().endswith(b"too")
    port.close()


# ---- bytes ----


def test_bytes_arrive_in_order_whatever_the_packets(port: Port) -> None:
    port.host.open_port()
    sent = b""
    for size in (1, 2, 63, 64, 0, 64, 5):
        data = bytes((len(sent) + k) & 255 for k in range(size))
        assert port.host.hand(data)
        sent += data
    assert port.received() == sent


def test_a_repeated_packet_is_kept_once(port: Port) -> None:
    host = port.host
    host.open_port()
    assert host.hand(b"one")
    host.out_toggle ^= 1  # the acknowledgement was lost
    assert host.hand(b"one") and host.hand(b"two")
    assert port.received() == b"onetwo"


def test_a_packet_waits_outside_until_all_of_it_has_room(port: Port) -> None:
    host = port.host
    host.open_port()
    port.part.lib.fake_room(100)
    assert host.hand(bytes(64)) is True
    assert host.hand(bytes(64)) is False and host.hand(b"x") is False, "36 bytes are not enough for what may come"
    port.turn()
    assert host.hand(b"x") is False
    assert port.received() == bytes(64)
    assert host.hand(b"x") is False, "nobody asked again yet"
    port.turn()
    assert host.hand(b"x") is True and port.received() == b"x"


def test_what_gathered_leaves_in_one_packet_and_a_full_last_one_is_followed_by_an_empty_one(port: Port) -> None:
    host = port.host
    host.open_port()
    assert port.put(b"a") == 1
    assert port.put(bytes(range(100))) == 100, "while the first packet waits"
    assert host.fetch() == b"a"
    assert host.fetch() == bytes(range(64)) and host.fetch() == bytes(range(64, 100)) and host.fetch() is None
    assert port.put(bytes(64)) == 64
    assert host.fetch() == bytes(64) and host.fetch() == b"" and host.fetch() is None


def test_a_packet_whose_acknowledgement_is_lost_is_repeated_and_counts_once(port: Port) -> None:
    host = port.host
    host.open_port()
    port.put(b"first")
    assert host.fetch(heard=False) == b"first"
    port.put(b"second")
    assert host.fetch() is None, "the same packet with the same toggle"
    assert host.fetch() == b"second"


def test_a_host_that_does_not_fetch_fills_the_ring_and_gets_everything_later(port: Port) -> None:
    port.host.open_port()
    data = bytes(k & 255 for k in range(400))
    taken = port.put(data)
    assert taken == 256, "then the main loop goes on with its own work"
    taken += port.put(data[taken:])
    assert taken == 256 + 64 and port.put(b"x") == 0, "a packet waits in the controller, the ring is full"
    got = b""
    while (part := port.host.fetch()) is not None:
        got += part
    assert got == data[:taken]


def test_while_nobody_has_the_port_open_bytes_go_nowhere_and_nothing_old_is_found_later(port: Port) -> None:
    host = port.host
    assert port.put(bytes(1000)) == 1000, "no cable"
    host.enumerate()
    assert port.put(bytes(1000)) == 1000 and host.fetch() is None, "no program"
    host.dtr(True)
    assert port.put(b"of the first") == 12
    assert port.put(b" program") == 8
    host.dtr(False)
    assert port.put(b"nobody") == 6 and host.fetch() is None
    host.dtr(True)
    assert host.fetch() is None
    assert port.put(b"second") == 6 and host.fetch() == b"second"


@pytest.mark.parametrize("event", ["suspend", "unplug", "reset", "configure 0", "configure 1"])
def test_when_the_cable_or_the_host_goes_bytes_stop_and_start_fresh(port: Port, event: str) -> None:
    host = port.host
    host.open_port()
    assert port.put(bytes(300)) == 256
    if event in ("suspend", "unplug"):
        port.part.silence()
        port.part.interrupt()
    elif event == "reset":
        host.reset()
    else:
        host.configure(int(event[-1]))
    assert port.put(bytes(1000)) == 1000, "nobody listens, and nothing waits"
    if event == "suspend":
        port.part.resume()
        port.part.interrupt()
    else:
        host.open_port()
    assert host.fetch() is None
    assert port.put(b"fresh") == 5 and host.fetch() == b"fresh"
    assert host.hand(b"and back") and port.received() == b"and back"


def test_silence_is_reported_once_and_a_reset_ends_it(port: Port) -> None:
    port.host.open_port()
    for _ in range(3):
        port.part.silence()
        port.part.interrupt()
    port.host.open_port()
    assert port.put(b"awake") == 5 and port.host.fetch() == b"awake"


def test_the_most_that_one_interrupt_can_have_to_do_is_bounded(port: Port) -> None:
    host, part = port.host, port.part
    host.open_port()
    port.put(bytes(256))
    assert part.out(host.address, 1, host.out_toggle, bytes(64)) == part.fetch(host.address, 1)[0] == "ACK"
    assert part.setup(host.address, bytes.fromhex("80 06 00 02 00 00 43 00")) == "ACK"
    part.accesses = 0
    part.interrupt()
    assert 100 < part.accesses <= LONGEST_INTERRUPT


def test_a_reset_ends_a_suspension_even_if_no_waking_is_reported(port: Port) -> None:
    port.host.open_port()
    port.part.silence()
    port.part.interrupt()
    port.part.reset()
    port.part.flags &= ~WKUP
    port.part.interrupt()
    assert not port.part.control & FSUSP, "or the next silence would go unseen"
    port.host.open_port()
    assert port.put(b"awake") == 5 and port.host.fetch() == b"awake"


def test_a_halted_endpoint_stalls_and_begins_again_with_data0(port: Port) -> None:
    host = port.host
    host.open_port()
    assert host.hand(b"1") and port.put(b"1") == 1 and host.fetch() == b"1"
    for endpoint in (0x01, 0x81):
        host.write(0x02, 3, 0, endpoint)
    with pytest.raises(Stalled):
        host.hand(b"2")
    port.put(b"2")
    with pytest.raises(Stalled):
        host.fetch()
    for endpoint in (0x01, 0x81):
        host.write(0x02, 1, 0, endpoint)
    host.out_toggle = host.in_toggle = 0
    assert host.hand(b"3") and host.fetch() == b"2"
    assert port.received() == b"13"


def test_a_packet_that_arrived_just_before_a_reset_does_not_disturb_what_follows(port: Port) -> None:
    host = port.host
    host.open_port()
    assert port.part.out(host.address, 1, host.out_toggle, b"late") == "ACK"
    host.reset()
    assert port.received() == b""
    host.open_port()
    assert host.hand(b"new") and port.received() == b"new"


def test_a_packet_is_not_forgotten_when_the_port_is_closed_in_the_same_interrupt(port: Port) -> None:
    host, part = port.host, port.part
    host.open_port()
    assert port.put(b"unfetched") == 9
    assert part.out(host.address, 1, host.out_toggle, b"kept") == "ACK"
    assert part.setup(host.address, bytes.fromhex("21 22 00 00 00 00 00 00")) == "ACK"
    part.interrupt()
    assert host._fetch(1) == b"" and host.fetch() is None
    assert port.received() == b"kept"


def test_an_overrun_of_the_packet_memory_is_counted(port: Port) -> None:
    buffer = ctypes.create_string_buffer(4096)
    before = port.part.lib.fake_received(buffer) >> 16
    port.part.flags |= PMAOVR
    port.part.interrupt()
    assert port.part.lib.fake_received(buffer) >> 16 == before + 1


ACTIONS = st.one_of(
    st.tuples(st.just("hand"), st.binary(max_size=64)), st.tuples(st.just("put"), st.binary(min_size=1, max_size=150)),
    st.tuples(st.sampled_from(["fetch", "dtr"]), st.booleans()), st.tuples(st.just("room"), st.integers(64, 300)),
    st.tuples(st.sampled_from(["read", "silence", "resume", "reset", "turn"]), st.none()),
)  # fmt: skip


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=60))
def test_every_acknowledged_byte_arrives_once_in_order_and_every_byte_for_the_host_too(
    actions: list[tuple[str, object]],
) -> None:
    """What was put while a program listened arrives in order up to the point where it stopped to listen.

    Room never falls below the packet that was already let in: nothing else writes to the ring.
    """
    port = Port()
    host, part = port.host, port.part
    host.open_port()
    acknowledged, arrived, waiting = b"", b"", b""
    dtr, awake = True, True
    for name, value in actions:
        if name == "hand" and awake and isinstance(value, bytes) and host.hand(value):
            acknowledged += value
        elif name == "put" and isinstance(value, bytes):
            taken = port.put(value)
            assert taken == len(value) or (dtr and awake), "without a listener everything is taken"
            waiting += value[:taken] if dtr and awake else b""
        elif name == "fetch" and awake:
            got = host.fetch(heard=bool(value))
            if got is not None:
                assert waiting.startswith(got)
                waiting = waiting[len(got) :]
                # A lost acknowledgement is repeated at once: behind a closed port it would cost the next packet, on
                # every controller that can withdraw one.
                assert value or host.fetch() is None
        elif name == "dtr" and awake:
            waiting = waiting if dtr is value else b""
            dtr = bool(value)
            host.dtr(dtr)
        elif name in ("silence", "resume"):
            (part.silence if name == "silence" else part.resume)()
            part.interrupt()
            waiting = waiting if awake is (name == "resume") else b""
            awake = name == "resume"
        elif name == "reset":
            host.open_port()
            waiting, dtr, awake = b"", True, True
        elif name == "room" and isinstance(value, int):
            arrived += port.received()
            part.lib.fake_room(value)
        elif name == "turn":
            port.turn()
        elif name == "read":
            arrived += port.received()
    assert arrived + port.received() == acknowledged
    port.close()
