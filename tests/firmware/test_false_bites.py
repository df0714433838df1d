"""The shipped watchdog does not bite a firmware that does nothing wrong. Here 1200 ticks; 10^6 are a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_bridge.mcu import false_bites


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one short run in instruction-counted time."""
    path = tmp_path_factory.mktemp("bites") / "parts.jsonl"
    false_bites.run("icount", path, 1200)
    return path


def test_the_shipped_watchdog_does_not_bite_in_counted_time(counted: Path) -> None:
    (part,) = false_bites.read(counted)
    assert (part.ticks, part.bites, part.resets, part.causes) == (1200, 0, 0, ())
    assert 0 < part.margin_min_us <= 10_000  # the first stage is at 10 ms


def test_a_run_goes_on_where_it_was_interrupted(counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted.open("a") as file:
        file.write('{"mode": "icou')  # cut short
    ran: list[int] = []
    whole = false_bites._part
    monkeypatch.setattr(false_bites, "_part", lambda *a: ran.append(a[-1]) or whole(*a))
    parts = false_bites.run("icount", counted, 1300)
    assert ran == [100] and [part.ticks for part in parts] == [1200, 100]
    assert "1300 ticks" in false_bites.show(parts)


def test_a_bite_is_an_answer_of_one(tmp_path: Path, counted: Path) -> None:
    line = counted.read_text().splitlines()[0].replace('"bites": 0', '"bites": 1')
    (tmp_path / "bitten.jsonl").write_text(line + "\n")
    assert false_bites.main(["show", str(tmp_path / "bitten.jsonl")]) == 1
