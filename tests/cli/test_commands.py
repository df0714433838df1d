"""Every command helps, refuses in words and with code 2, and speaks JSON where a machine would read it."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_wam import __version__
from tests.cli.command import ROOT, argv, edge_wam, here

COMMANDS = (
    ("demo",), ("run",), ("eval",), ("bench",), ("replay",), ("doctor",), ("bundle",), ("bundle", "inspect"),
    ("bundle", "verify"), ("bundle", "sign"), ("bundle", "key"), ("firmware",), ("firmware", "build"),
    ("firmware", "info"),
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    ran = here(*words, "--help")
    assert ran.code == 0 and "Usage: edge-wam " + " ".join(words) in ran.out and len(ran.out) > 200


def test_help_needs_under_half_a_second_of_processor_and_no_heavy_package() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert edge_wam("--help").code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    heavy = ("numpy", "onnxruntime", "mujoco", "pydantic", "cryptography")
    code = f"import sys, edge_wam.cli.commands; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_version_and_nothing() -> None:
    assert here("--version").out.strip() == f"edge-wam {__version__}"
    nothing = here()
    assert nothing.code == 2 and "Commands:" in nothing.out + nothing.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--task", "drawer-opne"), "drawer-open"),
        (("demo", "--bundle", "none.wam"), "none.wam"),
        (("demo", "--mcu", "board"), "auto, qemu, host"),
        (("demo", "--seconds", "nan"), "--seconds"),
        (("run", "--config", "none.toml", "--arm"), "none.toml"),
        (("eval", "--task", "rech"), "did you mean 'reach'"),
        (("eval", "--first-seed", "7"), "training seeds"),
        (("eval", "--episodes", "0"), "--episodes"),
        (("bench", "--config", "/dev/null"), "robot"),
        (("replay", "none.mcap"), "none.mcap"),
        (("bundle", "inspect", "robots"), "manifest.json"),
        (("bundle", "sign", "robots", "--key", "none.key"), "none.key"),
        (("firmware", "build", "arduino"), "arduino"),
        (("fly",), "fly"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_by_name_with_code_2(config: Path, arguments: tuple[str, ...], said: str) -> None:
    words = list(arguments)
    if words[0] in ("demo", "eval", "replay") and "--config" not in words:
        words += ["--config", str(config)]
    ran = here(*words)
    assert ran.code == 2, ran
    assert said in ran.err.replace("\n", " ") and ran.out == ""


def test_a_mistyped_key_of_the_configuration_is_named_with_the_nearest(config: Path) -> None:
    config.write_text(config.read_text().replace("[plan]", "[plan]\nrate_zh = 5.0"))
    ran = here("demo", "--config", config)
    assert ran.code == 2 and "rate_zh" in ran.err and "did you mean 'rate_hz'" in ran.err and "remedy" in ran.err


def test_bundle_inspect_in_words_and_as_json(tiny: Path) -> None:
    words = here("bundle", "inspect", tiny)
    assert words.code == 0 and "metaworld_sawyer" in words.out and "int8" in words.out
    parsed = json.loads(here("bundle", "inspect", tiny, "--json").out)
    assert parsed["graphs"]["step"]["precision"] == "int8" and parsed["robot"] == "metaworld_sawyer"
    assert parsed["card"] == {"made_by": "tests"} and "demo" in parsed["signed_by"]


def test_bundle_verify_trusts_only_whom_it_is_told_to(tiny: Path, tmp_path: Path) -> None:
    robot = ROOT / "robots" / "metaworld_sawyer.toml"
    refused = here("bundle", "verify", tiny)
    assert refused.code == 2 and "demo key" in refused.err
    accepted = here("bundle", "verify", tiny, "--allow-demo-key", "--robot", robot)
    assert accepted.code == 0 and "golden run" in accepted.out
    other = tmp_path / "other.toml"
    other.write_text(robot.read_text().replace("velocity_max = 0.8", "velocity_max = 0.9"))
    wrong = here("bundle", "verify", tiny, "--allow-demo-key", "--robot", other)
    assert wrong.code == 2 and "velocity_max" in wrong.err


def test_a_changed_byte_is_found_by_inspect_verify_and_sign(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.wam"
    shutil.copytree(tiny, copy)
    graph = next(copy.glob("graphs/*.onnx"))
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    before = (copy / "signature").read_bytes()
    assert here("bundle", "key", tmp_path / "me.key").code == 0
    sign = ("sign", copy, "--key", tmp_path / "me.key")
    for words in (("inspect", copy), ("verify", copy, "--allow-demo-key"), sign):
        ran = here("bundle", *words)
        assert ran.code == 2 and graph.name in ran.err
    assert (copy / "signature").read_bytes() == before


def test_own_key_signs_and_is_trusted_where_its_public_half_is(tiny: Path, tmp_path: Path) -> None:
    copy, key = tmp_path / "copy.wam", tmp_path / "me.key"
    shutil.copytree(tiny, copy)
    assert here("bundle", "key", key).code == 0
    assert here("bundle", "key", key).code == 2  # never overwritten
    assert here("bundle", "sign", copy, "--key", key).code == 0
    assert here("bundle", "verify", copy, "--no-golden").code == 2
    good = here("bundle", "verify", copy, "--trust", tmp_path / "me.pub", "--no-golden")
    assert good.code == 0 and "signature of me" in good.out
    key.chmod(0o644)
    assert "chmod 600" in here("bundle", "sign", copy, "--key", key).err


def test_firmware_build_and_info(tmp_path: Path) -> None:
    built = here("firmware", "build", "lib", "--out", tmp_path)
    assert built.code == 0 and (tmp_path / "libedgewam_mcu.so").is_file()
    found = json.loads(here("firmware", "info", "lib", "--out", tmp_path, "--json").out)["lib"]
    assert found["text"] > 1000 and len(found["schema_hash"]) == len(found["build_id"]) == 8


def test_bench_as_table_and_json(config: Path) -> None:
    table = here("bench", "--config", config, "--calls", 5, "--threads", 1)
    assert table.code == 0 and "step int8" in table.out and "step float32" in table.out and "p99 ms" in table.out
    parsed = json.loads(here("bench", "--config", config, "--calls", 5, "--threads", 1, "--json").out)
    assert {row["what"] for row in parsed["rows"]} == {"step int8", "step float32", "pixels to knots"}


def test_doctor_says_what_is_wrong_and_what_to_do(config: Path) -> None:
    good = json.loads(here("doctor", "--config", config, "--json").out)
    found = {finding["name"]: finding for finding in good["findings"]}
    assert good["good"], good
    assert found["bundle"]["good"] and found["golden run"]["good"] is not False
    assert found["simulator"]["good"] is not False
    config.write_text(config.read_text().replace("allow_demo_key = true", ""))
    bad = here("doctor", "--config", config)
    assert bad.code == 1 and "✗ bundle" in bad.out and "allow_demo_key = true" in bad.out and "✔ python" in bad.out
    none = here("doctor", "--config", config.with_name("none.toml"))
    assert none.code == 1 and "✗ configuration" in none.out


def test_nothing_is_armed_without_an_operator(config: Path) -> None:
    ran = edge_wam("run", "--config", config, stdin="arm\n")  # a pipe is no operator
    assert ran.code == 2 and "not armed" in ran.err
    assert not (config.parent / "runs").exists()


def test_a_real_robot_without_cameras_is_refused(config: Path) -> None:
    text = config.read_text().replace('kind = "emulator"\nemulator = "host"', 'kind = "serial"\naddress = "/dev/ttyX"')
    config.write_text(text)
    ran = here("run", "--config", config, "--arm")
    assert ran.code == 2 and "--sources" in ran.err
    demo = here("demo", "--config", config)
    assert demo.code == 2 and "edge-wam run" in demo.err


def test_a_reader_who_has_seen_enough_is_no_error(tiny: Path) -> None:
    pipe = subprocess.Popen(
        argv("bundle", "inspect", tiny, "--json"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert pipe.stdout is not None and pipe.stderr is not None
    pipe.stdout.close()
    said = pipe.stderr.read().decode()
    pipe.stderr.close()
    pipe.wait()
    assert "Traceback" not in said
