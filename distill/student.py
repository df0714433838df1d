"""A student as a training run leaves it: codec and transformer side by side in one folder."""

from __future__ import annotations

from pathlib import Path

from distill.checkpoint import load_checkpoint
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.shape import read_shape
from edge_wam.errors import ConfigError

CODEC_FILE = "codec.pt"
WAM_FILE = "wam.pt"


def load_codec(run: Path, config: StudentConfig) -> FrameCodec:
    """The trained codec of a run.

    Raises:
        ConfigError: there is none yet, or it has another size.
    """
    codec = FrameCodec(config)
    if not load_checkpoint(run / CODEC_FILE, {"codec": codec}):
        raise ConfigError(f"{run / CODEC_FILE} does not exist", remedy="train it first: edge-wam distill codec")
    return codec.eval()


def load_wam(run: Path, config: StudentConfig) -> tuple[WorldActionTransformer, int]:
    """The averaged weights of a run as last saved, and the step they were saved at.

    Args:
        config: its size, where the run directory does not say.

    Raises:
        ConfigError: there are none yet, or they have another size.
    """
    wam = WorldActionTransformer(read_shape(run, config))
    step = load_checkpoint(run / WAM_FILE, {"wam": wam})
    if not step:
        raise ConfigError(f"{run / WAM_FILE} does not exist", remedy="train it first: edge-wam distill pretrain")
    wam.eval()
    return wam, step
