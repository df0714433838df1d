"""Stands for torchvision, whose compiled part fits one version of torch only: what LeRobot's reader calls of it.

Video goes through PyAV, as torchvision's own ``pyav`` backend does; the transforms are names without a body.
"""

from __future__ import annotations

from torchvision import io, transforms

__all__ = ["io", "set_video_backend", "transforms"]


def set_video_backend(name: str) -> None:
    assert name == "pyav", name
