"""Builds an environment for each of LeRobot's dataset versions and runs the comparison in it.

LeRobot wants an older torch and a torchvision that fits it. The environments use this project's torch, numpy and
pyarrow through a path file instead, and a stub for torchvision; LeRobot itself is installed without its dependencies,
and what its reader and writer import of them is listed here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMON = (
    "av>=15,<16", "huggingface-hub>=0.34.2,<0.36", "draccus==0.10.0", "jsonlines>=4,<5", "einops>=0.8,<0.9",
    "opencv-python-headless>=4.9,<6", "deepdiff>=8,<10", "termcolor>=2.4,<4", "packaging>=24.2,<26",
)  # fmt: skip
ENVIRONMENTS = {
    "v3.0": ("lerobot==0.4.4", "datasets>=4,<5", "accelerate>=1.10,<2", *COMMON),
    "v2.1": ("lerobot==0.3.3", "datasets>=2.19,<=3.6", *COMMON),
}
"""Dataset version: LeRobot's last release for it on Python 3.11, and what that needs for reading and writing."""


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a command says; what it complains of (encoders do so at length) is shown when it fails, which ends this."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\n{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def prepare(folder: Path, packages: tuple[str, ...]) -> Path:
    """The environment's Python; what is there for the same packages is used again."""
    python, stamp = folder / "bin" / "python", folder / "packages.txt"
    wanted = "\n".join((sys.version, *packages))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "edge_wam_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--quiet"]
    _run([*pip, "--no-deps", packages[0]])
    _run([*pip, *packages[1:]])
    stamp.write_text(wanted)
    return python


def main() -> None:
    for version, packages in ENVIRONMENTS.items():
        began = time.monotonic()
        python = prepare(ROOT / "build" / f"lerobot-{version}", packages)
        print(f"==> {packages[0]}: environment ready after {time.monotonic() - began:.0f} s", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = os.pathsep.join((str(ROOT), str(Path(__file__).parent / "stubs")))
            environment = os.environ | {"PYTHONPATH": path, "HF_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
            began = time.monotonic()
            said = _run([str(python), "-m", "tests.lerobot_reader.conform", version, folder], environment)
            print(said + f"compared in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
