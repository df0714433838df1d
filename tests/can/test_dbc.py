"""The generated DBC file: readable by a well-kept tool, and it means what goes over the bus."""

from __future__ import annotations

import struct
from pathlib import Path

import cantools
import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.can_segments import class_of, frame_id, segment
from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.messages import CAN_ID_ESTOP
from firmware_bridge.protocol.can_ids import can_class, can_id
from firmware_bridge.protocol.definition import MESSAGES
from firmware_bridge.protocol.emit_dbc import emit_dbc

ROOT = Path(__file__).resolve().parents[2]
ON_CAN = [message for message in MESSAGES if message.direction in ("host", "mcu")]


@pytest.fixture(scope="module")
def database() -> cantools.database.Database:
    return cantools.database.load_file(ROOT / "docs" / "edge-wam.dbc")


def _frames(kind: int, payload: bytes, *, to_host: bool) -> list[tuple[int, bytes]]:
    body = struct.pack("<BBHH", kind, 3, 513, 0xABCD) + payload
    transfer = body + struct.pack("<I", crc32c(body))
    return [(f.id, f.data) for f in segment(transfer, frame_id(kind, 1, to_host=to_host), 21, fd=True)]


def test_the_committed_file_is_the_generated_one(database: cantools.database.Database) -> None:
    assert (ROOT / "docs" / "edge-wam.dbc").read_text(encoding="utf-8") == emit_dbc()
    assert database.version == f"{m.SCHEMA_HASH:08x}"


def test_every_message_of_the_host_link_has_its_identifier(database: cantools.database.Database) -> None:
    for message in ON_CAN:
        known = database.get_message_by_name(message.name)
        assert known.frame_id == frame_id(message.type, 1, to_host=message.direction == "mcu") == can_id(message, 1)
        assert can_class(message) == class_of(message.type)
        assert known.is_fd == (known.frame_id != CAN_ID_ESTOP)
    assert len(database.messages) == len(ON_CAN)


def test_a_frame_on_the_bus_decodes_to_what_was_sent(database: cantools.database.Database) -> None:
    ack = m.Ack(m.Chunk.TYPE, m.AckCode.LATE, 77, -5, 123_456_789_012, -2_000_000, 63)
    ((identifier, data),) = _frames(m.Ack.TYPE, ack.pack(), to_host=True)
    seen = database.decode_message(identifier, data)
    assert seen["code"] == "LATE" and seen["of_seq"] == 77 and seen["arg"] == -5 and seen["lead_us"] == -2_000_000
    assert (seen["msg_type"], seen["epoch"], seen["seq"], seen["session"]) == (m.Ack.TYPE, 3, 513, 0xABCD)
    assert seen["crc32c"] == crc32c(struct.pack("<BBHH", m.Ack.TYPE, 3, 513, 0xABCD) + ack.pack())
    assert (seen["tail_start"], seen["tail_end"], seen["tail_toggle"], seen["tail_transfer"]) == (1, 1, 1, 21)
    assert len(data) == database.get_message_by_name("Ack").length


def test_the_first_frame_of_a_long_transfer_decodes_and_the_others_are_bytes(
    database: cantools.database.Database,
) -> None:
    payload = struct.pack("<IIHBBBBBB", 42, 4_000_000_000, 5000, 16, 7, 1, 0, 20, 0) + bytes(range(224))
    frames = _frames(m.Chunk.TYPE, payload, to_host=False)
    assert len(frames) == 4
    first = database.decode_message(*frames[0])
    assert (first["chunk_id"], first["t0_us"], first["n"], first["axes"]) == (42, 4_000_000_000, 16, 7)
    assert first["encoding"] == "I16_LSB" and first["tail_start"] == 1
    second = database.decode_message(*frames[1])
    assert second["tail_start"] == 0 and second["bytes_0"] == int.from_bytes(frames[1][1][:8], "little")
    assert "chunk_id" not in second


def test_every_single_frame_message_is_as_long_as_its_frame(database: cantools.database.Database) -> None:
    checked = 0
    for message in database.messages:
        names = {signal.name for signal in message.signals}
        if "crc32c" in names:
            payload = next(s.start // 8 for s in message.signals if s.name == "crc32c") - m.HEADER_BYTES
            kind = next(one.type for one in ON_CAN if one.name == message.name)
            ((_, data),) = _frames(kind, bytes(payload), to_host=kind >= 0x80)
            assert len(data) == message.length
            checked += 1
    assert checked >= 18
