"""SmoothQuant, folded: outlier channels of activations are divided out where the operation before them can absorb it.

``s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)`` (Xiao et al. 2023); the activation is divided by s, the weight's column
multiplied. Nothing is left at run time, because of what stands before each product:

==========  ==================  ==========================================================================
kind        products            absorbed by
==========  ==================  ==========================================================================
self_in     q, k, v             AdaLN: (1 + scale) / s and shift / s, through ``Block.level_gain``
self_out    o                   v's rows: attention is linear in its values; cached values are scaled alike
cross_in    cross_q             the affine layer norm before it
cross_out   cross_o             cross_v's rows, in the text graph
ffn_in      ffn_in              AdaLN, as above
==========  ==================  ==========================================================================

``ffn_out`` is not in the table: GELU stands before it, and GELU(x) / s is no GELU of anything.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.export import Way, step_arguments
from distill.models.layers import Block
from distill.models.wam import WorldActionTransformer
from distill.quantise.graph import PERCENTILE, Feed
from edge_wam.errors import ContractError

KINDS: dict[str, tuple[str, ...]] = {
    "self_in": ("q", "k", "v"), "self_out": ("o",), "cross_in": ("cross_q",), "cross_out": ("cross_o",),
    "ffn_in": ("ffn_in",),
}  # fmt: skip
ALPHAS = (0.5, 0.65, 0.8)
ROWS = 512
"""Tokens kept of every product's input to compare exponents on."""
BOUNDS = (1e-2, 1e2)
"""Of s, whose geometric mean is 1: cached values must not leave the range of half precision."""


@dataclass
class Seen:
    """What entered one product: largest magnitude of every channel [in] and a sample of tokens [n, in]."""

    peak: Tensor
    rows: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Choice:
    """Exponent of one kind of product (None: left as it is), and the relative output error of every candidate."""

    kind: str
    alpha: float | None
    errors: dict[str, float]


@dataclass(frozen=True)
class Smoothed:
    """A transformer that computes what it did before, with the choices that were made.

    Attributes:
        value_scale, cross_scale: what cached values were divided by, [L, d]; ones where nothing was folded.
    """

    wam: WorldActionTransformer
    choices: tuple[Choice, ...]
    value_scale: Tensor
    cross_scale: Tensor

    def feed(self, feed: Feed) -> dict[str, NDArray[np.generic]]:
        """Inputs that the unsmoothed student was given, as this one would have been given them."""
        out = dict(feed)
        for name, scale in (("past_kv", self.value_scale), ("cross_kv", self.cross_scale)):
            values = np.array(feed[name], np.float32)
            values[:, 1] /= scale.numpy()[:, None]
            out[name] = values
        return out


