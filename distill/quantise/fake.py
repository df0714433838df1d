"""INT8 in float32, so that a gradient can pass: what quantisation-aware distillation trains is what is exported.

Rounding has no slope; the straight-through estimator gives it 1 inside the range and 0 where a value is clipped
(Bengio et al. 2013). Weights have the scale of their largest magnitude, channel by channel, at every step; activations
keep the scales that they were calibrated to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.models.wam import WorldActionTransformer
from distill.quantise.graph import SMALLEST_SCALE
from edge_wam.errors import ContractError

_PREFIX = "wam."


def straight_through(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """x on the grid of ``scale`` between ``low`` and ``high`` codes, with the slope of clipping alone."""
    inside = torch.minimum(torch.maximum(x, low * scale), high * scale)
    return inside + ((inside / scale).round() * scale - inside).detach()


class QuantisedLinear(nn.Linear):
    """A linear layer that multiplies what INT8 would. ``activation_scale`` [] is no part of its saved state."""

    activation_scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight.detach().abs().amax(1, keepdim=True) / 127.0).clamp_min(SMALLEST_SCALE)
        weight = straight_through(self.weight, scale, -127, 127)
        return F.linear(straight_through(x, self.activation_scale, -128, 127), weight, self.bias)


def scales_of(nodes: Sequence[onnx.NodeProto], clip: Mapping[str, float]) -> dict[str, float]:
    """Activation scale by the name of the linear layer, from the step graph's products and where they are clipped."""
    return {node.name.removeprefix(_PREFIX): clip[node.input[0]] / 127.0 for node in nodes}


def quantise_in_place(wam: WorldActionTransformer, scales: Mapping[str, float]) -> None:
    """Let the named linear layers compute as INT8 from now on. Parameters and their names stay the same.

    Raises:
        ContractError: there is no linear layer of that name.
    """
    layers = dict(wam.named_modules())
    for name, scale in scales.items():
        layer = layers.get(name)
        if type(layer) is not nn.Linear:
            raise ContractError(f"{name!r} is no linear layer of {wam.config.name}", expected="one that is float")
        layer.__class__ = QuantisedLinear
        layer.register_buffer("activation_scale", layer.weight.new_tensor(scale), persistent=False)


def float_in_place(wam: WorldActionTransformer) -> None:
    """Undo :func:`quantise_in_place`: the trained weights stay."""
    for layer in wam.modules():
        if isinstance(layer, QuantisedLinear):
            del layer.activation_scale
            layer.__class__ = nn.Linear
