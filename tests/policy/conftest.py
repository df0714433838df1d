from __future__ import annotations

from pathlib import Path

import pytest

from edge_wam.bundle import Bundle
from tests.support.tiny_bundle import make_tiny_bundle, open_tiny_bundle


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return open_tiny_bundle(bundle_dir)
