"""What the memory arithmetic counts is what is there."""

from __future__ import annotations

import pytest
import torch

from distill.memory import STATE_BYTES, need, shape_of
from distill.models.config import CONFIGS
from distill.models.wam import WorldActionTransformer
from edge_wam.errors import ConfigError


def test_state_is_shared_out_and_a_block_is_gathered_twice() -> None:
    shape = shape_of("nano")
    real = WorldActionTransformer(CONFIGS["nano"])
    block = sum(p.numel() for p in real.blocks[0].parameters())
    assert shape.parameters == sum(p.numel() for p in real.parameters())
    assert shape.largest_block == block and shape.outside == shape.parameters - 5 * block
    one, eight = need(shape, 1, 2), need(shape, 8, 2)
    assert one.state == STATE_BYTES * shape.parameters and one.gathered == 0
    assert eight.state == STATE_BYTES * -(-shape.parameters // 8)
    assert eight.gathered == 4 * (2 * block + shape.outside)
    assert one.activations == eight.activations == 2 * need(shape, 1, 1).activations


def test_recomputation_keeps_the_inputs_and_one_block() -> None:
    shape = shape_of("nano")
    assert need(shape, 1, 1).activations == 5 * shape.tokens * 128 * 2 + shape.saved
    assert need(shape, 1, 1, recompute=False).activations == 5 * shape.saved


def test_saved_bytes_are_those_of_a_real_block() -> None:
    """Every tensor between the operations of a block, at least once, and no square of scores for the teacher."""
    shape, d = shape_of("nano"), 128
    tokens = shape.tokens
    hidden = 2 * tokens * 512 * 2  # before and after the GELU
    scores = 4 * tokens * tokens * 2
    assert hidden + scores + 6 * tokens * d * 2 < shape.saved < 3 * (hidden + scores) + 40 * tokens * d * 2
    large = shape_of("teacher-5b")
    assert large.saved < 24 * large.tokens**2 * 2 + 200 * large.tokens * 3072 * 2


def test_the_public_teachers_are_counted_to_the_last_number() -> None:
    assert shape_of("teacher-5b").parameters == 5_606_692_832
    with pytest.raises(ConfigError, match="unknown model '14'"):
        shape_of("14")
    assert torch.get_default_device().type == "cpu", "counting leaves nothing behind"
