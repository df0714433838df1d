"""Which heads and channels matter, measured while a model runs on data.

heads: mean of |o_h attn_h|, what a head adds to the residual stream; hidden channels: mean |activation| times the norm
of the column that reads it; residual channels: mean |h|, added up over the blocks. Mean squares of queries and keys by
head come along, because RMS-norm over the whole width changes its scale when heads go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from edge_wam.errors import ContractError

WAM_PATHS = {"o": "o", "cross_o": "cross_o", "ffn_out": "ffn_out", "q": "q", "k": "k", "cross_q": "cross_q",
             "cross_k": "cross_k"}  # fmt: skip
"""Where a WorldActionTransformer's block keeps what is measured."""
WAN_PATHS = {"o": "self_attn.o", "cross_o": "cross_attn.o", "ffn_out": "ffn.2", "q": "self_attn.q", "k": "self_attn.k",
             "cross_q": "cross_attn.q", "cross_k": "cross_attn.k"}  # fmt: skip
"""The same of DreamZero's."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Means over all tokens of all passes, float64.

    Attributes:
        residual: [d]. heads, cross_heads: [L, heads]. ffn: [L, ffn].
        q, k, cross_q, cross_k: mean squares before RMS-norm [L, heads].
    """

    residual: Tensor
    heads: Tensor
    cross_heads: Tensor
    ffn: Tensor
    q: Tensor
    k: Tensor
    cross_q: Tensor
    cross_k: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            if not bool(torch.isfinite(getattr(self, field.name)).all()):
                raise ContractError(f"importance of {field.name} is not finite", remedy="check the teacher's weights")


class Meter:
    """Running sums of one measurement; :meth:`result` once passes have run."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._tokens: dict[tuple[str, int], int] = {}

    def add(self, what: str, block: int, values: Tensor) -> None:
        """Values [..., n], one row for each token."""
        rows = values.detach().flatten(0, -2)
        key = (what, block)
        total = rows.sum(0, dtype=torch.float64).cpu()
        self._sums[key] = self._sums[key] + total if key in self._sums else total
        self._tokens[key] = self._tokens.get(key, 0) + len(rows)

    def result(self) -> Importance:
        """Raises ContractError when nothing ran."""
        if not self._sums:
            raise ContractError("nothing was measured", expected="at least one pass of the model")

        def mean(what: str) -> Tensor:
            return torch.stack([self._sums[what, i] / self._tokens[what, i] for i in range(self._depth)])

        return Importance(mean("residual").sum(0), *(mean(f.name) for f in fields(Importance)[1:]))


@contextmanager
def measuring(blocks: nn.ModuleList, heads: int, paths: dict[str, str]) -> Iterator[Meter]:
    """Measure every pass that runs inside the ``with``."""
    meter = Meter(len(blocks))
    hooks: list[Any] = []

    def before(module: nn.Module, use: Callable[[Tensor], None]) -> None:
        hooks.append(module.register_forward_pre_hook(lambda _m, given: use(given[0])))

    def after(module: nn.Module, use: Callable[[Tensor], None]) -> None:
        hooks.append(module.register_forward_hook(lambda _m, _g, out: use(out[0] if isinstance(out, tuple) else out)))

    try:
        for number, block in enumerate(blocks):
            part = {name: block.get_submodule(path) for name, path in paths.items()}
            after(block, lambda x, i=number: meter.add("residual", i, x.abs()))  # type: ignore[misc]
            for what, name in (("heads", "o"), ("cross_heads", "cross_o")):
                before(part[name], _head_norms(meter, what, number, part[name], heads))
            column = part["ffn_out"].weight.detach().double().norm(dim=0)  # type: ignore[operator]
            before(part["ffn_out"], _column_norms(meter, number, column))
            for name in ("q", "k", "cross_q", "cross_k"):
                after(part[name], _squares(meter, name, number, heads))
        yield meter
    finally:
        for hook in hooks:
            hook.remove()


def _head_norms(meter: Meter, what: str, block: int, out: nn.Module, heads: int) -> Callable[[Tensor], None]:
    weight = out.weight.detach().float().unflatten(1, (heads, -1))  # type: ignore[operator]
    gram = torch.einsum("dhe,dhf->hef", weight, weight)  # |W_h a|^2 = a^T (W_h^T W_h) a: no d-vector per head

    def use(x: Tensor) -> None:
        a = x.float().unflatten(-1, (heads, -1))
        square = torch.einsum("...he,hef,...hf->...h", a, gram.to(a.device), a)
        meter.add(what, block, square.clamp_min(0.0).sqrt())

    return use


def _column_norms(meter: Meter, block: int, column: Tensor) -> Callable[[Tensor], None]:
    return lambda x: meter.add("ffn", block, x.abs().double() * column.to(x.device))


def _squares(meter: Meter, what: str, block: int, heads: int) -> Callable[[Tensor], None]:
    return lambda x: meter.add(what, block, x.float().unflatten(-1, (heads, -1)).square().mean(-1))
