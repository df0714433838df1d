"""The benchmark compares the artefact with its own float twin, in turn, and says what really ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_wam.app.bench import bench
from tests.support.tiny_bundle import make_tiny_bundle, open_tiny_bundle


def test_int8_and_float_are_measured_side_by_side(tmp_path: Path) -> None:
    bundle = open_tiny_bundle(make_tiny_bundle(tmp_path))
    seen: list[tuple[int, int]] = []
    report = bench(bundle, threads=(1, 2), calls=12, warm_up=3, progress=lambda *at: seen.append(at))
    assert [(row.what, row.threads) for row in report.rows] == [
        (what, threads) for threads in (1, 2) for what in ("step float32", "step int8", "pixels to knots")
    ]
    for row in report.rows:
        assert row.calls == 12 and 0 < row.min_ms <= row.p50_ms <= row.p99_ms and row.cpu_p50_ms >= 0
    assert report.model_hash == bundle.model_hash
    assert report.integer_products == 5 and report.float_products == 0
    assert 0 < report.video_difference < 0.05 and 0 < report.action_difference < 0.5
    assert report.speedup(1) == pytest.approx(report.rows[0].p50_ms / report.rows[1].p50_ms)
    assert report.speedup(4) is None
    assert seen[0] == (1, 15) and seen[-1] == (15, 15)
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_float_bundle_has_no_int8_row(tmp_path: Path) -> None:
    report = bench(open_tiny_bundle(make_tiny_bundle(tmp_path, int8=False)), threads=(1,), calls=3, warm_up=1)
    assert [row.what for row in report.rows] == ["step float32", "pixels to knots"]
    assert report.speedup(1) is None and report.integer_products == 0 and report.float_products == 5


def test_a_bundle_that_imagines_nothing_can_be_measured(tmp_path: Path) -> None:
    bundle = open_tiny_bundle(make_tiny_bundle(tmp_path, passes=2, imagines=False))
    report = bench(bundle, threads=(1,), calls=3, warm_up=1)
    assert report.video_difference == 0.0 < report.action_difference
    assert [row.what for row in report.rows] == ["step float32", "step int8", "pixels to knots"]
