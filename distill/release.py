"""From a finished training run to a signed bundle: export, drive it in float, calibrate on that, quantise, sign."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distill.calibration import closed_loop_feeds
from distill.export import bundle, export_graphs, quantise_step
from distill.golden import golden_steps
from distill.models.config import StudentConfig
from distill.student import load_codec, load_wam
from edge_wam.bundle import TrustStore, key_id, open_bundle
from edge_wam.embodiment import parse_embodiment
from edge_wam.errors import ConfigError
from edge_wam.policy import Policy, golden_recorder
from edge_wam.sim.lockstep import mcu_library
from edge_wam.sim.world import SHIPPED_TASKS

FLOAT_SUFFIX = "-fp32"


@dataclass(frozen=True, slots=True)
class Calibration:
    """How many episodes of every task the float student drives, and how many inputs are kept of all."""

    episodes: int = 4
    feeds: int = 256


def _trust(key: Ed25519PrivateKey) -> TrustStore:
    """Trusts what was just signed with ``key``."""
    public = key.public_key()
    return TrustStore({key_id(public): ("this export", public)}, allow_demo_key=True)


def release(
    run: Path, out: Path, *, robot_file: Path, config: StudentConfig, key: Ed25519PrivateKey, calibration: Calibration,
    card: Mapping[str, Any], report: Callable[[int, int, str], None], float_out: Path | None = None,
) -> str:  # fmt: skip
    """Write the INT8 bundle ``out`` (replacing one that is there); returns its model hash.

    Args:
        run: folder with ``codec.pt`` and ``wam.pt``.
        out: ``NAME.wam``; NAME becomes the model's name.
        robot_file: the robot with the statistics that the student was trained with; it becomes part of the bundle.
        card: what is known of the training; what was measured is added later, by whoever measures it.
        float_out: also keep the float32 twin here (for comparing the two in closed loop).

    Raises:
        ConfigError: no weights, or a name that does not end in ``.wam``.
        EdgeWamError: the bundle's own refusals.
    """
    for path in (out, float_out):
        if path is not None and path.suffix != ".wam":
            raise ConfigError(f"bundle {path}", expected="a name that ends in .wam")
    text = robot_file.read_text(encoding="utf-8")
    embodiment = parse_embodiment(text, str(robot_file))
    codec, (wam, step) = load_codec(run, config), load_wam(run, config)
    golden = golden_recorder(golden_steps(embodiment))
    graphs = export_graphs(codec, wam)
    facts = {"size": config.to_dict(), "training_steps": step, **card}

    def write(directory: Path, name: str, step_graph: onnx.ModelProto, precision: str) -> str:
        return bundle(
            directory, name=name, description=f"Meta-World student {config.name!r}, {precision}", embodiment_text=text,
            config=config, graphs={**graphs, "step": step_graph}, card={**facts, "step_precision": precision},
            golden=golden, key=key, replace=True,
        )  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="edge-wam-") as scratch:
        twin = float_out if float_out is not None else Path(scratch) / "float.wam"
        write(twin, f"{out.stem}{FLOAT_SUFFIX}", graphs["step"], "float32")
        policy = Policy(open_bundle(twin, trust=_trust(key), embodiment=embodiment))
    driven = 0

    def episode(task: str, seed: int, success: bool) -> None:
        nonlocal driven
        driven += 1
        remark = f"{task} seed {seed}: {'done' if success else 'not done'}"
        report(driven, calibration.episodes * len(SHIPPED_TASKS), remark)

    feeds = closed_loop_feeds(
        policy, embodiment, mcu_library(), episodes=calibration.episodes, feeds=calibration.feeds,
        clock_ns=time.perf_counter_ns, report=episode,
    )  # fmt: skip
    return write(out, out.stem, quantise_step(graphs["step"], config, feeds), "int8")
