"""Size and stack of the firmware: within budget, and the tool that says so sees recursion, pointers and growth."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from firmware_bridge.errors import FirmwareError
from firmware_bridge.mcu import budget


@pytest.mark.parametrize("target", list(budget.BUDGETS))
def test_flash_ram_and_the_deepest_stack_are_within_budget(target: str) -> None:
    used = budget.usage(target)
    assert used.broken() == []
    assert used.path[0] == "main" and len(used.path) > 4
    assert used.stack > 700 and used.flash > 3000, "and the numbers are those of a program"


def _stack(tmp_path: Path, code: str, *flags: str) -> tuple[int, tuple[str, ...]]:
    """Worst stack and its path, of a program of a few lines."""
    (tmp_path / "p.c").write_text("""
        unsigned read_something(unsigned n);
        __attribute__((noinline)) unsigned read_something(unsigned n) { return *(volatile unsigned *)n; }
        int main(void);
        void Reset_Handler(void) { main(); for (;;) { } }
    """ + code)  # fmt: skip
    subprocess.run(
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-O2", "-ffreestanding", "-nostdlib", "-fstack-usage", "-Wl,-e,main",
         "-dumpdir", f"{tmp_path}/", *flags, "-o", str(tmp_path / "p.elf"), str(tmp_path / "p.c")], check=True,
    )  # fmt: skip
    return budget.stack(tmp_path / "p.elf", "".join(p.read_text() for p in tmp_path.glob("*.su")), ())


def test_recursion_over_two_functions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FirmwareError, match=r"recursion: .*(even|odd)"):
        _stack(tmp_path, """
            static unsigned odd(unsigned n);
            __attribute__((noinline)) static unsigned even(unsigned n) { return read_something(n) ? odd(n) * n : 1u; }
            __attribute__((noinline)) static unsigned odd(unsigned n) { return read_something(n) ? even(n) / n : 0u; }
            int main(void) { return (int)even(read_something(4)) * 3; }
        """)  # fmt: skip


def test_a_pointer_that_nobody_listed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FirmwareError, match="main calls through a pointer"):
        _stack(tmp_path, """
            unsigned (*volatile which)(unsigned) = read_something;
            int main(void) { return (int)(which(4) + which(8)); }
        """)  # fmt: skip


def test_frames_add_up_along_the_deepest_path(tmp_path: Path) -> None:
    stack, path = _stack(tmp_path, """
        __attribute__((noinline)) static unsigned inner(unsigned n)
        { volatile unsigned a[500]; a[n % 500u] = n; return a[(n + 1u) % 500u]; }
        __attribute__((noinline)) static unsigned outer(unsigned n)
        { volatile unsigned a[1000]; a[n % 1000u] = inner(n); return a[(n + 1u) % 1000u] + 1u; }
        int main(void) { return (int)(outer(read_something(4)) + read_something(8)); }
    """)  # fmt: skip
    assert 6000 <= stack <= 6100
    assert [name.partition(".")[0] for name in path] == ["main", "outer", "inner"]


def test_a_number_that_the_linker_script_names_does_not_cut_a_function_in_two(tmp_path: Path) -> None:
    code = """
        __attribute__((noinline)) static unsigned deep(unsigned n)
        { volatile unsigned a[300]; a[n % 300u] = n; return a[(n + 1u) % 300u]; }
        int main(void)
        { for (unsigned i = 0u; i < read_something(4); i++) { if (read_something(i) != 0u) { return 1; } }
          return (int)deep(read_something(8)); }
    """
    plain = _stack(tmp_path, code)
    words = subprocess.run(["arm-none-eabi-nm", str(tmp_path / "p.elf")], capture_output=True, text=True, check=True)
    main = next(int(line.split()[0], 16) for line in words.stdout.splitlines() if line.endswith(" main"))
    inside = [f"-Wl,--defsym=_number{k}={(main & ~1) + 2 * k}" for k in range(1, 12)]
    assert _stack(tmp_path, code, *inside) == plain


def test_what_is_over_budget_is_named() -> None:
    used = budget.Usage("mps2-an386", 1, 2, 7000, ("main",))
    assert used.broken() == ["mps2-an386: stack 7000 of 6144 bytes"]


def test_a_target_without_a_budget_is_named() -> None:
    with pytest.raises(FirmwareError, match="'lib' has no budget"):
        budget.usage("lib")
    assert budget.main(["lib"]) == 2
