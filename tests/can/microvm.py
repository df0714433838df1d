"""``make test-can``: true SocketCAN, in a machine with Debian's stock kernel, against the emulated ARM firmware.

This machine's kernel may have no CAN at all, so a small one is booted: the packages ``linux-image-amd64`` and
``busybox-static`` are downloaded and unpacked (not installed), an initial file system is made of BusyBox and a few
modules, and this machine's own files are the root, read only, over 9p. Inside runs :mod:`tests.can.microvm_guest`. The
firmware runs in its own QEMU outside; its CAN UART is the virtual machine's second serial port. Not part of CI.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.hil.echo_plant import EchoPlant
from firmware_bridge.host.emulator import Emulator, EmulatorOptions

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "microvm"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "can-raw", "vcan", "slcan", "virtio_console")
TIMEOUT_S = 900.0
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "apt-get": "apt", "dpkg-deb": "dpkg"}


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FirmwareError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def kernel() -> tuple[Path, Path]:
    """Unpacked kernel image and module folder, downloaded on the first call."""
    unpacked = FOLDER / "unpacked"
    if not list(unpacked.glob("boot/vmlinuz-*")):
        depends = _run("apt-cache", "depends", "linux-image-amd64").split()
        image = next(word for word in depends if word.startswith("linux-image-"))
        FOLDER.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", "-q", image, "busybox-static", cwd=FOLDER)
        for package in FOLDER.glob("*.deb"):
            _run("dpkg-deb", "-x", str(package), str(unpacked))
    (image_path,) = unpacked.glob("boot/vmlinuz-*")
    return image_path, unpacked / "lib" / "modules" / image_path.name.removeprefix("vmlinuz-")


def _with_dependencies(modules: Path) -> list[Path]:
    """The modules and what they need, in the order of loading, from their own ``depends`` entries."""
    files = {path.name.removesuffix(".ko").replace("-", "_"): path for path in modules.rglob("*.ko")}
    order: list[Path] = []

    def load(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:  # absent: built into the kernel
            return
        depends = path.read_bytes().split(b"\0depends=", 1)[-1].split(b"\0", 1)[0].decode("ascii")
        for needed in filter(None, depends.split(",")):
            load(needed)
        order.append(path)

    for module in MODULES:
        load(module)
    return order


def _archive(folder: Path, out: Path) -> None:
    """A compressed cpio archive ("newc") of a folder, as the kernel unpacks it: see initramfs-buffer-format.rst."""
    with gzip.open(out, "wb", compresslevel=1) as file:
        entries = sorted(folder.rglob("*"))
        for number, path in enumerate([*entries, None], start=1):
            name = "TRAILER!!!" if path is None else str(path.relative_to(folder))
            mode = 0 if path is None else path.stat().st_mode
            data = path.read_bytes() if path is not None and path.is_file() else b""
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            header = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
            file.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))


def initramfs(modules: Path) -> Path:
    """BusyBox, modules, and an init that mounts this machine's files and runs the guest's part in them."""
    folder = FOLDER / "initramfs"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("bin", "proc", "sys", "dev", "host", "modules"):
        (folder / name).mkdir(parents=True)
    shutil.copy(next((FOLDER / "unpacked").glob("bin/busybox")), folder / "bin" / "busybox")
    loading = []
    for path in _with_dependencies(modules):
        shutil.copy(path, folder / "modules" / path.name)
        loading.append(f"insmod /modules/{path.name}")
    init = folder / "init"
    init.write_text(
        "\n".join([
            "#!/bin/busybox sh",
            "export PATH=/bin",
            "/bin/busybox --install -s /bin",
            "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev",
            *loading,
            "mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 root /host",
            "for d in proc sys dev; do mount -o bind /$d /host/$d; done",
            "cp /bin/busybox /dev/busybox",  # writable in there, and has ip
            "ip link set lo up",
            f"cd /host && chroot /host /bin/sh -c 'cd {ROOT} && PYTHONDONTWRITEBYTECODE=1 exec {sys.executable} "
            "-m tests.can.microvm_guest /dev/hvc0'",
            'echo "GUEST EXIT $?"',
            "sync; poweroff -f",
        ]) + "\n",
        encoding="ascii",
    )  # fmt: skip
    init.chmod(0o755)
    archive = FOLDER / "initramfs.gz"
    _archive(folder, archive)
    return archive


def main() -> int:
    """0 if everything inside has passed."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        print(f"missing: apt-get install --no-install-recommends {' '.join(missing)}", file=sys.stderr)
        return 2
    image, modules = kernel()
    archive = initramfs(modules)
    log = FOLDER / "console.log"
    with Emulator("qemu", EmulatorOptions(can=True)) as emulator, EchoPlant(emulator.open_drive()):
        command = [
            "qemu-system-x86_64", "-M", "q35,accel=tcg", "-cpu", "max", "-m", "1024", "-nographic", "-nodefaults",
            "-no-reboot", "-kernel", str(image), "-initrd", str(archive),
            "-append", "console=ttyS0 quiet panic=-1 no_timer_check",
            "-serial", "stdio", "-chardev", f"serial,path={emulator.can_tty},id=can",
            "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=can",
            "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
        ]  # fmt: skip
        print(f"booting {image.name}; console in {log}", flush=True)
        begin = time.monotonic()
        passed = False
        with log.open("w", encoding="utf-8") as copy, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        ) as machine:  # fmt: skip
            emulator._prefer(machine.pid)  # two emulators that talk to each other want the same share of a core
            assert machine.stdout is not None
            os.set_blocking(machine.stdout.fileno(), True)
            try:
                for line in machine.stdout:
                    copy.write(line)
                    print(f"{time.monotonic() - begin:6.1f} s  {line.rstrip()}", flush=True)
                    passed = passed or line.strip() == "GUEST EXIT 0"
                    if time.monotonic() - begin > TIMEOUT_S:
                        print("too slow: ended", flush=True)
                        break
            finally:
                machine.kill()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
