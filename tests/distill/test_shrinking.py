"""What a shrunk student learns from: a student that is its teacher has nothing to learn; each loss goes by one key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distill.losses.features import FeatureMatching, Moments
from distill.losses.shrinking import Shrinking, ShrinkWeights, annealing
from distill.models.wam import WorldActionTransformer
from distill.shape import Shape, read_shape, write_shape
from distill.teaching import WamTeacher, weights_digest
from edge_wam.errors import ConfigError, ContractError
from tests.distill.tiny import TINY, make_student
from tests.distill.toy import batch_of, noise_of

PARTS = ("truth", "velocity", "feature", "motion")
DEPTHS = (0, 1)


def _features(wam: WorldActionTransformer, kept: tuple[int, ...], components: int) -> FeatureMatching:
    teacher = WamTeacher(wam, wam.config)
    moments = [Moments(wam.config.width) for _ in DEPTHS]
    for seed in range(2):
        batch = batch_of(wam.config, 8, seed)
        lecture = teacher.open(batch)
        said = lecture.look(lecture.noisy(noise_of(batch, seed)), DEPTHS)
        for moment, hidden in zip(moments, said.hidden, strict=True):
            for x in hidden:
                moment.add(x)
    return FeatureMatching([moment.basis(kept, components) for moment in moments])


def _objective(wam: WorldActionTransformer, steps: int = 100, **weights: float) -> Shrinking:
    features = _features(wam, tuple(range(TINY.width)), 16)
    return Shrinking(WamTeacher(wam, TINY), ShrinkWeights(**weights), steps, features, DEPTHS, DEPTHS)  # type: ignore[arg-type]


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    wam = make_student(TINY)[1]
    same, other = make_student(TINY)[1], make_student(TINY, 5)[1]
    objective = _objective(wam)
    batch = batch_of(TINY, 4, 9)
    noise = noise_of(batch, 9)
    twin, stranger = (objective.loss(model, batch, noise, 0) for model in (same, other))
    assert set(twin) == {"total", "action", "video", "teacher_action", "teacher_video", "feature", "motion"}
    for name in ("teacher_action", "teacher_video", "feature", "motion"):
        assert twin[name] < 1e-3 and stranger[name] > 0.05, name
    assert twin["action"] > 0.1


def test_each_loss_goes_by_one_key() -> None:
    wam, student = make_student(TINY)[1], make_student(TINY, 5)[1]
    batch = batch_of(TINY, 4, 9)
    noise = noise_of(batch, 9)
    zero = dict.fromkeys(PARTS, 0.0)
    alone = {key: _objective(wam, **zero | {key: 1.0}).loss(student, batch, noise, 0)["total"] for key in PARTS}
    together = _objective(wam, **dict.fromkeys(PARTS, 1.0)).loss(student, batch, noise, 0)
    torch.testing.assert_close(sum(alone.values()), together["total"])
    assert all(value > 0.01 for value in alone.values())
    none = Shrinking(None, ShrinkWeights(), 100).loss(student, batch, noise, 0)
    torch.testing.assert_close(none["total"], alone["truth"])
    assert set(none) == {"total", "action", "video"}


def test_features_are_annealed_and_the_teacher_is_not_asked_for_nothing() -> None:
    assert [annealing(step, 100) for step in (0, 34, 35, 74, 75, 99)] == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]
    wam, student = make_student(TINY)[1], make_student(TINY, 5)[1]
    batch = batch_of(TINY, 2, 9)
    noise = noise_of(batch, 9)
    objective = _objective(wam, truth=0.0, velocity=0.0, feature=1.0, motion=0.0)
    early, later, late = (objective.loss(student, batch, noise, step) for step in (0, 40, 80))
    torch.testing.assert_close(early["total"], 2.0 * later["total"])
    assert late["total"] == 0 and late["feature"] == 0
    rarely = _objective(wam, truth=0.0, velocity=1.0, feature=0.0, motion=0.0, teacher_every=4)
    asked = [float(rarely.loss(student, batch, noise, step)["total"].detach()) > 0 for step in range(8)]
    assert asked == [True, False, False, False] * 2
    assert set(rarely.loss(student, batch, noise, 1)) == set(rarely.loss(student, batch, noise, 0)), "curves are whole"


def test_the_teacher_gets_no_gradient_and_the_student_does() -> None:
    wam, student = make_student(TINY)[1], make_student(TINY, 5)[1].train()
    objective = _objective(wam)
    before = weights_digest(wam)
    batch = batch_of(TINY, 4, 9)
    objective.loss(student, batch, noise_of(batch, 9), 0)["total"].backward()
    assert all(p.grad is None for p in wam.parameters()) and weights_digest(wam) == before
    assert all(p.grad is not None for name, p in student.named_parameters() if not name.startswith("text."))
    assert not list(objective.parameters()), "nothing is learned beside the student"
    theirs = {p.untyped_storage().data_ptr() for p in wam.parameters()}
    assert not theirs & {value.untyped_storage().data_ptr() for value in objective.state_dict().values()}


def test_a_velocity_is_learned_where_nothing_is_labelled_and_not_on_padding() -> None:
    wam, student = make_student(TINY)[1], make_student(TINY, 5)[1]
    batch = batch_of(TINY, 4, 9)
    batch.action_mask[:, :, 3:] = 0.0
    batch.action_mask[2:] = 0.0
    noise = noise_of(batch, 9)
    weights = ShrinkWeights(truth=0.0, feature=0.0, motion=0.0)
    Shrinking(WamTeacher(wam, TINY), weights, 100, axes=3).loss(student, batch, noise, 0)["total"].backward()
    gradient = student.action_head[2].weight.grad
    assert gradient is not None and (gradient[:3].abs().sum(1) > 0).all() and gradient[3:].abs().sum() == 0
    whole = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    whole.action_mask[:, :, :3] = 1.0
    for axes, same in ((3, True), (0, False)):
        objective = Shrinking(WamTeacher(wam, TINY), weights, 100, axes=axes)
        a, b = (objective.loss(student, x, noise, 0)["teacher_action"] for x in (batch, whole))
        assert torch.allclose(a, b) == same


# ---- features -------------------------------------------------------------------------------------------------------


def _low_rank(tokens: int, seed: int) -> Tensor:
    """Hidden states of 12 channels that lie on 3 axes."""
    g = torch.Generator().manual_seed(7)
    axes = torch.randn(3, 12, generator=g)
    g.manual_seed(seed)
    return torch.randn(2, tokens, 3, generator=g) @ axes + 2.0


def _basis(kept: tuple[int, ...]) -> FeatureMatching:
    moments = Moments(12)
    for seed in range(4):
        moments.add(_low_rank(200, seed))
    return FeatureMatching([moments.basis(kept, 3)])


def test_what_kept_channels_say_is_read_from_them() -> None:
    kept = (0, 2, 5, 7, 11)
    matching = _basis(kept)
    hidden = _low_rank(20, 99)
    teacher = [(hidden[:, :8].unflatten(1, (2, 4)), hidden[:, 8:])]
    student = [(x[..., list(kept)], y[..., list(kept)]) for x, y in teacher]
    features, motion = matching(student, teacher)
    assert features < 1e-3 and motion < 1e-3, "three components can be read from five channels"
    constant = [(torch.full_like(x, 2.0), torch.full_like(y, 2.0)) for x, y in student]
    features, motion = matching(constant, teacher)
    assert 0.5 < features < 1.5, "a constant answer scores about 1"
    assert motion > 0.5


def test_motion_is_what_changes_and_nothing_else() -> None:
    kept = tuple(range(12))
    matching = _basis(kept)
    hidden = _low_rank(20, 99)
    teacher = [(hidden[:, :8].unflatten(1, (2, 4)), hidden[:, 8:])]
    shifted = [(x + 0.7, y + 0.7) for x, y in teacher]
    features, motion = matching(shifted, teacher)
    assert motion < 1e-6 and features > 1e-3


def test_huge_activations_are_left_out() -> None:
    kept = tuple(range(12))
    matching = _basis(kept)
    hidden = _low_rank(20, 99)
    before = [(hidden[:, :8].unflatten(1, (2, 4)), hidden[:, 8:])]
    outlier = hidden.clone()
    outlier[0, 10] *= 50.0
    after = [(before[0][0], outlier[:, 8:])]
    plain = [(torch.full_like(x, 2.0), torch.full_like(y, 2.0)) for x, y in before]
    features = [float(matching(plain, target)[0]) for target in (before, after)]
    assert abs(features[1] - features[0]) < 0.3, "it would be some thousand with them"


def test_features_that_cannot_be_measured_are_refused() -> None:
    moments = Moments(12)
    moments.add(_low_rank(2, 0))
    with pytest.raises(ContractError, match="more tokens"):
        moments.basis((0,), 8)
    moments.add(torch.full((20, 12), float("nan")))
    with pytest.raises(ContractError, match="not finite"):
        moments.basis((0,), 8)
    with pytest.raises(ConfigError, match="no depth"):
        FeatureMatching([])
    with pytest.raises(ContractError, match="depths"):
        _basis((0, 1, 2))([], [])


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_a_size_is_said_by_what_differs_and_remembered_beside_the_weights(tmp_path: Path) -> None:
    config = Shape(size="nano", depth=3, grid=(8, 24)).config()
    assert (config.depth, config.grid, config.width) == (3, (8, 24), 128)
    with pytest.raises(ConfigError, match="heads"):
        Shape(width=100, heads=3).config()
    with pytest.raises(ConfigError, match="nanno"):
        Shape(size="nanno").config()
    assert read_shape(tmp_path, TINY) == TINY
    told = replace(config, target_time=True)
    write_shape(tmp_path, told)
    assert read_shape(tmp_path, TINY) == told
    text = (tmp_path / "student.json").read_text()
    wrong = ((text.replace('"depth"', '"depht"'), "dep"), (text.replace("128", '"128"'), "width"), ("{", "read"))
    for broken, what in wrong:
        (tmp_path / "student.json").write_text(broken)
        with pytest.raises(ConfigError, match=what):
            read_shape(tmp_path, TINY)