@torch.no_grad()
def see(
    wam: WorldActionTransformer, feeds: Sequence[Feed], blocks: Iterable[int], way: Way | None = None
) -> dict[tuple[int, str], Seen]:
    """Run the student on ``feeds`` and watch the inputs of every kind of product in ``blocks``."""
    out: dict[tuple[int, str], Seen] = {}
    each = max(1, ROWS // max(1, len(feeds)))

    def watch(place: tuple[int, str]) -> object:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0].flatten(0, -2)
            peak = x.abs().amax(0)
            if not torch.isfinite(peak).all():
                raise ContractError("calibration met a number that is none", expected="finite activations")
            seen = out.setdefault(place, Seen(torch.zeros_like(peak)))
            seen.peak = torch.maximum(seen.peak, peak)
            seen.rows.append(x[:: max(1, len(x) // each)][:each].clone())

        return hook

    hooks = [
        getattr(wam.blocks[block], names[0]).register_forward_pre_hook(watch((block, kind)))
        for block in blocks for kind, names in KINDS.items()
    ]  # fmt: skip
    try:
        for feed in feeds:
            wam.step(*step_arguments(feed, wam.config, way), target=(way or Way()).target)
    finally:
        for hook in hooks:
            hook.remove()
    return out


def factors(peak: Tensor, weights: Sequence[Tensor], alpha: float) -> Tensor:
    """s [in] of geometric mean 1 for products that share an input; weights [out, in]."""
    most = torch.stack([w.abs().amax(0) for w in weights]).amax(0)
    raw = peak.clamp_min(1e-5) ** alpha / most.clamp_min(1e-5) ** (1.0 - alpha)
    return (raw / raw.log().mean().exp()).clamp(*BOUNDS)


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    return (x / scale).round().clamp(-128, 127) * scale


def output_error(rows: Tensor, weights: Sequence[Tensor], s: Tensor | None) -> float:
    """Squared error of the INT8 products relative to the float ones', over rows [n, in] and weights [out, in]."""
    x = rows if s is None else rows / s
    clip = torch.quantile(x.abs().flatten().double(), PERCENTILE / 100.0).float().clamp_min(1e-6)
    x = _rounded(x, clip / 127)
    wrong = power = 0.0
    for weight in weights:
        w = weight if s is None else weight * s
        w = _rounded(w, w.abs().amax(1, keepdim=True).clamp_min(1e-9) / 127)
        exact = rows @ weight.T
        wrong += float((x @ w.T - exact).square().sum())
        power += float(exact.square().sum())
    return wrong / max(power, 1e-30)


@torch.no_grad()
def fold(block: Block, kind: str, s: Tensor) -> None:
    """Divide the input of ``kind``'s products by s [in] and multiply their weights, so that nothing changes."""
    if kind in {"self_in", "ffn_in"}:
        shift, scale = (0, 1) if kind == "self_in" else (3, 4)
        if block.level_gain is None:
            block.level_gain = torch.ones_like(block.modulation)
        block.level_gain[[shift, scale]] /= s
        block.modulation[shift] /= s
        block.modulation[scale] = (1.0 + block.modulation[scale]) / s - 1.0
    elif kind == "cross_in":
        block.norm3.weight /= s
        block.norm3.bias /= s
    else:
        values = block.v if kind == "self_out" else block.cross_v
        values.weight /= s[:, None]
        values.bias /= s
    for name in KINDS[kind]:
        getattr(block, name).weight *= s


@torch.no_grad()
def smooth(
    wam: WorldActionTransformer, feeds: Sequence[Feed], blocks: Sequence[int], alphas: Sequence[float] = ALPHAS,
    way: Way | None = None,
) -> Smoothed:  # fmt: skip
    """A smoothed copy of ``wam``: for every kind the exponent with the least output error over all ``blocks``.

    Args:
        feeds: inputs of the step graph from the student's own episodes.
        blocks: those that will be quantised; the others keep their weights.

    Raises:
        ContractError: no feeds, or an activation that is no number.
    """
    if not feeds:
        raise ContractError("nothing to calibrate on", expected="inputs from the student's own episodes")
    seen = see(wam, feeds, blocks, way) if alphas else {}
    out = copy.deepcopy(wam)
    scales = {kind: torch.ones(wam.config.depth, wam.config.width) for kind in ("self_out", "cross_out")}
    choices = []
    for kind, names in KINDS.items():
        if not alphas:
            choices.append(Choice(kind, None, {}))
            continue
        candidates: dict[float | None, float] = {}
        made: dict[tuple[int, float], Tensor] = {}
        for alpha in (None, *alphas):
            total = 0.0
            for block in blocks:
                weights = [getattr(wam.blocks[block], name).weight for name in names]
                rows = torch.cat(seen[block, kind].rows)
                s = None if alpha is None else factors(seen[block, kind].peak, weights, alpha)
                if s is not None:
                    made[block, alpha] = s  # type: ignore[index]
                total += output_error(rows, weights, s)
            candidates[alpha] = total / len(blocks)
        best = min(candidates, key=lambda a: candidates[a])
        choices.append(Choice(kind, best, {str(a): e for a, e in candidates.items()}))
        if best is None:
            continue
        for block in blocks:
            fold(out.blocks[block], kind, made[block, best])  # type: ignore[arg-type]
            if kind in scales:
                scales[kind][block] = made[block, best]
    return Smoothed(out, tuple(choices), scales["self_out"], scales["cross_out"])
