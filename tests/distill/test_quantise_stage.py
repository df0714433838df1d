"""The stages around INT8 and the encoder: what is let out, what is not, and what is done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distill.checkpoint import load_checkpoint, save_checkpoint
from distill.models.config import StudentConfig
from distill.models.frame_encoder import FrameEncoder
from distill.parallel import Place
from distill.quantise.gate import GateSettings, Verdict
from distill.quantise.saturation import Saturation
from distill.quantise.smooth import Smoothed
from distill.quantise.student import Quantisation
from distill.run import Run
from distill.stages import encoder, quantise
from distill.stages.frame import Context
from distill.trainer import Training
from edge_wam.errors import ConfigError, ContractError
from tests.distill.tiny import ROBOT_FILE, TINY, make_student
from tests.distill.training import TOKENS, windows

SHORT = Training(steps=3, batch=4, warmup=0, learning_rate=1e-3, precision="float32", curve_every=1, checkpoint_every=2)


def _context(folder: Path) -> Context:
    return Context(folder / "work", ROBOT_FILE.parent, Place(), lambda *_: None)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student of a finished run, two blocks deep."""
    codec, wam = make_student(TINY)
    run = tmp_path / "work" / "pretrain"
    save_checkpoint(run / "codec.pt", {"codec": codec}, 7)
    save_checkpoint(run / "wam.pt", {"wam": wam}, 7)

    def named(_: str) -> StudentConfig:
        return TINY

    for stage in (quantise, encoder):
        monkeypatch.setattr(stage, "config_named", named)
        monkeypatch.setattr(stage, "mixture_hash", lambda parts, robot: "data")
    return tmp_path / "work"


