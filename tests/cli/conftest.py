from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import write_config
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle that knows nothing."""
    return make_tiny_bundle(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def config(tmp_path: Path, tiny: Path) -> Path:
    return write_config(tmp_path, tiny)
