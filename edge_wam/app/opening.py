"""From a run configuration to a verified bundle: the first step of nearly every command."""

from __future__ import annotations

from pathlib import Path

import edge_wam
from edge_wam.bundle import Bundle, TrustStore, open_bundle
from edge_wam.config import RunConfig, load_config
from edge_wam.embodiment import load_embodiment
from edge_wam.errors import ConfigError

CHECKOUT = Path(edge_wam.__file__).resolve().parents[1]
DEMO_CONFIG = CHECKOUT / "robots" / "demo.toml"


def open_config(path: Path, *, bundle: Path | None = None, mcu: str | None = None) -> RunConfig:
    """Read a run configuration; ``bundle`` and ``mcu`` (``auto``, ``qemu``, ``host``) replace what is in it.

    Raises:
        ConfigError: refused by name.
    """
    config = load_config(path)
    if bundle is not None:
        config = config.model_copy(update={"bundle": bundle.resolve()})
    if mcu is not None:
        config = config.model_copy(update={"link": config.link.model_copy(update={"emulator": mcu})})
    return config


def open_configured_bundle(config: RunConfig) -> Bundle:
    """Verify the configuration's bundle against its robot and its trusted keys.

    Raises:
        BundleError, ConfigError: refused by name.
    """
    trust = TrustStore.load(config.trusted_keys, allow_demo_key=config.allow_demo_key)
    bundle = open_bundle(config.bundle, trust=trust, embodiment=load_embodiment(config.robot))
    if config.monitor.surprise_limit is not None and not bundle.manifest.model.future_knots:
        raise ConfigError(
            f"monitor.surprise_limit is set, and {config.bundle.name} imagines nothing that could be compared",
            expected="a bundle that imagines frames, or no limit",
            remedy="use the joint export, or take surprise_limit out knowing that nothing watches for surprise",
        )
    return bundle
