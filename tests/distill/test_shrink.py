"""Slicing: what is kept means what it meant, what is dropped was dead or is named."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill.models.config import CONFIGS, StudentConfig
from distill.models.layers import Levels
from distill.models.wam import WorldActionTransformer
from distill.shrink.axes import axes_of
from distill.shrink.importance import WAM_PATHS, WAN_PATHS, Importance, measuring
from distill.shrink.inherit import inherit
from distill.shrink.selection import kept_blocks, kept_pairs
from distill.shrink.sources import WamSource, WanSource
from distill.teacher.config import TeacherConfig
from distill.teacher.dit import Clip, DreamZero
from distill.teacher.layers import Level, masked
from distill.teacher.rope import Rotation
from edge_wam.errors import ConfigError, ContractError
from tests.distill.tiny import TINY, make_student
from tests.teacher.tiny import TINY_5B, TINY_14B, draw, inputs, tiny

Given = tuple[Tensor, ...]
BIG = replace(TINY, name="big", depth=5, width=64, heads=4, ffn=96)
P = TINY.past_frames


def _given(wam: WorldActionTransformer, seed: int = 0) -> Given:
    """Inputs of a teacher-forced pass, three samples."""
    g = torch.Generator().manual_seed(seed)
    c, b = wam.config, 3
    words = torch.randint(1, 50, (b, c.text_length), generator=g)
    with torch.no_grad():
        cross = wam.text_kv(words)
    return (
        torch.randn(b, P + 1, c.tokens, c.token_channels, generator=g), torch.randn(b, P + 1, 64, generator=g),
        torch.ones(b, P), torch.randn(b, len(c.future_knots), c.tokens, c.token_channels, generator=g),
        torch.randn(b, c.horizon, c.action_width, generator=g), torch.rand(b, generator=g), torch.rand(b, generator=g),
        torch.zeros(b, c.horizon), cross,
    )  # fmt: skip


def _importance(wam: WorldActionTransformer) -> Importance:
    with measuring(wam.blocks, wam.config.heads, WAM_PATHS) as meter, torch.no_grad():
        wam(*_given(wam))
    return meter.result()


def _same(a: WorldActionTransformer, b: WorldActionTransformer, atol: float) -> None:
    with torch.no_grad():
        for x, y in zip(a(*_given(a)), b(*_given(b)), strict=True):
            torch.testing.assert_close(x, y, atol=atol, rtol=atol)


def _shrunk(
    wam: WorldActionTransformer, student: StudentConfig, importance: Importance | None = None,
    blocks: tuple[int, ...] | None = None,
) -> WorldActionTransformer:  # fmt: skip
    return inherit(WamSource(wam.state_dict(), wam.config, student), student, importance, blocks)[0].eval()


# ---- which blocks and channels ------------------------------------------------------------------------------------


@given(st.integers(4, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(4, n))))
def test_the_first_two_and_the_last_two_blocks_stay_and_the_others_are_spread(depths: tuple[int, int]) -> None:
    teacher, student = depths
    blocks = kept_blocks(teacher, student)
    assert len(blocks) == student and list(blocks) == sorted(set(blocks))
    assert blocks[:2] == (0, 1) and blocks[-2:] == (teacher - 2, teacher - 1)
    gaps = [b - a for a, b in pairwise(blocks[1:-1])]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1, "evenly"


def test_given_blocks_are_taken_or_refused() -> None:
    assert kept_blocks(8, 3, (1, 4, 6)) == (1, 4, 6)
    assert kept_blocks(8, 1) == (0,) and kept_blocks(8, 2) == (0, 7)
    for wrong in ((1, 4), (4, 1, 6), (1, 1, 6), (1, 4, 8), (-1, 4, 6)):
        with pytest.raises(ConfigError, match="below 8"):
            kept_blocks(8, 3, wrong)
    with pytest.raises(ConfigError, match="out of 8"):
        kept_blocks(8, 9)


def test_narrower_heads_keep_the_frequencies_they_had() -> None:
    assert kept_pairs(24, 24).tolist() == list(range(24))
    kept = kept_pairs(24, 12)  # pairs of 12: 4 + 4 + 4; of 6: 2 + 2 + 2
    assert kept.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]


@pytest.mark.parametrize("name", ["nano", "1.3b"])
def test_every_parameter_has_axes(name: str) -> None:
    config = replace(CONFIGS[name], depth=2, target_time=True, text_depth=1)
    with torch.device("meta"):
        wam = WorldActionTransformer(config)
    for parameter, value in wam.named_parameters():
        assert len(axes_of(parameter)) == value.ndim, parameter
    with pytest.raises(ConfigError, match="no axes"):
        axes_of("blocks.0.gate.weight")


# ---- a WorldActionTransformer from a larger one ---------------------------------------------------------------------


def test_with_nothing_removed_it_is_the_teacher_and_shares_no_memory() -> None:
    big = make_student(BIG)[1]
    student, report = inherit(WamSource(big.state_dict(), BIG, BIG), BIG)
    _same(big, student.eval(), 0.0)
    assert not report.fresh and not report.unused and len(report.inherited) == len(list(big.parameters()))
    theirs = {p.untyped_storage().data_ptr() for p in big.parameters()}
    assert not theirs & {p.untyped_storage().data_ptr() for p in student.parameters()}


def test_blocks_that_do_nothing_go_without_a_trace() -> None:
    big = make_student(BIG)[1]
    with torch.no_grad():
        for number in (1, 3):
            for part in (big.blocks[number].o, big.blocks[number].cross_o, big.blocks[number].ffn_out):
                part.weight.zero_()
                part.bias.zero_()
    _same(big, _shrunk(big, replace(BIG, name="shallow", depth=3), blocks=(0, 2, 4)), 1e-5)


def test_hidden_channels_that_do_nothing_go_first_and_without_a_trace() -> None:
    big = make_student(BIG)[1]
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in big.blocks:
            block.ffn_out.weight[:, torch.randperm(BIG.ffn, generator=g)[:40]] = 0.0
    _same(big, _shrunk(big, replace(BIG, name="thin", ffn=BIG.ffn - 40), _importance(big)), 1e-5)


def test_a_head_that_adds_nothing_goes_and_the_others_look_where_they_looked() -> None:
    """Its queries and keys had a part in the RMS-norm of all: the norms are rescaled by what they were on data."""
    wide = replace(BIG, width=64, heads=2)
    big = make_student(wide)[1]
    with torch.no_grad():
        for block in big.blocks:
            for q, o in ((block.q, block.o), (block.k, block.o), (block.cross_q, block.cross_o),
                         (block.cross_k, block.cross_o)):  # fmt: skip
                q.weight[32:], q.bias[32:] = 3.0 * q.weight[:32], 3.0 * q.bias[:32]
                o.weight[:, 32:] = 0.0
    importance = _importance(big)
    assert (importance.heads[:, 1] == 0).all() and (importance.heads[:, 0] > 0).all()
    source = WamSource(big.state_dict(), wide, wide)
    narrow = replace(wide, name="one head", heads=1, width=32)
    student, report = inherit(WamSource(big.state_dict(), wide, narrow), narrow, importance)
    for number, block in enumerate(student.blocks):
        whole = big.blocks[number]
        y = torch.randn(2, 7, 64)
        with torch.no_grad():
            before = whole.norm_q(whole.q(y))[..., :32]
            kept = torch.nn.functional.linear(y, whole.q.weight[:32], whole.q.bias[:32])
            after = block.norm_q(kept)
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert source.size.heads == 2 and len(report.residual) == 32


def test_what_matters_is_kept() -> None:
    big = make_student(BIG)[1]
    with torch.no_grad():
        for number, block in enumerate(big.blocks):
            head = number % BIG.heads
            block.o.weight[:, 16 * head : 16 * (head + 1)] *= 30.0
            block.ffn_out.weight[:, 5 + number] *= 100.0
        big.patch_embed.bias[40], big.future_embed.bias[40], big.action_encoder.bias[40] = 50.0, 50.0, 50.0
    importance = _importance(big)
    assert importance.heads.argmax(1).tolist() == [0, 1, 2, 3, 0]
    assert importance.ffn.argmax(1).tolist() == [5, 6, 7, 8, 9]
    assert importance.residual.argmax() == 40
    assert all(x.shape == (5, 4) for x in (importance.q, importance.k, importance.cross_q, importance.cross_k))


def test_any_smaller_size_runs_and_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    big = make_student(replace(BIG, target_time=True))[1]
    small = replace(TINY, name="small", depth=3, width=36, heads=3, ffn=40, target_time=True, past_frames=1)
    student, report = inherit(WamSource(big.state_dict(), big.config, small), small, _importance(big))
    with torch.no_grad():
        latents, states, past, *rest, _ = _given(student)
        assert all(bool(torch.isfinite(x).all()) for x in
                   student(latents[:, 1:], states[:, 1:], past[:, 1:], *rest, _given(student)[-1]))  # fmt: skip
    assert report.blocks == (0, 2, 4) and len(report.residual) == 36
    assert set(report.inherited) | set(report.fresh) == {name for name, _ in student.named_parameters()}
    assert set(report.inherited.values()) | set(report.unused) == set(big.state_dict())
    assert not report.fresh
    assert set(report.unused) == {name for name in big.state_dict() if name.startswith(("blocks.1.", "blocks.3."))}
    report.write(tmp_path / "inheritance.json")
    assert json.loads((tmp_path / "inheritance.json").read_text())["blocks"] == [0, 2, 4]
    assert "small from big" in report.summary()


def test_another_layout_of_tokens_begins_anew_and_says_so() -> None:
    big = make_student(BIG)[1]
    longer = replace(BIG, name="longer", horizon=20)
    _, report = inherit(WamSource(big.state_dict(), BIG, longer), longer)
    assert set(report.fresh) == {"action_position"} and "(16, 64)" in report.fresh["action_position"]
    assert "differs" in report.unused["action_position"]


def test_what_cannot_be_inherited_is_refused() -> None:
    big = make_student(BIG)[1]
    state = big.state_dict()
    for change in ({"depth": 6}, {"width": 128}, {"ffn": 97}, {"heads": 8}):
        larger = replace(BIG, **change)
        with pytest.raises(ConfigError, match=next(iter(change))):
            inherit(WamSource(state, BIG, larger), larger)
    with pytest.raises(ConfigError, match="predicts"):
        WamSource(state, BIG, replace(BIG, predicts="velocity"))
    thin = replace(BIG, ffn=40)
    with pytest.raises(ConfigError, match="cut blindly"):
        inherit(WamSource(state, BIG, thin), thin)
    state["blocks.2.v.weight"] = state["blocks.2.v.weight"].clone().fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"blocks.2.v.weight is not finite"):
        inherit(WamSource(state, BIG, BIG), BIG)
    with measuring(big.blocks, BIG.heads, WAM_PATHS) as meter:
        pass
    with pytest.raises(ContractError, match="nothing was measured"):
        meter.result()


# ---- a WorldActionTransformer from DreamZero ------------------------------------------------------------------------


def _wan_student(t: TeacherConfig, **change: object) -> StudentConfig:
    """A student of the same size, in Wan's dialect."""
    full = StudentConfig(
        name="student", depth=t.depth, width=t.width, ffn=t.ffn, heads=t.heads, grid=t.latent_grid,
        latent_channels=t.latent_channels, patch=2, future_patch=2, past_frames=1, past_stride=3,
        future_knots=(12, 24), horizon=t.actions_per_block, text_length=10, text_depth=0,
        frequency_width=t.frequency_width, positions="wan", predicts="velocity",
    )  # fmt: skip
    return replace(full, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [TINY_14B, TINY_5B], ids=["14b", "5b"])
