"""Flow matching: squares lead to the mean of what a label may be, Charbonnier to its median."""

import torch
from torch import Tensor

from distill.batch import Batch, Noise
from distill.losses.flow_matching import FlowMatching, FlowMatchingWeights


class Constant:
    """Answers every sample with one velocity: label 0 taken from noise, minus what it has learnt."""

    def __init__(self) -> None:
        self.learnt = torch.zeros((), requires_grad=True)

    def text_kv(self, tokens: Tensor) -> Tensor:
        return tokens

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        _, _, _, video, action, *_ = inputs
        return video, action - self.learnt


def sample(labels: Tensor) -> tuple[Batch, Noise]:
    """One knot each, all at noise level 1."""
    n = len(labels)
    ones, none = torch.ones(n), torch.zeros(n, dtype=torch.int64)
    action = torch.zeros(n, 1, 32) + labels[:, None, None]
    batch = Batch(
        latents=torch.zeros(n, 1, 2, 3), states=torch.zeros(n, 1, 64), past_mask=torch.ones(n, 0), action=action,
        action_mask=torch.ones_like(action), video=torch.zeros(n, 1, 2, 3), video_mask=torch.ones(n, 1), tokens=none,
        source=none, index=none,
    )  # fmt: skip
    noise = Noise(ones, ones, torch.randn(n, 1, 2, 3), torch.randn(n, 1, 32), torch.zeros(n, 1))
    return batch, noise


def learnt(kind: str) -> float:
    """What a constant learns where 60 % of the labels are 0 and 40 % are 1."""
    batch, noise = sample(torch.tensor([0.0] * 6 + [1.0] * 4))
    model, objective = Constant(), FlowMatching(FlowMatchingWeights.model_validate({"action": kind}), 100.0)
    optimiser = torch.optim.Adam([model.learnt], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        objective.loss(model, batch, noise, 0)["total"].backward()  # type: ignore[arg-type]
        optimiser.step()
    return float(model.learnt.detach())


def test_squares_lead_to_the_mean_and_charbonnier_to_the_median() -> None:
    assert abs(learnt("squared") - 0.4) < 0.01
    assert abs(learnt("charbonnier")) < 0.05
