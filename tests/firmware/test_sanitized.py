"""The in-process tests once more, the core under the address and undefined-behaviour sanitizers of the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge.mcu import build as mcu_build
from tests.firmware import coverage

FLAGS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
# Bytes from outside, and what they become. Motion is fuzzed under the same sanitizers (test_fuzz.py, tests/proof), and
# all tests would take two minutes of a processor here.
TESTS = (
    "firmware/test_commands.py", "firmware/test_found_by_fuzzing.py", "firmware/test_frame.py",
    "firmware/test_latches.py", "firmware/test_splice.py", "firmware/test_states.py", "firmware/test_supervision.py",
    "can/test_segments.py",
)  # fmt: skip
BEYOND = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.ew_cobs_decode(b"\\xC9" * 201 * 6, 201 * 6, ctypes.create_string_buffer(1000), 1200)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sanitized") / "libedgewam_mcu.so"
    subprocess.run(mcu_build.command("lib", path, *FLAGS), check=True)
    return path


def _child(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the sanitizer's allocator, which must be loaded before any other. An interpreter leaks by design."""
    runtime = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = {**os.environ, "LD_PRELOAD": runtime.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run([sys.executable, "-c", program, *arguments], cwd=coverage.ROOT, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_the_sanitizer_looks(library: Path) -> None:
    """1200 bytes into a buffer of 1000: beyond the sizes for which Python has an allocator of its own."""
    run = _child(BEYOND, str(library))
    assert run.returncode != 0 and "heap-buffer-overflow" in run.stderr and "ew_cobs_decode" in run.stderr


def test_no_test_of_the_core_makes_it_leave_its_memory_or_the_language(library: Path) -> None:
    tests = [str(coverage.ROOT / "tests" / name) for name in TESTS]
    run = _child(coverage._CHILD, str(library), *tests, "--capture=no")
    assert run.returncode == 0, (run.stdout[-2000:] + run.stderr)[-6000:]
