"""Who may look at whom in a teacher-forced clip."""

from __future__ import annotations

import warnings

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from distill.teacher.dit import Clip
from distill.teacher.layers import dense
from distill.teacher.layout import Role, TokenLayout
from tests.teacher.tiny import TINY_14B, draw, inputs, tiny

LAYOUTS = st.builds(
    lambda blocks, tokens, per_block, registers, window, sees: TokenLayout(
        1 + blocks * per_block, tokens, per_block, *registers, window, sees
    ),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from([(0, 0), (3, 1), (4, 2)]),
    st.integers(1, 12), st.booleans(),
)  # fmt: skip


@given(LAYOUTS)
@settings(max_examples=60, deadline=None)
def test_the_dense_mask_says_what_the_table_says(layout: TokenLayout) -> None:
    role, block, frame = (part.tolist() for part in layout.places())
    mask = layout.dense_mask()
    assert len(role) == layout.length == len(mask)
    for q in range(layout.length):
        for k in range(layout.length):
            own_block = block[q] == block[k]
            if role[q] == Role.CLEAN:
                first_in_window = 1 + (block[q] + 1) * layout.frames_per_block - layout.window_frames
                seen = role[k] == Role.CLEAN and block[k] <= block[q] and (frame[k] == 0 or frame[k] >= first_in_window)
            elif role[q] == Role.STATE and not layout.state_sees_block:
                seen = role[k] == Role.STATE and own_block
            else:
                seen = block[k] < block[q] if role[k] == Role.CLEAN else own_block
            assert bool(mask[q, k]) == seen, (q, k)


@given(LAYOUTS)
@settings(max_examples=40, deadline=None)
def test_nobody_sees_the_answer_and_everybody_sees_something(layout: TokenLayout) -> None:
    role, block, _ = layout.places()
    mask = layout.dense_mask()
    assert mask.any(1).all()
    noisy, clean = role != Role.CLEAN, role == Role.CLEAN
    answer = noisy[:, None] & clean[None] & (block[:, None] <= block[None])
    assert not (mask & answer).any()
    future = block[:, None] < block[None]
    assert not (mask & future).any()


def test_flex_attention_computes_what_the_dense_mask_computes() -> None:
    layout = TokenLayout(5, 4, 2, 3, 1, 5)
    q, k, v = (draw(seed, 1, layout.length, 2, 16) for seed in range(3))
    parts = [t.transpose(1, 2) for t in (q, k, v)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # uncompiled it is slow, which is no matter here
        flexible = flex_attention(*parts, block_mask=layout.block_mask("cpu"))
    assert isinstance(flexible, torch.Tensor)
    torch.testing.assert_close(flexible.transpose(1, 2), dense(q, k, v, layout.dense_mask()))


def test_video_without_actions_is_trained_and_does_not_see_its_own_answer() -> None:
    model, clip = tiny(TINY_14B), inputs(TINY_14B, 2)
    without = {key: value for key, value in clip.items() if key not in ("actions", "action_time", "states")}
    with torch.no_grad():
        video, action = model(Clip(**without))
        assert action is None
        changed = dict(without, clean=without["clean"].clone())
        changed["clean"][:, :, -2:] += 1.0  # the answer of the last block
        torch.testing.assert_close(model(Clip(**changed))[0], video, rtol=0, atol=0)
        changed["clean"][:, :, 0] += 1.0  # what it may see
        assert (model(Clip(**changed))[0] - video).abs().max() > 1e-3


def test_activation_checkpoints_change_no_gradient() -> None:
    model, gradients = tiny(TINY_14B), []
    for checkpointed in (True, False):
        model.zero_grad()
        model.checkpoint_activations = checkpointed
        video, action = model(Clip(**inputs(TINY_14B, 1)))
        assert action is not None
        (video.square().mean() + action.square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])
        assert gradient.abs().max() > 0, name  # nothing of the network is left out of training
