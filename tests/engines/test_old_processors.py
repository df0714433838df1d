"""On an x86 without VNNI integer products must be as exact as here. Such a processor is emulated: few have one left."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_wam.engines.onnx_cpu import best_encoding

ROOT = Path(__file__).parents[2]
# Codes of both signs at random: on a saturating processor the mixed encoding is off by tens of thousands.
_PROGRAM = """
import json, sys
sys.path.insert(0, {root!r})
import numpy as np
from edge_wam.engines.onnx_cpu import best_encoding
from tests.engines.test_requantise import linear, run
random = np.random.default_rng(0)
codes = random.integers(-127, 128, (96, 64)).astype(np.int8)
x = random.integers(-128, 128, (33, 96)).astype(np.float32)
exact = (x.astype(np.int64) @ codes.astype(np.int64)).astype(np.float32)
model = linear(codes, np.ones(64, np.float32), 1.0, rows=33)
off = {{name: float(np.abs(run(model, x, encoding=name) - exact).max()) for name in ("u8s8", "u8u8", None)}}
print(json.dumps([best_encoding(), off["u8s8"], off["u8u8"], off[None]]))
"""


def test_a_processor_that_saturates_is_found_out_and_served_exactly() -> None:
    if platform.machine() != "x86_64":  # nothing to find out: the signed kernels are used
        assert best_encoding() == "s8s8"
        return
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not installed (Debian package qemu-user)")
    command = [emulator, "-cpu", "Haswell", sys.executable, "-c", _PROGRAM.format(root=str(ROOT))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr
    chosen, mixed_off, unsigned_off, used_off = json.loads(ran.stdout.splitlines()[-1])
    assert mixed_off > 1000  # the emulated processor does saturate: the test tests something
    assert chosen == "u8u8"
    assert unsigned_off == used_off == 0.0