class _Bench:
    """Stands for export and closed loop, which take minutes and have tests of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses_pp: list[float]) -> None:
        self.released: list[dict[str, Any]] = []
        self.losses_pp = losses_pp
        monkeypatch.setattr(quantise, "make_release", self.release)
        monkeypatch.setattr(quantise, "open_bundle", lambda path, trust: path)
        monkeypatch.setattr(quantise, "drive", self.drive)

    def release(self, codec: object, wam: Any, out: Path, **told: Any) -> Any:
        self.released.append({"wam": wam, **told})
        for bundle in (out, told["float_out"]):
            bundle.mkdir(parents=True, exist_ok=True)
            (bundle / "manifest.json").write_text(str(len(self.released)))
        scale = torch.ones(TINY.depth, TINY.width)
        made = SimpleNamespace(
            smoothed=Smoothed(wam, (), scale, scale), scales={"blocks.1.q": 0.5, "blocks.0.ffn_in": 0.5},
            write=lambda folder, name: (folder / "sensitivity.csv").write_text(name),
        )  # fmt: skip
        rows = [Saturation("x", 1000, 2), Saturation("y", 1000, 1)]
        return SimpleNamespace(model_hash=f"hash{len(self.released)}", quantised=made, saturated=rows)

    def drive(self, floating: Path, int8: Path, *_: object) -> Verdict:
        assert floating.name == "fp32.wam", "always the student that came in"
        loss = self.losses_pp.pop(0)
        reasons = (f"success falls by {loss:g} pp",) if loss > 1 else ()
        return Verdict(100, -loss, -loss - 1, -loss + 1, 1.0, 1.0, 1.0, reasons)


def _config(**changes: Any) -> quantise.Config:
    return quantise.Config(
        robot=ROBOT_FILE.name, name="tiny", quantisation=Quantisation(edge=0), gate=GateSettings(episodes=1), **changes
    )


def test_a_bundle_that_keeps_the_skill_is_let_out_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = _Bench(monkeypatch, [0.5])
    quantise.run(_config(), _context(work.parent))
    assert (work / "tiny.wam" / "manifest.json").read_text() == "1"
    verdict = json.loads((work / "quantise" / "verdict.json").read_text())
    assert verdict["difference_pp"] == -0.5 and verdict["pairs"] == 100
    assert (work / "quantise" / "saturation.csv").read_text().splitlines()[1:] == ["x,1000,2,0.002", "y,1000,1,0.001"]
    assert [note["activation"] for note in Run(work / "quantise").notes("saturated")] == ["x"], "1 in 1000 is allowed"
    assert (work / "quantise" / "sensitivity.csv").exists()
    quantise.run(_config(), _context(work.parent))
    assert len(bench.released) == 1, "what was done is not done again"
    with pytest.raises(ConfigError, match="episodes"):
        quantise.run(_config(episodes=9), _context(work.parent))


def test_a_bundle_that_loses_skill_stays_inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Bench(monkeypatch, [3.0])
    (work / "tiny.wam").mkdir()
    (work / "tiny.wam" / "manifest.json").write_text("an older one")
    with pytest.raises(ContractError, match="is not let out: success falls by 3 pp"):
        quantise.run(_config(), _context(work.parent))
    assert (work / "tiny.wam" / "manifest.json").read_text() == "an older one"
    assert json.loads((work / "quantise" / "verdict.json").read_text())["reasons"], "why is written down"
    assert sorted(p.name for p in work.iterdir()) == ["pretrain", "quantise", "tiny.wam"]


@pytest.mark.parametrize(("after", "passes"), [(0.0, True), (2.0, False)])
def test_when_the_gate_says_no_int8_is_distilled_and_judged_again(
    work: Path, monkeypatch: pytest.MonkeyPatch, after: float, passes: bool
) -> None:
    bench = _Bench(monkeypatch, [5.0, after])
    monkeypatch.setattr(quantise, "load_mixture", lambda *_: windows(24, 3))
    monkeypatch.setattr(quantise, "instruction_tokens", lambda _: TOKENS)
    config = _config(aware=quantise.Aware(data=("some",), training=SHORT))

    def go() -> None:
        quantise.run(config, _context(work.parent))

    if passes:
        go()
    else:
        with pytest.raises(ContractError, match="success falls by 2 pp"):
            go()
    first, second = bench.released
    assert first["quantisation"].alphas and second["quantisation"].alphas == (), "smoothed it is already"
    assert first["float_out"].name == "fp32.wam" and second["float_out"].name == "aware-fp32.wam"
    assert second["card"]["aware_steps"] == 3
    before, trained = (made["wam"].state_dict() for made in bench.released)
    assert list(before) == list(trained) and not torch.equal(before["blocks.1.q.weight"], trained["blocks.1.q.weight"])
    assert (work / "tiny.wam").exists() == passes
    judged = Run(work / "quantise").notes("judged")
    assert [(note["step"], note["passed"]) for note in judged] == [(0, False), (3, passes)]
    assert (work / "quantise" / "curves.csv").read_text().count("\n") == 4


# ---- encoder -----------------------------------------------------------------------------------------------------


class _Frames(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.canvas)


def _frames() -> _Frames:
    canvas = np.random.default_rng(1).integers(0, 256, (9, 3, 32, 64), np.uint8)
    return _Frames(canvas=canvas, last=np.array([3, 3, 3, 3, 8, 8, 8, 8, 8]))


def _encoder(**changes: Any) -> encoder.Config:
    told: dict[str, Any] = {
        "robot": ROBOT_FILE.name, "data": ("some",), "codec": "pretrain", "groups": 1, "training": SHORT,
        "shape": {"channels": TINY.latent_channels, "width": 8}, **changes,
    }  # fmt: skip
    return encoder.Config.model_validate(told)


def test_the_encoder_is_trained_resumed_and_handed_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "load_frames", lambda *_: _frames())
    encoder.run(_encoder(), _context(work.parent))
    made = FrameEncoder(_encoder().shape)
    assert load_checkpoint(work / "encoder" / "encoder.pt", {"encoder": made}) == 3
    head = (work / "encoder" / "curves.csv").read_text().splitlines()[0]
    assert "explained" in head and json.loads((work / "encoder" / "run.json").read_text())["teacher"]
    monkeypatch.setattr(encoder, "load_frames", lambda *_: pytest.fail("finished"))
    encoder.run(_encoder(), _context(work.parent))


def test_clips_never_cross_the_border_of_an_episode() -> None:
    frames: Any = _frames()
    assert encoder.clip_starts(frames, 2).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert encoder.clip_starts(frames, 5).tolist() == [4]
    with pytest.raises(ConfigError, match="no episode of 6 frames"):
        encoder.clip_starts(frames, 6)
    feed = encoder.ClipFeed(frames, encoder.clip_starts(frames, 2), 2, SHORT, Place())
    clips, none = feed.draw(5)
    assert none is None and clips.frames.shape == (4, 2, 3, 32, 64)
    assert torch.equal(clips.frames, feed.draw(5)[0].frames), "the same whenever it is asked"
    known = torch.from_numpy(frames.canvas).float() / 127.5 - 1.0
    for clip in clips.frames:
        place = int((known == clip[0]).flatten(1).all(1).nonzero())
        assert torch.equal(known[place + 1], clip[1])


@pytest.mark.parametrize("teachers", [{"codec": None}, {"checkpoint": "there"}])
def test_an_encoder_has_one_teacher(teachers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="name one teacher"):
        _encoder(**teachers)


def test_an_encoder_of_other_latents_is_refused(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "load_frames", lambda *_: _frames())
    go: Callable[[], None] = lambda: encoder.run(_encoder(shape={"channels": 9}), _context(work.parent))  # noqa: E731
    with pytest.raises(ContractError, match=r"latents \(4, 2, 9"):
        go()
