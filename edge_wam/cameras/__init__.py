"""Cameras: a grabber per device, and the loop that stamps its images and puts them into a shared ring."""

from __future__ import annotations

from edge_wam.cameras.capture import capture_loop

__all__ = ["capture_loop"]
