"""What stays float32: embeddings, the noise level's path, the heads, and the first and last blocks.

By depth and never by number: a list written for a teacher of 40 blocks leaves the last three of a student of 30
quantised without a word (reference: the fixed block numbers in the public tool's filter for Wan).
"""

from __future__ import annotations

from distill.models.config import StudentConfig
from edge_wam.errors import ConfigError

ALWAYS = (
    "patch_embed", "future_embed", "state_encoder", "action_encoder", "time_embed", "time_project", "time_jump",
    "video_head", "action_head",
)  # fmt: skip
"""Parts of weights' names."""
MOST_BLOCKS = 3


def edge_blocks(depth: int) -> int:
    """How many blocks stay float at either end: a tenth of the depth, at least one and at most three."""
    return max(1, min(MOST_BLOCKS, round(depth / 10)))


def keep_float(config: StudentConfig, edge: int | None = None, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Weights that stay float32, by parts of their names.

    Args:
        edge: blocks at either end; by default :func:`edge_blocks`. 0 quantises all blocks.
        more: what a sensitivity scan has put back.

    Raises:
        ConfigError: the ends meet: nothing would be quantised.
    """
    ends = edge_blocks(config.depth) if edge is None else edge
    if ends < 0 or 2 * ends >= config.depth:
        raise ConfigError(
            f"{ends} blocks at either end of {config.depth} stay float", expected=f"0..{(config.depth - 1) // 2}"
        )
    blocks = [*range(ends), *range(config.depth - ends, config.depth)]
    return (*ALWAYS, *(f"blocks.{block}." for block in blocks), *more)
