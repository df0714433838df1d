"""The STM32G474 port's drivers against RM0440: divisors, reload values, bit timing, order of writes, emergency stop.

No board is here. What these tests cannot show is listed in docs/firmware-bench.md.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from tests.firmware.stm32 import PORT, Part, Timing, build_drivers, header_number

CLOCK = 170_000_000
LIBRARY: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def _library(tmp_path_factory: pytest.TempPathFactory) -> None:
    LIBRARY[:] = [build_drivers(tmp_path_factory.mktemp("stm32"))]


@pytest.fixture
def part() -> Part:
    return Part(LIBRARY[0])


# ---- the register header ----

CMSIS = Path(__file__).with_name("cmsis_stm32g474.tsv")
# ARMv7-M has the first, the second are the layout of the packet memory's table, which the headers hold as expressions.
ELSEWHERE = {"MPU_CTRL", "MPU_RNR", "MPU_RBAR", "MPU_RASR", "SCB_VTOR", "NVIC_ISPR", "USB_PMA_BYTES"} | {
    "USB_TABLE_TX_ADDRESS", "USB_TABLE_TX_COUNT", "USB_TABLE_RX_ADDRESS", "USB_TABLE_RX_COUNT", "USB_TABLE_COUNT",
}  # fmt: skip


def test_every_register_and_constant_is_what_the_maker_says(tmp_path: Path) -> None:
    rows = [line.split("\t") for line in CMSIS.read_text().splitlines() if not line.startswith("#")]
    checks = "".join(f'_Static_assert(({ours}) == {value}, "{ours}: {theirs}");\n' for ours, theirs, value in rows)
    (tmp_path / "check.c").write_text(f'#include "stm32g474.h"\n{checks}')
    command = ["cc", "-std=c11", "-fsyntax-only", f"-I{PORT}", str(tmp_path / "check.c")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    known = {ours.partition("(")[0] for ours, _, _ in rows}
    header = (PORT / "stm32g474.h").read_text()
    used = set(re.findall(r"^#define (\w+)[( ]", header, re.M)) | set(re.findall(r"\bIRQ_\w+(?= = )", header))
    assert used - known == ELSEWHERE, "a new one gets its line in the table"


# ---- clock ----

RCC_CR, RCC_CFGR, RCC_PLLCFGR = (header_number(n) for n in ("RCC_CR", "RCC_CFGR", "RCC_PLLCFGR"))
FLASH_ACR, PWR_CR5, RCC_CSR = (header_number(n) for n in ("FLASH_ACR", "PWR_CR5", "RCC_CSR"))


def _oscillators(part: Part, crystal: bool) -> None:
    """RCC as the part answers: ready bits follow the enables."""

    def control(value: int) -> int:
        ready = ((value >> 8) & 1) << 10 | ((value >> 24) & 1) << 25
        return value | ready | (((value >> 16) & 1) << 17 if crystal else 0)

    part.answers[RCC_CR] = control
    part.answers[RCC_CFGR] = lambda value: (value & ~0xC) | (value & 3) << 2
    part.registers[PWR_CR5] = 1 << 8


def _pll_hz(part: Part) -> float:
    value = part.registers[RCC_PLLCFGR]
    source = {2: 16e6, 3: 24e6}[value & 3]
    m_, n, r = ((value >> 4) & 15) + 1, (value >> 8) & 127, 2 * (((value >> 25) & 3) + 1)
    assert value & (1 << 24), "the R output is on"
    assert 2.66e6 <= source / m_ <= 16e6 and 96e6 <= source / m_ * n <= 344e6
    return source / m_ * n / r


@pytest.mark.parametrize("crystal", [True, False])
def test_the_processor_runs_at_170_mhz_from_either_oscillator(part: Part, crystal: bool) -> None:
    _oscillators(part, crystal)
    assert part.lib.clock_start() is crystal
    assert _pll_hz(part) == CLOCK
    assert part.registers[RCC_CFGR] & 3 == 3 and (part.registers[RCC_CFGR] >> 4) & 15 == 0
    assert part.registers[PWR_CR5] & (1 << 8) == 0, "boost"
    assert bool(part.registers[RCC_CR] & (1 << 19)) is crystal, "the loss of the crystal is watched"


def test_boost_and_wait_states_come_before_the_switch_and_the_full_bus_clock_after_it(part: Part) -> None:
    _oscillators(part, True)
    part.lib.clock_start()
    writes = part.puts()
    switch = next(i for i, (a, v) in enumerate(writes) if a == RCC_CFGR and v & 3 == 3)
    waits = next(i for i, (a, v) in enumerate(writes) if a == FLASH_ACR and v & 15 == 4)
    boost = next(i for i, (a, v) in enumerate(writes) if a == PWR_CR5 and not v & (1 << 8))
    assert boost < waits < switch
    assert (writes[switch][1] >> 4) & 15 == 8, "half the bus clock while it switches"
    assert any(a == RCC_CFGR and (v >> 4) & 15 == 0 for a, v in writes[switch + 1 :])


def test_a_pll_that_does_not_lock_leaves_the_part_on_its_internal_oscillator(part: Part) -> None:
    part.answers[RCC_CR] = lambda value: value & ~(1 << 25)
    part.lib.clock_start()
    assert all(v & 3 != 3 for a, v in part.puts(RCC_CFGR))


def test_the_counter_counts_microseconds(part: Part) -> None:
    part.lib.clock_start_counter()
    assert CLOCK / (part.registers[header_number("TIM2_PSC")] + 1) == 1e6
    order = [a for a, _ in part.puts()]
    assert order.index(header_number("TIM2_EGR")) < order.index(header_number("TIM2_CR1"))


def test_a_random_generator_that_fails_its_own_tests_is_not_used(part: Part) -> None:
    part.answers[header_number("RCC_CRRCR")] = lambda value: value | 2
    part.registers[header_number("RNG_DR")] = 0x1234
    status = header_number("RNG_SR")
    part.registers[status] = 1
    assert part.lib.clock_random() == 0x1234
    part.registers[status] = 1 | 4  # seed error
    assert part.lib.clock_random() == 0


# ---- watchdogs ----

IWDG_KR, IWDG_PR, IWDG_RLR = (header_number(n) for n in ("IWDG_KR", "IWDG_PR", "IWDG_RLR"))
WWDG_CR, WWDG_CFR = header_number("WWDG_CR"), header_number("WWDG_CFR")


def test_both_watchdogs_are_started_in_the_order_of_the_manual_and_fed_together(part: Part) -> None:
    assert part.lib.watchdogs_start(20) is True
    assert part.puts(IWDG_KR, IWDG_PR, IWDG_RLR) == [
        (IWDG_KR, 0xCCCC), (IWDG_KR, 0x5555), (IWDG_PR, 0), (IWDG_RLR, 159), (IWDG_KR, 0xAAAA),
    ]  # fmt: skip
    window = part.puts(WWDG_CFR, WWDG_CR)
    assert [a for a, _ in window] == [WWDG_CFR, WWDG_CR], "prescaler before start: else the first life is 1.3 ms"
    assert window[0][1] & (1 << 9) and window[0][1] & 0x7F == 0x7F and window[1][1] & 0x80
    steps = (window[1][1] & 0x7F) - 0x40
    first_stage_s = steps * 4096 * 2 ** ((window[0][1] >> 11) & 7) / CLOCK
    assert 0.0097 < first_stage_s <= 0.010
    iwdg_s = 160 * 4 / 32_000
    assert iwdg_s == 0.020
    # The oscillator of the second stage has 29.5 to 34 kHz (DS12288): it never comes before the first.
    assert first_stage_s < 160 * 4 / 34_000 and 160 * 4 / 29_500 < 0.0218
    part.log.clear()
    left_us = part.lib.watchdogs_feed()
    assert part.puts() == [(WWDG_CR, window[1][1]), (IWDG_KR, 0xAAAA)]
    assert abs(left_us - first_stage_s * 1e6) < 1


def test_a_second_stage_that_does_not_take_its_settings_is_reported(part: Part) -> None:
    part.registers[header_number("IWDG_SR")] = 3
    assert part.lib.watchdogs_start(20) is False


@given(st.integers(1, 512))
def test_the_reload_value_makes_the_time_within_a_step(ms: int) -> None:
    reload = Part(LIBRARY[0]).lib.watchdogs_iwdg_reload(ms)
    assert reload <= 4095 and 0 <= ms - (reload + 1) * 0.125 < 0.125


@given(st.integers(25, 190_000))
def test_the_first_stage_is_never_later_than_asked_and_at_most_a_step_earlier(us: int) -> None:
    counter, exponent = ctypes.c_uint32(), ctypes.c_uint32()
    part = Part(LIBRARY[0])
    assert part.lib.watchdogs_wwdg_counter(CLOCK, us, ctypes.byref(counter), ctypes.byref(exponent))
    step_us = 4096 * 2**exponent.value / CLOCK * 1e6
    assert 0x40 < counter.value <= 0x7F and exponent.value < 8
    assert 0 <= us - (counter.value - 0x40) * step_us < step_us


@pytest.mark.parametrize("us", [0, 24, 200_000])
def test_a_first_stage_outside_the_counter_is_refused(part: Part, us: int) -> None:
    counter, exponent = ctypes.c_uint32(), ctypes.c_uint32()
    assert not part.lib.watchdogs_wwdg_counter(CLOCK, us, ctypes.byref(counter), ctypes.byref(exponent))


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (1 << 29, m.ResetCause.WATCHDOG), (1 << 30 | 1 << 26, m.ResetCause.WATCHDOG),
        (1 << 27 | 1 << 26, m.ResetCause.POWER_ON), (1 << 28 | 1 << 26, m.ResetCause.SOFTWARE),
        (1 << 26, m.ResetCause.UNKNOWN), (0, m.ResetCause.UNKNOWN),
    ],
)  # fmt: skip
def test_the_flags_name_the_reset_and_are_cleared(part: Part, flags: int, cause: m.ResetCause) -> None:
    part.registers[RCC_CSR] = flags
    assert part.lib.watchdogs_reset_cause() == cause
    assert part.puts(RCC_CSR) == [(RCC_CSR, flags | 1 << 23)]


# ---- UART ----

USART2, USART3 = header_number("USART2"), header_number("USART3")
CR1, CR2, CR3, BRR, ISR, ICR, RDR, TDR = 0x00, 0x04, 0x08, 0x0C, 0x1C, 0x20, 0x24, 0x28


@pytest.mark.parametrize("baud", [9600, 115_200, 921_600, 1_000_000, 2_000_000, 3_000_000, 10_000_000, 21_250_000])
def test_the_divisor_makes_the_rate_within_one_per_cent(part: Part, baud: int) -> None:
    brr, over8 = ctypes.c_uint32(), ctypes.c_bool()
    assert part.lib.uart_divider(CLOCK, baud, ctypes.byref(brr), ctypes.byref(over8))
    value = brr.value
    divider = (value & 0xFFF0) | (value & 7) << 1 if over8.value else value
    real = (2 * CLOCK if over8.value else CLOCK) / divider
    assert abs(real / baud - 1) <= 0.0101
    assert 16 <= divider <= 0xFFFF and not (over8.value and value & 8), "bit 3 must stay clear (RM0440 37.5.8)"


@pytest.mark.parametrize("baud", [0, 2_000, 21_250_001, 20_000_000, 4_000_000_000])
def test_a_rate_that_cannot_be_made_is_refused(part: Part, baud: int) -> None:
    assert not part.lib.uart_divider(CLOCK, baud, ctypes.byref(ctypes.c_uint32()), ctypes.byref(ctypes.c_bool()))
    assert part.lib.uart_start(0, baud, False) is False and part.puts() == []


def test_a_full_fifo_asks_for_an_interrupt_and_the_interrupt_takes_the_wish_back(part: Part) -> None:
    assert part.lib.uart_start(0, 1_000_000, False)
    assert part.registers[USART2 + BRR] == 170
    part.registers[USART2 + ISR] = 1 << 7
    assert part.lib.uart_send(0, 0xA5) is True and part.registers[USART2 + TDR] == 0xA5
    part.registers[USART2 + ISR] = 0
    assert part.lib.uart_send(0, 0x5A) is False
    assert part.registers[USART2 + CR3] & 1 << 23 and part.registers[USART2 + TDR] == 0xA5
    part.lib.uart_interrupt(0)
    assert not part.registers[USART2 + CR3] & 1 << 23


def test_received_bytes_go_to_the_ring_and_an_overrun_is_counted_and_cleared(part: Part) -> None:
    fifo = [1, 0, 255]
    part.answers[USART2 + ISR] = lambda value: (1 << 5 if fifo else 0) | 8
    part.answers[USART2 + RDR] = lambda value: fifo.pop(0)
    part.lib.uart_interrupt(0)
    buffer = ctypes.create_string_buffer(64)
    result = part.lib.fake_received(buffer)
    assert buffer.raw[: result & 0xFFFF] == bytes([1, 0, 255]) and result >> 16 == 1
    assert (USART2 + ICR, 0xF) in part.puts()


def test_a_stream_of_frames_wakes_for_every_fourth_byte_and_for_each_delimiter_at_once(part: Part) -> None:
    assert part.lib.uart_start(0, 3_000_000, False)
    assert part.registers[USART2 + CR1] & (1 << 14 | 1 << 5) == 1 << 14, "character match, no interrupt for each byte"
    assert part.registers[USART2 + CR2] >> 24 == 0, "the delimiter of COBS"
    assert (part.registers[USART2 + CR3] >> 25) & 15 == 2 | 8, "half of the FIFO, and its interrupt"
    assert part.registers[USART2 + CR3] & 1, "errors too: nothing else reports an overrun now"
    order = [a - USART2 for a, _ in part.puts(USART2 + CR2, USART2 + CR3, USART2 + CR1)]
    assert order.index(CR2) < len(order) - 1 and order[-1] == CR1, "the character may only be set before the start"


def test_a_bus_of_servos_has_no_delimiter_and_wakes_for_every_byte(part: Part) -> None:
    assert part.lib.uart_start(2, 1_000_000, True)
    assert part.registers[USART3 + CR1] & (1 << 14 | 1 << 5) == 1 << 5
    assert not part.registers[USART3 + CR3] & 1 << 28


def test_a_delimiter_that_comes_while_the_fifo_is_read_raises_the_interrupt_again(part: Part) -> None:
    fifo = [7]
    part.answers[USART2 + ISR] = lambda value: 1 << 5 if fifo else 0
    part.answers[USART2 + RDR] = lambda value: fifo.pop(0)
    part.lib.uart_interrupt(0)
    clear = part.log.index(("put", USART2 + ICR, 1 << 17))
    assert clear < next(i for i, (op, a, _) in enumerate(part.log) if (op, a) == ("get", USART2 + RDR))


def test_an_interrupt_ends_even_if_bytes_never_do(part: Part) -> None:
    part.registers[USART2 + ISR] = 1 << 5
    part.lib.uart_interrupt(0)
    assert sum((op, a) == ("get", USART2 + RDR) for op, a, _ in part.log) == 16


def test_a_packet_on_the_servo_wire_goes_out_deaf_and_listens_after_its_last_bit(part: Part) -> None:
    assert part.lib.uart_start(2, 1_000_000, True)
    assert part.registers[USART3 + CR3] & 1 << 3, "one wire"
    room = [8]
    sent: list[int] = []

    def write(value: int) -> None:
        sent.append(value)
        room[0] -= 1

    part.hooks[USART3 + TDR] = write
    part.answers[USART3 + ISR] = lambda value: (1 << 7 if room[0] else 0) | (1 << 6 if room[0] == 8 else 0)
    data = bytes(range(20))
    assert part.lib.uart_packet(2, data, 20) and not part.lib.uart_packet_done()
    assert not part.registers[USART3 + CR1] & 1 << 2, "the receiver is off: it would hear itself"
    assert not part.lib.uart_packet(2, data, 1), "one at a time"
    for _ in range(3):
        part.lib.uart_interrupt(2)
        room[0] = 7
    assert bytes(sent) == data
    part.lib.uart_interrupt(2)
    assert not part.lib.uart_packet_done() and not part.registers[USART3 + CR1] & 1 << 2, "its last bits are under way"
    room[0] = 8
    part.lib.uart_interrupt(2)
    assert part.lib.uart_packet_done() and part.registers[USART3 + CR1] & 1 << 2
    assert not part.lib.uart_packet(2, bytes(65), 65) and not part.lib.uart_packet(2, b"", 0)


# ---- pins ----

GPIOC = header_number("GPIOC")
BSRR, MODER, IDR = 0x18, 0x00, 0x10


def test_outputs_are_low_before_they_are_outputs(part: Part) -> None:
    part.lib.pins_start()
    writes = part.puts()
    for pin in (10, 11, 12):
        low = writes.index((GPIOC + BSRR, 1 << (pin + 16)))
        output = next(i for i, (a, v) in enumerate(writes) if a == GPIOC + MODER and (v >> 2 * pin) & 3 == 1)
        assert low < output
    assert (part.registers[GPIOC + 0x0C] >> 16) & 3 == 2 and (part.registers[GPIOC + 0x0C] >> 18) & 3 == 1


@pytest.mark.parametrize("tick", [0, 1, 2, 3])
@pytest.mark.parametrize("brakes_open", [False, True])
def test_without_the_enable_there_is_no_pulse_and_no_open_brake(part: Part, tick: int, brakes_open: bool) -> None:
    part.lib.pins_outputs(True, brakes_open, tick)
    part.lib.pins_outputs(False, brakes_open, tick)
    on, off = (value for _, value in part.puts(GPIOC + BSRR))
    assert on == 1 << 10 | (1 << 11 if tick % 2 else 1 << 27) | (1 << 12 if brakes_open else 1 << 28)
    assert off == 1 << 26 | 1 << 27 | 1 << 28


CLOSED = 1 << 8  # channel A high, channel B low


@pytest.mark.parametrize("levels", [0, 1 << 9, CLOSED | 1 << 9], ids=["A broken", "both", "B broken or shorted to A"])
def test_the_emergency_stop_acts_at_the_first_look_and_releases_after_50(part: Part, levels: int) -> None:
    part.registers[GPIOC + IDR] = CLOSED
    for _ in range(60):
        part.lib.pins_estop()
    assert part.lib.pins_estop() is False
    part.registers[GPIOC + IDR] = levels
    assert part.lib.pins_estop() is True
    part.registers[GPIOC + IDR] = CLOSED
    assert [part.lib.pins_estop() for _ in range(50)] == [True] * 49 + [False]


@given(st.lists(st.booleans(), max_size=200))
def test_a_bouncing_button_is_released_only_after_50_quiet_looks(looks: list[bool]) -> None:
    lib = Part(LIBRARY[0]).lib
    state = ctypes.c_uint32(50)
    quiet = 50
    for closed in looks:
        quiet = min(quiet + 1, 50) if closed else 0
        assert lib.estop_step(ctypes.byref(state), closed, not closed) is (quiet < 50)


def test_every_state_has_its_own_light_except_the_two_that_mean_do_not_touch(part: Part) -> None:
    patterns = {
        state: tuple(part.lib.light_on(int(state), 125 * k) for k in range(8))
        for state in m.McuState
        if state > m.McuState.SELFTEST
    }
    assert patterns[m.McuState.ESTOP] == patterns[m.McuState.FAULT]
    assert len(set(patterns.values())) == len(patterns) - 1
    assert not part.lib.light_on(200, 0)


# ---- FDCAN ----

CAN1, RAM1 = 0x4000_6400, 0x4000_A400
NOMINAL, DATA = "fdcan_nominal_range", "fdcan_data_range"


@pytest.mark.parametrize(
    ("rate", "sample", "table", "limits"),
    [
        (1_000_000, 800, NOMINAL, (512, 256, 128, 128)), (500_000, 800, NOMINAL, (512, 256, 128, 128)),
        (125_000, 875, NOMINAL, (512, 256, 128, 128)), (5_000_000, 735, DATA, (32, 32, 16, 16)),
        (2_000_000, 750, DATA, (32, 32, 16, 16)), (1_000_000, 700, DATA, (32, 32, 16, 16)),
    ],
)  # fmt: skip
def test_bit_timing_is_exact_and_fits_the_registers(
    part: Part, rate: int, sample: int, table: str, limits: tuple[int, int, int, int]
) -> None:
    t = Timing()
    spans = ctypes.byref(ctypes.c_uint32.in_dll(part.lib, table))
    assert part.lib.fdcan_timing(CLOCK, rate, sample, spans, ctypes.byref(t))
    quanta = 1 + t.segment1 + t.segment2
    assert rate * t.prescaler * quanta == CLOCK
    assert 1 <= t.prescaler <= limits[0] and 1 <= t.segment1 <= limits[1] and 1 <= t.segment2 <= limits[2]
    assert 1 <= t.jump <= min(limits[3], t.segment2)
    assert abs((1 + t.segment1) / quanta - sample / 1000) <= 0.5 / quanta + 1e-9
    if table == NOMINAL:
        value = part.lib.fdcan_nbtp(ctypes.byref(t))
        fields = (value >> 16) & 511, (value >> 8) & 255, value & 127, value >> 25
    else:
        value = part.lib.fdcan_dbtp(ctypes.byref(t))
        fields = (value >> 16) & 31, (value >> 8) & 31, (value >> 4) & 15, value & 15
        assert bool(value & 1 << 23) == (t.prescaler <= 2), "delay compensation only with prescaler 1 or 2"
    assert fields == (t.prescaler - 1, t.segment1 - 1, t.segment2 - 1, t.jump - 1)


@pytest.mark.parametrize("rate", [0, 3_000_000, 8_000_000, 999_999, 10])
def test_a_rate_that_the_clock_does_not_divide_into_is_refused(part: Part, rate: int) -> None:
    table = ctypes.byref(ctypes.c_uint32.in_dll(part.lib, DATA))
    assert not part.lib.fdcan_timing(CLOCK, rate, 750, table, ctypes.byref(Timing()))


def test_without_the_crystal_no_bus_starts(part: Part) -> None:
    part.lib.fdcan_allow(0)
    assert part.lib.fake_can_start(0, 1_000_000, 5_000_000, 0x010, 0x0F0) is False
    assert part.puts() == []


def test_a_bus_whose_pins_have_another_use_does_not_start(part: Part) -> None:
    part.lib.fdcan_allow(2)
    assert part.lib.fake_can_start(0, 1_000_000, 5_000_000, 0, 0) is False and part.puts() == []
    assert part.lib.fake_can_start(1, 1_000_000, 0, 0, 0) is True


def test_the_bus_is_set_up_in_initialisation_and_left_at_the_end(part: Part) -> None:
    part.lib.fdcan_allow(3)
    assert part.lib.fake_can_start(0, 1_000_000, 5_000_000, 0x010, 0x0F0) is True
    control = [v for a, v in part.puts(CAN1 + 0x18)]
    assert control[0] & 1 and control[1] & 2, "INIT, then CCE"
    assert not control[-1] & 1 and control[-1] & (1 << 8) and control[-1] & (1 << 9)
    timing = part.registers[CAN1 + 0x1C]
    assert (1 + ((timing >> 8) & 255) + 1 + (timing & 127) + 1) * (((timing >> 16) & 511) + 1) == 170
    assert part.registers[RAM1] == (2 << 30) | (1 << 27) | (0x010 << 16) | 0x0F0
    assert part.registers[CAN1 + 0x80] == (2 << 16) | (3 << 4) | (3 << 2) | 1, "two filters; all else is rejected"


@pytest.mark.parametrize(("count", "code"), [(0, 0), (8, 8), (12, 9), (20, 11), (64, 15)])
def test_a_frame_is_written_and_read_in_the_layout_of_the_message_ram(part: Part, count: int, code: int) -> None:
    part.lib.fdcan_allow(3)
    part.lib.fake_can_start(0, 1_000_000, 5_000_000, 0, 0)
    data = bytes((7 * k + 1) & 255 for k in range(count))
    part.registers[CAN1 + 0xC4] = 2 << 16  # put index 2
    flags = 1 if count > 8 else 0
    assert part.lib.fake_can_send(0, 0x123, flags, data, count)
    element = RAM1 + 0x278 + 2 * 0x48
    assert part.registers[element] == 0x123 << 18
    assert part.registers[element + 4] == (code << 16) | (0x30_0000 if flags else 0)
    assert part.registers[CAN1 + 0xCC] == 4
    # The same words in receive element 1 come out as the same frame.
    waiting = [1]
    part.answers[CAN1 + 0x90] = lambda value: waiting[0] | 1 << 8
    part.hooks[CAN1 + 0x94] = lambda value: waiting.__setitem__(0, 0)
    for word in range(0, 8 + 64, 4):
        part.registers[RAM1 + 0xB0 + 0x48 + word] = part.registers.get(element + word, 0)
    part.lib.Fdcan1_Handler()
    buffer, identifier, kind = ctypes.create_string_buffer(64), ctypes.c_uint32(), ctypes.c_uint32()
    assert part.lib.fake_can_frame(0, buffer, ctypes.byref(identifier), ctypes.byref(kind)) == count
    assert (buffer.raw[:count], identifier.value, kind.value) == (data, 0x123, flags)
    assert part.registers[CAN1 + 0x94] == 1, "the element was given back"


def test_no_frame_is_sent_into_a_full_queue_or_off_the_bus_and_the_way_back_is_opened(part: Part) -> None:
    part.lib.fdcan_allow(3)
    part.lib.fake_can_start(0, 1_000_000, 0, 0, 0)
    part.registers[CAN1 + 0xC4] = 1 << 21
    assert part.lib.fake_can_send(0, 1, 0, b"", 0) is False
    part.registers[CAN1 + 0xC4] = 0
    assert part.lib.fake_can_send(0, 1, 1, bytes(64), 64) is False, "the bus was started without FD"
    part.registers[CAN1 + 0x44] = 1 << 7
    assert part.lib.fake_can_send(0, 1, 0, b"", 0) is False
    part.registers[CAN1 + 0x18] |= 1
    part.registers[CAN1 + 0x50] = 1 << 19
    part.lib.Fdcan1_Handler()
    assert not part.registers[CAN1 + 0x18] & 1, "INIT is cleared: 128 idle sequences, then it takes part again"


# ---- flash, as the bootloader writes its version floor ----

FLASH_KEYR, FLASH_SR, FLASH_CR, FLASH_ECCR = (
    header_number(n) for n in ("FLASH_KEYR", "FLASH_SR", "FLASH_CR", "FLASH_ECCR")
)
LOCK = 1 << 31


def _locked_flash(part: Part) -> None:
    """Locked until both keys came in order."""
    part.registers[FLASH_CR] = LOCK
    seen: list[int] = []

    def key(value: int) -> None:
        seen.append(value)
        if seen[-2:] == [0x4567_0123, 0xCDEF_89AB]:
            part.registers[FLASH_CR] &= ~LOCK

    part.hooks[FLASH_KEYR] = key
    part.hooks[FLASH_SR] = lambda value: part.registers.__setitem__(FLASH_SR, 0)  # written ones clear


def test_a_record_is_written_as_one_double_word_between_unlock_and_lock(part: Part) -> None:
    _locked_flash(part)
    assert part.lib.flash_write(0x0800_7008, 0x10400, 0xFFFE_FBFF)
    writes = part.puts()
    words = [i for i, (a, _) in enumerate(writes) if a in (0x0800_7008, 0x0800_700C)]
    assert [writes[i] for i in words] == [(0x0800_7008, 0x10400), (0x0800_700C, 0xFFFE_FBFF)]
    assert writes[words[0] - 1] == (FLASH_CR, 1) and (FLASH_CR, LOCK) in writes[words[1] :]
    cache = [v for a, v in writes[words[1] :] if a == FLASH_ACR]
    assert any(v & 1 << 12 for v in cache) and cache[-1] & 1 << 10, "the data cache is emptied and on again"


def test_a_page_of_bank_1_is_erased_and_an_error_is_reported(part: Part) -> None:
    _locked_flash(part)
    assert part.lib.flash_erase(15) is True
    assert (FLASH_CR, 2 | 15 << 3) in part.puts() and (FLASH_CR, 2 | 15 << 3 | 1 << 16) in part.puts()
    part.answers[FLASH_SR] = lambda value: 1 << 4  # write protected
    assert part.lib.flash_erase(14) is False
    assert part.registers[FLASH_CR] == LOCK


def test_flash_that_does_not_unlock_is_not_written(part: Part) -> None:
    part.answers[FLASH_CR] = lambda value: LOCK
    assert part.lib.flash_write(0x0800_7000, 1, 2) is False and part.lib.flash_erase(14) is False
    assert all(a != 0x0800_7000 for a, _ in part.puts())


def test_a_checksum_error_of_flash_is_forgiven_once_and_nothing_else_is(part: Part) -> None:
    assert part.lib.flash_forgive() is False and part.puts() == []
    part.registers[FLASH_ECCR] = LOCK
    assert part.lib.flash_forgive() is True and part.puts(FLASH_ECCR) == [(FLASH_ECCR, LOCK)]
