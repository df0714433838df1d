"""Whatever a signed manifest says, loading it ends in a policy or in a refusal of ours, never in another exception."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_wam.errors import BundleError
from edge_wam.policy import Policy
from tests.support.resign import resign
from tests.support.tiny_bundle import open_tiny_bundle

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.sampled_from(["../x", "manifest.json", "signature", "", "graphs", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, item in inner for place in _places(item, (*path, key))]


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_edit_of_a_signed_manifest_opens_or_is_refused(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    manifest = json.loads((pristine / "manifest.json").read_bytes())
    place = data.draw(st.sampled_from(_places(manifest)))
    action = data.draw(st.sampled_from(["replace", "remove", "add"]))
    value = data.draw(_VALUES)

    def edit(inside: Any) -> None:
        for key in place[:-1]:
            inside = inside[key]
        if action == "remove":
            del inside[place[-1]]
        elif action == "add" and isinstance(inside, dict):
            inside[data.draw(st.text(max_size=8))] = value
        else:
            inside[place[-1]] = value

    copy = tmp_path_factory.mktemp("fuzz") / "tiny.wam"
    try:
        shutil.copytree(pristine, copy)
        resign(copy, edit)
        Policy(open_tiny_bundle(copy))
    except BundleError:
        pass
    finally:
        shutil.rmtree(copy.parent)
