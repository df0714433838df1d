"""MuJoCo, told how to draw before it is imported: in one process the first import decides for all."""

from __future__ import annotations

import os
from typing import Any

from edge_wam.errors import ConfigError


def load_mujoco() -> Any:
    """The module.

    MuJoCo reads ``MUJOCO_GL`` when it is imported, Mesa reads ``LP_NUM_THREADS`` when a context is made, and neither
    can be told in another way. EGL draws off screen, with or without a display, so that every machine takes the same
    path; one thread, because two pictures of 128x128 do not pay for more and the control loop needs the other core.
    Whoever has set them already is obeyed. What draws nothing (the arm of the bench) chooses the same: a world may
    come after it in its process.

    Raises:
        ConfigError: the simulator is not installed, or there is no EGL.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    try:
        import mujoco
    except (ImportError, AttributeError) as error:  # PyOpenGL without libEGL fails with an AttributeError
        raise cannot_load(error) from error
    return mujoco


def cannot_load(error: Exception) -> ConfigError:
    """What is said of a simulator that does not load."""
    return ConfigError(
        f"the simulator cannot be loaded: {error}",
        expected="the packages of the extra 'sim' and libEGL (packages.txt)",
        remedy="run: make setup",
    )
