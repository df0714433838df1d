"""What is generated is what is defined, and both ends agree."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest

from firmware_bridge.errors import LinkError
from firmware_bridge.host import messages
from firmware_bridge.protocol import definition, generate
from tests.firmware.mcu import load


def test_generated_files_are_those_of_the_definition() -> None:
    assert generate.stale() == []


def test_a_forgotten_generation_is_noticed_and_written_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in generate.outputs():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate.stale, "__defaults__", (tmp_path,))
    assert generate.main(["--check"]) == 1
    assert "ew_protocol.h is stale" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert generate.main(["--what"]) == 2


def test_the_c_core_and_the_host_have_the_same_schema_hash() -> None:
    assert load().ewl_schema_hash() == messages.SCHEMA_HASH == definition.schema_hash()


def test_the_schema_hash_follows_the_wire_and_ignores_prose(monkeypatch: pytest.MonkeyPatch) -> None:
    before = definition.schema_hash()
    first, *rest = definition.MESSAGES
    monkeypatch.setattr(definition, "MESSAGES", (dataclasses.replace(first, doc="other words"), *rest))
    assert definition.schema_hash() == before
    other = dataclasses.replace(first, fields=(*first.fields, definition.Field("more", "u8", "")))
    monkeypatch.setattr(definition, "MESSAGES", (other, *rest))
    assert definition.schema_hash() != before


def test_numbers_and_names_are_unique() -> None:
    types = [message.type for message in definition.MESSAGES]
    assert len(set(types)) == len(types)
    for enumeration in definition.ENUMERATIONS:
        numbers = [value.number for value in enumeration.values]
        assert len(set(numbers)) == len(numbers) and numbers == sorted(numbers)


def test_every_fault_and_stop_tells_its_cause_and_what_to_do() -> None:
    for name in ("Fault", "StopCause"):
        (enumeration,) = [e for e in definition.ENUMERATIONS if e.name == name]
        for value in enumeration.values:
            assert value.cause
            assert value.remedy or value.name in ("NONE", "DISARM", "HOLD")
    assert all(value.number < 1000 for value in enumeration.values)


@pytest.mark.parametrize("message", definition.MESSAGES, ids=lambda message: str(message.name))
def test_messages_survive_packing_and_refuse_another_length(message: definition.Message) -> None:
    kind = getattr(messages, message.name)
    values: list[object] = []
    for index, field in enumerate(message.fields):
        if field.type == "name":
            values.append(b"shoulder".ljust(messages.NAME_BYTES, b"\0"))
        elif not field.count:
            values.append(3 if field.name == "axes" else index + 1)
        elif field.type == "u8":
            values.append(b"\x00\x01\x02")
        else:
            length = int(field.count) if field.count.isdigit() else 3
            sign = -1 if field.type == "i32" else 1
            values.append(tuple(sign * k for k in range(length)))
    packed = kind(*values).pack()
    assert kind.unpack(packed) == kind(*values)
    scalars = sum(definition.SIZES[f.type] for f in message.fields if not f.count)
    assert len(packed) >= scalars
    if not (message.fields and message.fields[-1].count == "rest" and message.fields[-1].type == "u8"):
        with pytest.raises(LinkError, match="payload"):
            kind.unpack(packed + b"\0")
    if scalars:
        with pytest.raises(LinkError, match="payload"):
            kind.unpack(packed[: scalars - 1])


def test_the_longest_message_fits_in_a_frame() -> None:
    overhead = messages.HEADER_BYTES + messages.CRC_BYTES
    state = struct.calcsize("<QIBBHBBBIiHHHB") + 3 * 4 * messages.MAX_AXES
    assert overhead + state <= messages.MAX_BODY_BYTES
    assert overhead + messages.CHUNK_HEADER_BYTES + 16 * 7 * 4 <= messages.MAX_BODY_BYTES
