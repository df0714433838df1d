from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle that no test may change."""
    return make_tiny_bundle(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def bundle_dir(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "tiny.wam"))
