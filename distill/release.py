"""From a finished training run to a signed bundle: export, drive it in float, calibrate on that, quantise, sign."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distill.calibration import closed_loop_feeds
from distill.export import Way, bundle, export_graphs
from distill.golden import golden_steps
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.quantise.graph import Feed
from distill.quantise.saturation import Saturation, saturation
from distill.quantise.student import Quantisation, Quantised, quantise_student
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
    """How many episodes of each of ``tasks`` the float student drives, and how many inputs are kept of all."""

    episodes: int = 4
    feeds: int = 256
    tasks: Sequence[str] = SHIPPED_TASKS


def _trust(key: Ed25519PrivateKey) -> TrustStore:
    """Trusts what was just signed with ``key``."""
    public = key.public_key()
    return TrustStore({key_id(public): ("this export", public)}, allow_demo_key=True)


def _check_names(*bundles: Path | None) -> None:
    for path in bundles:
        if path is not None and path.suffix != ".wam":
            raise ConfigError(f"bundle {path}", expected="a name that ends in .wam")


@dataclass(frozen=True)
class Released:
    """The bundles and what is known of them.

    Attributes:
        model_hash: of the INT8 bundle.
        quantised: graphs, sensitivity scan and what was put back to float.
        feeds: inputs of the float student's own episodes, on which it was calibrated.
        saturated: how often each activation ran out of codes in the INT8 student's own episodes, worst first.
    """

    model_hash: str
    quantised: Quantised
    feeds: Sequence[Feed]
    saturated: Sequence[Saturation]


def release(
    run: Path, out: Path, *, robot_file: Path, config: StudentConfig, key: Ed25519PrivateKey, calibration: Calibration,
    card: Mapping[str, Any], report: Callable[[int, int, str], None], float_out: Path | None = None,
    quantisation: Quantisation | None = None, way: Way | None = None,
) -> str:  # fmt: skip
    """Write the INT8 bundle ``out`` (replacing one that is there) of the codec and transformer in ``run``.

    Returns:
        Its model hash.

    Raises:
        ConfigError: no weights, or a name that does not end in ``.wam``.
        EdgeWamError: the bundle's own refusals.
    """
    _check_names(out, float_out)
    wam, step = load_wam(run, config)
    return make_release(
        load_codec(run, config), wam, out, robot_file=robot_file, key=key, calibration=calibration,
        card={"training_steps": step, **card}, report=report, float_out=float_out, quantisation=quantisation, way=way,
    ).model_hash  # fmt: skip


def make_release(
    codec: FrameCodec, wam: WorldActionTransformer, out: Path, *, robot_file: Path, key: Ed25519PrivateKey,
    calibration: Calibration, card: Mapping[str, Any], report: Callable[[int, int, str], None],
    float_out: Path | None = None, quantisation: Quantisation | None = None, way: Way | None = None,
) -> Released:  # fmt: skip
    """The INT8 bundle of a student in memory.

    Args:
        out: ``NAME.wam``; NAME becomes the model's name.
        robot_file: the robot with the statistics that the student was trained with; it becomes part of the bundle.
        card: what is known of the training; what was measured is added later, by whoever measures it.
        float_out: also keep the float32 twin here (for comparing the two in closed loop).
        way: passes and video of a chunk.

    Raises:
        ConfigError: a name that does not end in ``.wam``.
        EdgeWamError: the bundle's own refusals.
    """
    _check_names(out, float_out)
    text, config = robot_file.read_text(encoding="utf-8"), wam.config
    embodiment = parse_embodiment(text, str(robot_file))
    golden = golden_recorder(golden_steps(embodiment))
    graphs = export_graphs(codec, wam, way)
    tasks = calibration.tasks
    episodes = calibration.episodes * len(tasks)

    def write(directory: Path, name: str, made: Mapping[str, onnx.ModelProto], facts: Mapping[str, Any]) -> str:
        precision = facts["step_precision"]
        return bundle(
            directory, name=name, description=f"Meta-World student {config.name!r}, {precision}", embodiment_text=text,
            config=config, graphs={**graphs, **made}, card={"size": config.to_dict(), **card, **facts}, golden=golden,
            key=key, way=way, replace=True,
        )  # fmt: skip

    def drive(path: Path, each: int, kept: int, what: str) -> list[Feed]:
        driven = 0

        def episode(task: str, seed: int, success: bool) -> None:
            nonlocal driven
            driven += 1
            report(driven, each * len(tasks), f"{what}: {task} seed {seed}: {'done' if success else 'not done'}")

        policy = Policy(open_bundle(path, trust=_trust(key), embodiment=embodiment))
        return list(closed_loop_feeds(
            policy, embodiment, mcu_library(), tasks=tasks, episodes=each, feeds=kept, clock_ns=time.perf_counter_ns,
            report=episode,
        ))  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="edge-wam-") as scratch:
        twin = float_out if float_out is not None else Path(scratch) / "float.wam"
        write(twin, f"{out.stem}{FLOAT_SUFFIX}", {}, {"step_precision": "float32"})
        feeds = drive(twin, calibration.episodes, calibration.feeds, "float32")
        quantised = quantise_student(
            wam, feeds, embodiment, quantisation or Quantisation(), way,
            lambda done, total, remark: report(episodes, episodes, f"scan {done}/{total} {remark}"),
        )  # fmt: skip
        facts = {"step_precision": "int8", "quantisation": quantised.facts()}
        draft = Path(scratch) / "draft.wam"
        write(draft, out.stem, quantised.graphs, facts)
        saturated = saturation(quantised.graphs["step"], drive(draft, 1, calibration.feeds, "int8"))
        worst = [[row.activation, row.share] for row in saturated[:3]]
        model_hash = write(out, out.stem, quantised.graphs, {**facts, "most_saturated": worst})
    return Released(model_hash, quantised, feeds, saturated)
