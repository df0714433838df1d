"""``ToTensor`` for pictures that lie in tables; the augmentations are in ``v2``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torchvision.transforms import v2

__all__ = ["ToTensor", "v2"]


class ToTensor:
    """[h, w, 3] bytes -> [3, h, w] float32 in [0, 1]."""

    def __call__(self, image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
