"""The report shows what the recording says, needs nothing but itself, and cannot be made to say something else."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from edge_wam.errors import ContractError
from edge_wam.report import Outcome, read_run, render, write_report
from edge_wam.report.png import png
from edge_wam.report.svg import Line, histogram, line_chart, thin, ticks
from tests.report.recorded import write_recording
from tests.support.tiny_bundle import make_tiny_bundle, open_tiny_bundle

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Checker(HTMLParser):
    """Balanced tags, every picture described, every address inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name in ("src", "href"):
            assert (values.get(name) or "data:").startswith("data:"), f"{tag} {name} leaves the page"
        if tag == "img":
            assert values["alt"] and values["width"] and values["height"]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("report") / "run.mcap")


def test_page_is_one_wellformed_file_without_script_or_address(recording: Path, tmp_path: Path) -> None:
    bundle = open_tiny_bundle(make_tiny_bundle(tmp_path))
    outcome = Outcome(True, "Task done", "judged")
    text = write_report(recording, tmp_path / "sub" / "run.html", bundle=bundle, outcome=outcome).read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "script" not in checker.tags and "@import" not in text and "url(" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert checker.tags.count("svg") - text.count('aria-hidden="true"') == text.count('<svg role="img"') >= 7
    assert text.count("<title>") >= 7 and "imagined 0.20 s before" in text and "imagined 0.40 s before" in text


def test_words_from_outside_stay_words(recording: Path) -> None:
    run = read_run(recording, outcome=Outcome(False, "<script>alert(1)</script>", "a & b"))
    text = render(run)
    assert "<script>" not in text and "&lt;script&gt;" in text and "open the &lt;drawer&gt; &amp; smile" in text


def test_numbers_are_those_of_the_recording(recording: Path) -> None:
    run = read_run(recording)
    assert len(run.mcu_t_s) == 300 and run.duration_s == pytest.approx(2.99)
    assert len(run.plans) == 26
    assert run.latency_ms[0] == 13.0 and set(run.step_ms) == {12.0}
    assert run.age_ms[0] == pytest.approx(51.0)  # t0 is 50 ms ahead, the oldest input 1 ms old
    assert run.age_ms[1] == pytest.approx(102.0)  # the microcontroller trimmed one knot of 50 ms
    assert len(run.age_ms) == 25 and run.plans[4].age_ms is None  # one chunk it did not take at all
    assert run.plans[3].t_s[0] == pytest.approx(0.35)
    assert [(s.name, s.good) for s in run.mcu_states] == [("RUN", True), ("STOP", False)]
    assert [s.name for s in run.degrade] == ["NOMINAL", "HOLD"]
    assert run.degrade[0].end_s == pytest.approx(2.6, abs=0.011)
    assert [(e.number, e.name) for e in run.events] == [(1001, "POLICY_DEADLINE_MISSED"), (1, "HOST_SILENT")]
    assert run.events[0].remedy and run.events[1].remedy and len(run.faults) == 2
    assert run.refused == {"CHUNK_LATE": 2} and run.deadline_ms == 150.0
    assert np.abs(run.setpoint - run.position)[:, 2].max() == pytest.approx(0.001, rel=0.1)
    assert run.outcome.done is None and "POLICY_DEADLINE_MISSED" in run.outcome.why


def test_imagination_is_compared_with_what_came_at_its_time_and_with_copying(recording: Path) -> None:
    run = read_run(recording)
    assert sorted(run.outlook_errors) == [0.2, 0.4]
    for imagined, copied in run.outlook_errors.values():
        assert imagined < copied
    assert run.outlook_errors[0.4][1] > run.outlook_errors[0.2][1]


def test_a_recording_cut_off_by_a_crash_gives_a_report_that_says_so(recording: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(recording.read_bytes()[:-200])
    assert "its writer was killed" in render(read_run(cut))
    assert "its writer was killed" not in render(read_run(recording))


def test_nothing_to_show_is_refused_by_name(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.mcap"):
        read_run(tmp_path / "none.mcap")
    with pytest.raises(ContractError, match="no episode 3"):
        read_run(recording, episode=3)
    with pytest.raises(ContractError, match="report"):
        write_report(recording, recording / "x.html")


def test_png_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (13, 7, 3), np.uint8)
    with av.open(io.BytesIO(png(image)), format="png_pipe") as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(decoded, image)
    with pytest.raises(ContractError):
        png(image.astype(np.float64))


def test_thinning_keeps_every_peak() -> None:
    y = np.zeros(100_000)
    y[54_321], y[12_345] = 5.0, -3.0
    x, kept = thin(np.arange(100_000.0), y)
    assert len(x) <= 1000 and kept.max() == 5.0 and kept.min() == -3.0
    assert (np.diff(x) > 0).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.5, 0.5), (1e-6, 3e-6), (0, 12345), (3, 3)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)


def test_a_gap_is_not_drawn_over_and_nothing_breaks_a_chart() -> None:
    x = np.arange(5.0)
    chart = line_chart("t", "d", [Line("a", "real", x, np.array([0, 1, np.nan, 1, 0.0]))], x_range=(0, 4))
    (path,) = re.findall(r'class="real" d="([^"]*)"', chart)
    assert path.count("M") == 2 and "nan" not in chart
    empty = line_chart("t", "d", [], x_range=(0, 0))
    assert "nan" not in empty and "inf" not in empty
    assert histogram("h", "d", np.zeros(3), limit=5.0).count('class="bar"') == 1
