"""Few steps from many: the student goes where its teacher goes, keeps both answers, and the controls fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.batch import Batch, Noise
from distill.data.endpoints import cached_endpoints
from distill.fewstep.endpoints import KeptEndpoints, SolvedEndpoints, shuffled
from distill.fewstep.objective import FewStep, FewStepWeights, Shortcut, few_passes
from distill.losses.flow_matching import FlowMatchingWeights
from distill.models.wam import WorldActionTransformer
from distill.teaching import Look, Noisy, Teacher, WamTeacher, noisy_chunk, weights_digest
from edge_wam.errors import ConfigError
from tests.distill.tiny import TINY, make_student
from tests.distill.toy import AXES, TOY, ForkTeacher, batch_of, distil, fork, noise_of

ENDPOINT = FewStepWeights(consistency=0.0, flow=0.0)


def _anchored(weights: FewStepWeights, teacher: ForkTeacher) -> Callable[[WorldActionTransformer], FewStep]:
    return lambda model: FewStep(model, weights, SolvedEndpoints(teacher, 8), teacher)


# ---- the toy chain, small: what distillation is for, and what would expose a fake -----------------------------------


def test_a_distilled_student_chooses_as_its_teacher_does_from_the_same_noise() -> None:
    answers = distil(_anchored(FewStepWeights(consistency=0.0), ForkTeacher()), 120)
    for passes in (1, 2):
        assert 0.3 < answers.left(passes) < 0.7
        assert answers.agreement(passes) > 0.75
        assert 0.65 < answers.spread(passes) < 1.2


def test_a_regression_on_demonstrations_averages_the_two_answers() -> None:
    answers = distil(lambda _: Shortcut(FlowMatchingWeights()), 60)
    assert answers.spread(1) < 0.1, "success alone would not tell it from a distilled one; this does"


def test_shuffled_endpoints_teach_nothing() -> None:
    control = distil(lambda model: FewStep(model, ENDPOINT, shuffled(SolvedEndpoints(ForkTeacher(), 8)), None), 60)
    assert control.spread(1) < 0.25 and control.agreement(1) < 0.7


def test_a_biased_teacher_is_inherited() -> None:
    """The data goes both ways; the teacher, and so the student, goes left."""
    biased = ForkTeacher(0.999)
    answers = distil(lambda model: FewStep(model, ENDPOINT, SolvedEndpoints(biased, 8), None), 60)
    assert answers.left(1) > 0.95 and answers.left(2) > 0.95


# ---- the objective --------------------------------------------------------------------------------------------------


class _Straight:
    """A teacher of straight lines: every velocity is the same, so that every jump is known."""

    digest, depth, width = "straight", 1, 1

    def __init__(self, video: Tensor, action: Tensor) -> None:
        self.said = Look(video, action)

    def open(self, batch: Batch) -> _Straight:
        self.batch = batch
        return self

    same_latents = True

    def noisy(self, noise: Noise) -> Noisy:
        return noisy_chunk(self.batch, noise)

    def look(self, chunk: Noisy, depths: object = ()) -> Look:
        return self.said


class _Oracle(torch.nn.Module):
    """Knows the straight lines, but for an error."""

    def __init__(self, said: Look, error: float) -> None:
        super().__init__()
        self.config, self.said, self.error = TOY, said, error

    def text_kv(self, tokens: Tensor) -> Tensor:
        return tokens

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        return self.said.video + self.error, self.said.action + self.error


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_a_student_that_jumps_right_has_nothing_to_learn(error: float) -> None:
    batch = batch_of(TOY, 7, 0)
    noise = replace(noise_of(batch, 0), committed=torch.zeros(7, TOY.horizon))
    noise.committed[:3, 0] = 1.0
    teacher = _Straight(torch.randn_like(batch.video), torch.randn_like(batch.action))
    oracle = _Oracle(teacher.said, error)
    objective = FewStep(oracle, FewStepWeights(flow=0.0), SolvedEndpoints(teacher, 4), teacher)  # type: ignore[arg-type]
    for step in range(3):
        parts = objective.loss(oracle, batch, noise, step)  # type: ignore[arg-type]
        assert set(parts) == {"total", "endpoint_action", "endpoint_video", "consistency_action", "consistency_video"}
        for name, value in parts.items():
            assert (value > 1e-3) if error else (value < 1e-6), name


def test_every_jump_gets_its_turn_and_its_own_target() -> None:
    """One sample a jump: the levels that the student is told are (1, 0), (1, 1/2) and (1/2, 0)."""
    batch = batch_of(TOY, 3, 0)
    noise = noise_of(batch, 0)
    told: list[tuple[Tensor, ...]] = []

    class _Listens(_Oracle):
        def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
            told.append((given[5], given[6], given[9], given[10], given[4]))
            return super().forward(*given)

    teacher = _Straight(torch.ones_like(batch.video), torch.ones_like(batch.action))
    model = _Listens(teacher.said, 0.0)
    objective = FewStep(model, ENDPOINT, SolvedEndpoints(teacher, 2), teacher)  # type: ignore[arg-type]
    objective.loss(model, batch, noise, 0)  # type: ignore[arg-type]
    sigma_video, sigma_action, jump_video, jump_action, action = told[0]
    assert sigma_video.tolist() == sigma_action.tolist() == [1.0, 1.0, 0.5]
    assert jump_video.tolist() == jump_action.tolist() == [1.0, 0.5, 0.5]
    torch.testing.assert_close(action[:2], noise.action[:2])
    torch.testing.assert_close(action[2], noise.action[2] - 0.5)
    objective.loss(model, batch, noise, 1)  # type: ignore[arg-type]
    assert told[1][0].tolist() == [1.0, 0.5, 1.0], "in turn"
    assert FewStepWeights(passes=(1,)).jumps == ((1.0, 0.0),)
    assert FewStepWeights(passes=(2,)).jumps == ((1.0, 0.5), (0.5, 0.0))


def test_each_loss_goes_by_one_key_and_needs_what_anchors_it() -> None:
    batch = batch_of(TOY, 4, 0)
    noise = noise_of(batch, 0)
    model = make_student(TOY)[1]
    teacher = ForkTeacher()
    none = {"endpoint": 0.0, "consistency": 0.0, "flow": 0.0}
    for key in none:
        weights = FewStepWeights(**{**none, key: 1.0})
        parts = FewStep(model, weights, SolvedEndpoints(teacher, 2), teacher).loss(model, batch, noise, 0)
        assert set(parts) == {"total", f"{key}_action", f"{key}_video"}
        torch.testing.assert_close(parts["total"], parts[f"{key}_action"] + 0.3 * parts[f"{key}_video"])
    opened = teacher.opened
    FewStep(model, FewStepWeights(**none | {"flow": 1.0}), None, None).loss(model, batch, noise, 0)
    assert teacher.opened == opened
    with pytest.raises(ConfigError, match="endpoint"):
        FewStep(model, FewStepWeights(), None, teacher)
    with pytest.raises(ConfigError, match="consistency"):
        FewStep(model, FewStepWeights(), SolvedEndpoints(teacher, 2), None)
    with pytest.raises(ConfigError, match="target time"):
        FewStep(make_student(TINY)[1], ENDPOINT, SolvedEndpoints(teacher, 2), None)
    with pytest.raises(ConfigError, match="passes"):
        FewStep(model, FewStepWeights(passes=(3,)), SolvedEndpoints(teacher, 2), teacher)
    with pytest.raises(ConfigError, match="even"):
        SolvedEndpoints(teacher, 3)


def test_states_without_labels_are_labelled_by_the_teacher() -> None:
    """The on-policy round: what the student visited by itself needs no expert."""
    batch = fork(6, np.random.default_rng(0))
    unlabelled = replace(batch, action=torch.zeros_like(batch.action), action_mask=torch.zeros_like(batch.action),
                         video_mask=torch.zeros_like(batch.video_mask))  # fmt: skip
    noise = noise_of(batch, 0)
    model = make_student(TOY)[1]
    given = FewStep(model, ENDPOINT, SolvedEndpoints(ForkTeacher(), 2), None, axes=AXES)
    parts = given.loss(model, unlabelled, noise, 0)
    torch.testing.assert_close(parts["endpoint_action"], given.loss(model, batch, noise, 0)["endpoint_action"])
    parts["total"].backward()
    assert model.action_head[2].weight.grad is not None and model.action_head[2].weight.grad[:AXES].abs().sum() > 0
    assert model.action_head[2].weight.grad[AXES:].abs().sum() == 0, "padding is no target"


def test_the_teacher_stays_what_it_was_and_is_no_part_of_what_is_saved() -> None:
    teacher = WamTeacher(make_student(replace(TOY, target_time=False), 1)[1], TOY)
    model = make_student(TOY, 2)[1].train().requires_grad_(True)
    objective = FewStep(model, FewStepWeights(), SolvedEndpoints(teacher, 2), teacher)
    theirs = {p.untyped_storage().data_ptr() for p in teacher.model.parameters()}
    held = [*model.state_dict().values(), *objective.state_dict().values()]
    assert not theirs & {value.untyped_storage().data_ptr() for value in held}
    assert not [p for p in objective.parameters() if p.requires_grad]
    assert all(name.startswith("average.") for name in objective.state_dict())
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    batch = batch_of(TOY, 4, 0)
    before, average = weights_digest(model), weights_digest(objective.average)  # type: ignore[arg-type]
    objective.loss(model, batch, noise_of(batch, 0), 0)["total"].backward()
    optimiser.step()
    objective.after_step(model, 0)
    assert weights_digest(teacher.model) == teacher.digest
    assert before != weights_digest(model) != weights_digest(objective.average) != average  # type: ignore[arg-type]


@pytest.mark.parametrize("passes", [1, 2])
def test_what_is_trained_is_what_the_runtime_runs(passes: int) -> None:
    """Teacher-forced passes, and the fused step with its refinement behind the cache: one chunk; passes counted."""
    config = replace(TINY, target_time=True)
    model = make_student(config)[1]
    torch.nn.init.normal_(model.time_jump[2].weight, std=0.1)
    batch = batch_of(config, 1, 0)
    noise = replace(noise_of(batch, 0), committed=(torch.arange(16) < 2).float()[None])
    ran: list[int] = []
    hook = model.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    video, action = (x.detach() for x in few_passes(model, batch, noise, passes))
    assert len(ran) == passes
    ran.clear()
    with torch.no_grad():
        cross = model.text_kv(batch.tokens)[:, 0]
        past = torch.cat([model.prefill(batch.latents[:, k], batch.states[:, k], cross) for k in range(2)], 2)
        known = (batch.action * noise.committed[..., None], noise.committed)
        ran.clear()
        target = 0.0 if passes == 1 else 0.5
        got_action, got_video, new_kv = model.step(
            batch.latents[:, -1], batch.states[:, -1], noise.video, noise.action, *known, past, batch.past_mask, cross,
            target=target,
        )  # fmt: skip
        if passes == 2:
            got_action, got_video = model.refine(got_video, got_action, *known, past, batch.past_mask, new_kv, cross)
    assert len(ran) == passes
    hook.remove()
    torch.testing.assert_close(got_action, action, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got_video, video, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="3 passes"):
        few_passes(model, batch, noise, 3)


def test_a_foreign_video_teaches_actions_alone() -> None:
    """A teacher whose latents are others: endpoints of video are no target."""
    batch = batch_of(TOY, 4, 0)
    noise = noise_of(batch, 0)
    teacher = _Straight(torch.ones_like(batch.video), torch.ones_like(batch.action))
    teacher.same_latents = False
    model = make_student(TOY)[1]
    anchored: Teacher = teacher  # type: ignore[assignment]
    parts = FewStep(model, FewStepWeights(), SolvedEndpoints(anchored, 2), anchored).loss(model, batch, noise, 0)
    assert parts["endpoint_video"] == 0 and parts["endpoint_action"] > 0 and parts["consistency_video"] > 0


def test_endpoints_that_were_kept_are_those_that_would_be_solved(tmp_path: Path) -> None:
    teacher = ForkTeacher()
    teacher.digest = "0" * 64
    whole = batch_of(TOY, 8, 0)

    def samples(numbers: NDArray[np.int64]) -> Batch:
        return Batch(**{field.name: getattr(whole, field.name)[torch.from_numpy(numbers)] for field in fields(Batch)})

    stored = cached_endpoints(tmp_path, 8, samples, teacher, data_hash="1" * 64, draws=2, steps=4)
    kept = KeptEndpoints(stored).endpoints(whole, noise_of(whole, 0))
    again = replace(noise_of(whole, 0), video=kept.start.video, action=kept.start.action)
    solved = SolvedEndpoints(teacher, 4).endpoints(whole, again)
    for mine, theirs in ((kept.start, solved.start), (kept.half, solved.half), (kept.end, solved.end)):
        torch.testing.assert_close(mine.action, theirs.action, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.video, theirs.video, atol=4e-3, rtol=4e-3)
        assert torch.equal(mine.sigma_action, theirs.sigma_action)
    model = make_student(TOY)[1]
    parts = FewStep(model, ENDPOINT, KeptEndpoints(stored), None).loss(model, whole, noise_of(whole, 0), 0)
    assert kept.video and parts["endpoint_action"] > 0 and parts["endpoint_video"] > 0
