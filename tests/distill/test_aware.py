"""INT8 that can be trained: it computes what is exported, it learns, and it leaves its teacher alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from distill.batch import Batch, Noise, NoiseLevels, draw_noise, generator
from distill.models.wam import WorldActionTransformer
from distill.quantise.aware import AwareWeights, QuantisationAware
from distill.quantise.fake import QuantisedLinear, float_in_place, quantise_in_place, scales_of, straight_through
from distill.quantise.gate import GateSettings, judge
from distill.quantise.graph import clipping, insert_qdq, observe, quantisable
from distill.quantise.keep import keep_float
from distill.quantise.sensitivity import actions_of
from distill.scoring import Score
from edge_wam.errors import ContractError
from tests.distill.tiny import EXPORTED, Exported, make_student, step_feed

LAYERS = ("q", "k", "v", "o", "cross_q", "cross_o", "ffn_in", "ffn_out")


def _batch(seed: int, rows: int = 6) -> tuple[Batch, Noise]:
    c, rng = EXPORTED, generator(5, seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32))

    frames, ones = c.past_frames + 1, torch.ones
    batch = Batch(
        latents=draw(rows, frames, c.tokens, c.token_channels), states=draw(rows, frames, 64),
        past_mask=ones(rows, c.past_frames), action=draw(rows, 16, 32), action_mask=ones(rows, 16, 32),
        video=draw(rows, len(c.future_knots), c.tokens, c.token_channels),
        video_mask=ones(rows, len(c.future_knots)), tokens=torch.arange(10).repeat(rows, 1) % 5,
        source=torch.zeros(rows, dtype=torch.long), index=torch.arange(rows),
    )  # fmt: skip
    return batch, draw_noise(batch, rng, NoiseLevels())


def test_the_estimator_rounds_and_has_the_slope_of_clipping() -> None:
    x = torch.tensor([-9.0, -1.26, 0.0, 0.2, 0.26, 3.4, 9.0], requires_grad=True)
    y = straight_through(x, torch.tensor(0.5), -8, 7)
    assert y.tolist() == [-4.0, -1.5, 0.0, 0.0, 0.5, 3.5, 3.5]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]


@torch.no_grad()
def test_what_is_trained_is_what_is_exported(exported: Exported) -> None:
    step, feeds = exported.graphs["step"], [step_feed(100 + k) for k in range(6)]
    nodes = quantisable(step.graph, keep_float(EXPORTED))
    clip = clipping(observe(step, nodes, feeds))
    shipped = actions_of({"step": insert_qdq(step, nodes, clip)}, feeds)
    plain = actions_of({"step": step}, feeds)
    wam = copy.deepcopy(exported.wam)
    quantise_in_place(wam, scales_of(nodes, clip))
    assert sum(isinstance(m, QuantisedLinear) for m in wam.modules()) == len(nodes) == len(LAYERS)
    here = np.concatenate([wam.step(*(torch.from_numpy(feed[n]) for n in feed))[0].numpy() for feed in feeds])
    off = np.abs(here - shipped).mean() / np.abs(plain - shipped).mean()
    assert off < 0.1, "a code that rounds the other way now and then, and nothing else"


def test_names_and_weights_stay_and_can_be_taken_back() -> None:
    wam = make_student(EXPORTED)[1]
    before = {name: value.clone() for name, value in wam.state_dict().items()}
    quantise_in_place(wam, {"blocks.1.q": 0.01, "blocks.1.ffn_out": 0.02})
    assert list(wam.state_dict()) == list(before), "a checkpoint knows nothing of it"
    with pytest.raises(ContractError, match=r"'blocks\.1\.q' is no linear layer"):
        quantise_in_place(wam, {"blocks.1.q": 0.01})
    with pytest.raises(ContractError, match="is no linear layer"):
        quantise_in_place(wam, {"blocks.9.q": 0.01})
    float_in_place(wam)
    assert not any(isinstance(m, QuantisedLinear) for m in wam.modules())
    assert all(torch.equal(value, before[name]) for name, value in wam.state_dict().items())


def _coarse(teacher: WorldActionTransformer) -> WorldActionTransformer:
    """A student whose activations have a handful of codes: something to make good."""
    wam = copy.deepcopy(teacher)
    quantise_in_place(wam, {f"blocks.1.{name}": 1.0 for name in LAYERS})
    return wam.requires_grad_(True)


def test_it_learns_to_answer_as_its_float_self_and_leaves_that_alone() -> None:
    teacher = make_student(EXPORTED)[1]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = _coarse(teacher)
    objective = QuantisationAware(teacher, [1], AwareWeights())
    optimiser = torch.optim.Adam(student.parameters(), 5e-4)
    tested = [_batch(900 + k) for k in range(3)]

    def off() -> float:
        with torch.no_grad():
            return float(np.mean([objective.loss(student, *pair, 0)["off"] for pair in tested]))

    first = off()
    for step in range(30):
        optimiser.zero_grad()
        objective.loss(student, *_batch(step), step)["total"].backward()
        optimiser.step()
    assert off() < 0.85 * first
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    mine = {p.data_ptr() for p in student.parameters()}
    assert not mine & {p.data_ptr() for p in teacher.parameters()}, "no tensor is shared with the teacher"


def test_a_student_that_is_not_quantised_has_nothing_to_learn() -> None:
    teacher = make_student(EXPORTED)[1]
    parts = QuantisationAware(teacher, [1]).loss(copy.deepcopy(teacher), *_batch(1), 0)
    assert all(abs(float(value)) < 1e-6 for value in parts.values()), parts


# ---- the gate ----------------------------------------------------------------------------------------------------


def _scores(wins: int, jerk: float, episodes: int = 100) -> list[Score]:
    return [
        Score(task="reach", seed=300_000 + k, success=k < wins, time_s=1.0, jerk=jerk, border_mm=2.0, plans=10,
              passes=20, foreseen=0, imagined_mse=0.0, copied_mse=0.0, refused=0)
        for k in range(episodes)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wins", "jerk", "said"),
    [(90, 10.0, ()), (92, 10.4, ()), (89, 10.0, ()), (88, 10.0, ("success falls by 2.0 pp",)),
     (90, 10.6, ("jerk grows by 6.0 %",)), (80, 20.0, ("success falls by 10.0 pp", "jerk grows by 100.0 %"))],
)  # fmt: skip
def test_success_and_jerk_decide(wins: int, jerk: float, said: tuple[str, ...]) -> None:
    verdict = judge(_scores(90, 10.0), _scores(wins, jerk), GateSettings())
    assert verdict.passed == (not said) and len(verdict.reasons) == len(said)
    assert all(a.startswith(b) for a, b in zip(verdict.reasons, said, strict=True))
    assert verdict.low_pp <= verdict.difference_pp <= verdict.high_pp and verdict.passes_per_plan == 2.0
