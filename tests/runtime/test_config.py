"""A run configuration is refused by name when anything in it is unknown or out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_wam.config import RunConfig, load_config, make_config
from edge_wam.errors import ConfigError

MINIMAL: dict[str, object] = {"robot": "r.toml", "bundle": "b.wam"}


def test_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    config = make_config(dict(MINIMAL), tmp_path)
    assert config.robot == tmp_path / "r.toml" and config.recording_dir == tmp_path / "runs"
    assert config.plan.deadline_ms == 150 and config.plan.camera_budget_ms == 50
    assert config.plan.max_age_ms == 50 + 2 * 1000 / config.plan.rate_hz
    assert config.link.clock_bound_ms == 1.0 and not config.allow_demo_key


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": {"ratehz": 5}}, "rate_hz"),
        ({"bundel": "x"}, "bundle"),
        ({"plan": {"rate_hz": 0}}, "plan.rate_hz"),
        ({"plan": {"rate_hz": float("nan")}}, "plan.rate_hz"),
        ({"plan": {"deadline_ms": 250}}, "plan.deadline_ms"),
        ({"plan": {"rate_hz": 4}}, "250 ms"),
        ({"link": {"clock_bound_ms": 6}}, "link.clock_bound_ms"),
        ({"link": {"kind": "serial"}}, "link.address"),
        ({"guard": {"margin": 1.1}}, "guard.margin"),
        ({"realtime": {"fifo_priority": 50}}, "fifo_priority"),
        ({"schema_version": 2}, "schema_version"),
        ({"instruction": ""}, "instruction"),
    ],
)
def test_names_what_is_wrong(change: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        make_config({**MINIMAL, **change}, tmp_path)
    assert said in str(refused.value)


def test_a_missing_key_a_missing_file_and_what_is_no_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bundle"):
        make_config({"robot": "r"}, tmp_path)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("robot = = 1")
    with pytest.raises(ConfigError, match="TOML"):
        load_config(tmp_path / "bad.toml")


def test_a_file_is_read_with_its_paths_beside_it(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('robot = "a.toml"\nbundle = "/abs/b.wam"\n[plan]\nrate_hz = 20\n')
    config = load_config(tmp_path / "run.toml")
    assert isinstance(config, RunConfig)
    assert config.robot == tmp_path / "a.toml" and config.bundle == Path("/abs/b.wam") and config.plan.rate_hz == 20