def test_with_nothing_removed_every_block_says_what_the_public_teachers_block_says(config: TeacherConfig) -> None:
    teacher = tiny(config)
    wam, _ = inherit(WanSource(teacher.state_dict(), config, _wan_student(config)), _wan_student(config))
    sizes, d = (4, 6, 5), config.width
    n = sum(sizes)
    x, text = draw(1, 1, n, d), draw(2, 1, 9, d)
    modulation = 0.3 * draw(3, 1, 3, 6, d)
    angles = 3.0 * draw(4, n, config.head_width // 2)
    seen = torch.ones(n, n, dtype=torch.bool)
    seen[:4, 4:] = False
    level = Level(torch.zeros(1, 3, d), modulation, torch.arange(3).repeat_interleave(torch.tensor(sizes)))
    levels = Levels(*modulation.split(1, 1)[:2], modulation[:, 2:].expand(-1, 5, -1, -1), sizes)
    bias = torch.zeros(1, 1, n, n).masked_fill(~seen, -1e4)
    for theirs, mine in zip(teacher.blocks, wam.blocks, strict=True):
        context = theirs.cross_attn.context(torch.cat([torch.zeros(1, 257, d), text], 1))
        context = context._replace(image_v=torch.zeros_like(context.image_v))  # the student sees no CLIP
        with torch.no_grad():
            wanted = theirs(x, level, Rotation(angles, torch.float32), masked(seen), context)
            rope = (angles.cos()[:, None], angles.sin()[:, None])
            got, _ = mine(x, levels, rope, None, bias, mine.text_kv(text))
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [TINY_14B, TINY_5B], ids=["14b", "5b"])
def test_patches_noise_levels_and_the_video_head_are_the_public_teachers(config: TeacherConfig) -> None:
    teacher = tiny(config)
    student = _wan_student(config)
    wam, report = inherit(WanSource(teacher.state_dict(), config, student), student)
    latents = draw(5, 1, config.latent_channels, 1, *config.latent_grid)
    first = None
    if config.first_frame_latent:
        first = torch.zeros(1, 4 + config.latent_channels, 1, *config.latent_grid)
    with torch.no_grad():
        wanted, _ = teacher._patches(latents, first)
        tokens = latents[:, :, 0].unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 2, 4, 3, 5, 1).flatten(1, 2)
        torch.testing.assert_close(wam.patch_embed(tokens.flatten(2)), wanted, atol=1e-5, rtol=1e-5)
        time = teacher._level(torch.tensor([[300.0]]), torch.tensor([1]), wanted)
        e, embedding = wam.modulation(torch.tensor([[0.3]]))
        torch.testing.assert_close(e, time.modulation, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(embedding, time.embedding, atol=1e-4, rtol=1e-4)
        f, n = len(student.future_knots), student.future_tokens
        x = draw(6, 1, f * n + student.horizon, config.width)
        noise = draw(7, 1, f, n, 4 * config.latent_channels)
        said, _ = wam.heads(x, embedding.expand(-1, x.shape[1], -1), noise, draw(8, 1, student.horizon, 32))
        wanted = teacher.head(x[:, : f * n], time.embedding, torch.zeros(f * n, dtype=torch.int64))
    torch.testing.assert_close(said.flatten(1, 2), wanted, atol=1e-4, rtol=1e-4)
    assert all(bool((getattr(wam, name) == 0).all()) for name in ("frame_position", "future_position"))
    assert ("patch_embedding.weight" in report.partly) == config.first_frame_latent


def test_a_student_of_the_public_teacher_names_what_it_could_not_take() -> None:
    config = TINY_14B
    teacher = tiny(config)
    with measuring(teacher.blocks, config.heads, WAN_PATHS) as meter:
        _pass(teacher, config)
    student = _wan_student(config, depth=2, width=48, heads=3, ffn=100)
    wam, report = inherit(WanSource(teacher.state_dict(), config, student), student, meter.result())
    assert report.blocks == (0, 2)
    assert set(report.inherited) | set(report.fresh) == {name for name, _ in wam.named_parameters()}
    assert set(report.inherited.values()) | set(report.unused) == set(teacher.state_dict())
    assert {name.split(".")[0] for name in report.fresh} == {
        "text", "state_encoder", "action_encoder", "action_head", "frame_position", "future_position", "action_position"
    }
    assert report.unused["img_emb.proj.1.weight"] == report.unused["blocks.0.cross_attn.k_img.weight"]
    assert report.unused["blocks.1.ffn.0.weight"] == "block 1 is not kept"
    assert "first frame" in report.partly["patch_embedding.weight"]
    other = replace(student, latent_channels=48)
    _, report = inherit(WanSource(teacher.state_dict(), config, other), other, meter.result())
    assert "16 channels" in report.fresh["video_head.weight"] and "16" in report.unused["patch_embedding.weight"]
    with pytest.raises(ConfigError, match="positions"):
        WanSource(teacher.state_dict(), config, replace(student, positions="cells"))


def _pass(teacher: DreamZero, config: TeacherConfig) -> None:
    with torch.no_grad():
        teacher(Clip(**inputs(config, 1)))
