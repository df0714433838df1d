"""Cached targets: what was computed is read, a kill at any moment costs one shard at most, what changed is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill.data.targets import MANIFEST, Spec, Targets, TensorSpec, build_targets
from distill.data.texts import cached_texts
from edge_wam.errors import ConfigError

SPEC = Spec(
    kind="endpoints", teacher="a" * 64, data="b" * 64, samples=23, rows_per_shard=5, settings={"steps": 16},
    tensors={"action": TensorSpec(dtype="float32", shape=(16, 32)), "latent": TensorSpec(dtype="float16", shape=(3,)),
             "task": TensorSpec(dtype="int64", shape=(1,))},
)  # fmt: skip


def answer(rows: range) -> dict[str, Tensor]:
    """Different in every sample, the same whenever it is asked."""
    number = torch.tensor(list(rows))
    return {
        "action": number[:, None, None] + torch.arange(512).reshape(16, 32) / 512.0,
        "latent": (number[:, None] + torch.tensor([0.25, 0.5, 0.75])).half(), "task": number[:, None] * 7,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("targets")
    build_targets(folder, SPEC, answer)
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}


@given(st.lists(st.integers(0, 22), max_size=30))
def test_samples_are_read_by_number(whole: Path, numbers: list[int]) -> None:
    targets = Targets(whole, SPEC)
    expected = answer(range(23))
    index = torch.tensor(numbers, dtype=torch.int64)
    for name in SPEC.tensors:
        got = targets[name][index]
        assert got.dtype == expected[name].dtype and torch.equal(got, expected[name][index])


def test_an_index_may_have_any_shape_but_no_strange_number(whole: Path) -> None:
    column, index = Targets(whole)["latent"], torch.tensor([[0, 22], [7, 7]])
    assert len(column) == 23
    assert torch.equal(column[index], answer(range(23))["latent"][index])
    for bad in (-1, 23):
        with pytest.raises(IndexError, match="of 23"):
            column[torch.tensor([0, bad])]
    with pytest.raises(ConfigError, match=r"no target 'velocity'\n  expected: action, latent, task"):
        Targets(whole)["velocity"]


def test_shards_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    """Ten samples out of 200 MB: what the process holds grows by far less than a shard."""
    spec = SPEC.model_copy(update={"samples": 50, "rows_per_shard": 25, "tensors": {
        "latent": TensorSpec(dtype="float32", shape=(1 << 20,))}})  # fmt: skip
    build_targets(tmp_path, spec, lambda rows: {"latent": torch.ones(len(rows), 1 << 20)})
    column = Targets(tmp_path, verify=False)["latent"]

    def held() -> int:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) // 1024  # MB that are not a file's pages

    before = held()
    assert column[torch.tensor([0])].sum() == 1 << 20
    assert held() - before < 50


def test_what_is_done_is_reported_and_not_done_again(whole: Path) -> None:
    said: list[tuple[int, int]] = []
    build_targets(whole, SPEC, lambda rows: pytest.fail("nothing is missing"), report=lambda *a: said.append(a))
    assert said == [(23, 23)]


def test_shards_and_manifest_say_what_they_are(whole: Path) -> None:
    manifest = json.loads((whole / MANIFEST).read_text())
    assert manifest["spec"]["teacher"] == "a" * 64 and manifest["spec"]["tensors"]["action"]["shape"] == [16, 32]
    assert len(manifest["shards"]) == 5 == len(list(whole.glob("*.safetensors")))
    assert all(len(sha256) == 64 for sha256 in manifest["shards"])


KILLER = """
    import os, signal, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from distill.data import files, targets
    from tests.distill.test_targets import SPEC, answer

    def dying(real, countdown):
        def call(*a, **k):
            countdown[0] -= 1
            if countdown[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*a, **k)
        return call

    def build(folder, after):
        if (child := os.fork()) == 0:
            countdown = [after]
            def compute(rows):
                return dying(answer, countdown)(rows)
            targets.save_file = dying(targets.save_file, countdown)
            files.os.fsync = dying(os.fsync, countdown)
            files.Path.replace = dying(Path.replace, countdown)
            targets.sha256_of = dying(targets.sha256_of, countdown)
            targets.build_targets(folder, SPEC, compute)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    folder = Path(sys.argv[1])
    once, often = folder / "once", folder / "often"
    for after in range(1, 40):
        each = folder / f"at-{after}"
        code = build(each, after)
        left = len(list(each.glob("shard-*")))
        print(after, code, left, build(each, 10_000))
    kills = 0
    while build(often, 14 + kills % 4) != 0:
        kills += 1
    print("killed", kills)
"""


def test_a_kill_at_any_moment_costs_one_shard_at_most(whole: Path, tmp_path: Path) -> None:
    """A process is killed at each of its steps in turn; what the next one leaves is what an undisturbed one leaves."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), str(tmp_path)], cwd=root, capture_output=True, text=True,
        check=True, timeout=150,
    )  # fmt: skip
    *rows, last = [line.split() for line in done.stdout.splitlines()]
    codes = [int(row[1]) for row in rows]
    assert codes[:35] == [-9] * 35 and codes[-1] == 0, "every step of a build has been hit"
    assert all(row[3] == "0" for row in rows), "the second process finishes"
    expected = _content(whole)
    for after in range(1, 40):
        assert _content(tmp_path / f"at-{after}") == expected, after
    assert int(last[1]) >= 3 and _content(tmp_path / "often") == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [({"teacher": "c" * 64}, "another teacher: aaaa"), ({"data": "c" * 64}, "another data: bbbb"),
     ({"settings": {"steps": 8}}, r"another settings: {'steps': 16}\n  expected: {'steps': 8}"),
     ({"samples": 24}, "another samples: 23"), ({"rows_per_shard": 6}, "another rows_per_shard"),
     ({"tensors": {"action": TensorSpec(dtype="float32", shape=(8, 32))}}, "another tensors")],
)  # fmt: skip
def test_targets_of_anything_else_are_refused_or_rebuilt(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    build_targets(tmp_path, SPEC, answer)
    other = SPEC.model_copy(update=change)

    def compute(rows: range) -> dict[str, Tensor]:
        return {name: value[:, :8] if name == "action" and "tensors" in change else value + 1
                for name, value in answer(rows).items() if name in other.tensors}  # fmt: skip

    for attempt in (lambda: build_targets(tmp_path, other, compute), lambda: Targets(tmp_path, other)):
        with pytest.raises(ConfigError, match=words):
            attempt()
    assert torch.equal(Targets(tmp_path, SPEC)["task"][torch.tensor([3])], torch.tensor([[21]])), "nothing was touched"
    if "tensors" not in change:
        build_targets(tmp_path, other, compute, rebuild=True)
        assert torch.equal(Targets(tmp_path, other)["task"][torch.tensor([3])], torch.tensor([[22]]))


def test_half_rebuilt_targets_are_not_taken_for_the_old_ones(tmp_path: Path) -> None:
    build_targets(tmp_path, SPEC, answer)
    other = SPEC.model_copy(update={"teacher": "c" * 64})

    def dies(rows: range) -> dict[str, Tensor]:
        if rows.start:
            raise KeyboardInterrupt
        return answer(rows)

    with pytest.raises(KeyboardInterrupt):
        build_targets(tmp_path, other, dies, rebuild=True)
    with pytest.raises(ConfigError, match=r"holds 1 of 5 shards of targets"):
        Targets(tmp_path)
    assert len(list(tmp_path.glob("shard-*"))) == 1


def test_a_rebuild_that_dies_at_once_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_targets(tmp_path, SPEC, answer)
    whole = _content(tmp_path)
    real = Path.unlink

    def dies(self: Path, *a: object) -> None:
        if "shard" in self.name:
            raise KeyboardInterrupt
        real(self)

    other = SPEC.model_copy(update={"teacher": "c" * 64})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            build_targets(tmp_path, other, answer, rebuild=True)
    with pytest.raises(ConfigError, match="holds no targets"):
        Targets(tmp_path)
    build_targets(tmp_path, SPEC, answer)
    assert _content(tmp_path) == whole


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(lambda t: t | {"action": t["action"][:, :8]}, r"samples 0 to 4: action is \(5, 8, 32\)"),
     (lambda t: t | {"action": t["action"].half()}, "float16\n  expected: "),
     (lambda t: t | {"action": t["action"][:4]}, r"action is \(4, 16, 32\)"),
     (lambda t: t | {"action": t["action"].index_fill(0, torch.tensor([2]), torch.nan)}, "action of sample 2\n"),
     (lambda t: {"action": t["action"]}, r"came as \['action'\]"),
     (lambda t: t | {"more": t["task"]}, "came as")],
)  # fmt: skip
def test_answers_that_are_none_are_refused(
    wrong: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        build_targets(tmp_path, SPEC, lambda rows: wrong(answer(rows)))
    assert not list(tmp_path.glob("shard-*"))


def test_damaged_shards_are_refused_when_read_and_when_built_upon(tmp_path: Path) -> None:
    build_targets(tmp_path, SPEC, answer)
    path = tmp_path / "shard-000002.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    targets = Targets(tmp_path)
    assert torch.equal(targets["task"][torch.tensor([3])], torch.tensor([[21]])), "the others are read"
    manifest = (tmp_path / MANIFEST).read_text()
    last = manifest.rindex(',\n', 0, manifest.rindex("]"))
    unfinished = manifest[:last] + manifest[manifest.rindex("\n", 0, manifest.rindex("]")) :]

    def goes_on() -> None:
        (tmp_path / MANIFEST).write_text(unfinished)
        build_targets(tmp_path, SPEC, answer)

    for use in (lambda: targets["task"][torch.tensor([11])], goes_on):
        with pytest.raises(ConfigError, match=r"shard-000002.safetensors is not what was written"):
            use()
    (tmp_path / MANIFEST).write_text(manifest)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ConfigError, match="is not what was written"):
        Targets(tmp_path, verify=False)["task"][torch.tensor([11])]
    path.unlink()
    with pytest.raises(ConfigError, match=r"shard-000002.safetensors: No such file"):
        Targets(tmp_path)["task"][torch.tensor([11])]
    (tmp_path / MANIFEST).write_text('{"spec": {}}')
    with pytest.raises(ConfigError, match=r"manifest.json: spec\.kind: Field required"):
        Targets(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ConfigError, match="holds no targets"):
        Targets(tmp_path)


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    def meanwhile(rows: range) -> dict[str, Tensor]:
        with pytest.raises(ConfigError, match="being written by another process"):
            build_targets(tmp_path, SPEC, answer)
        return answer(rows)

    build_targets(tmp_path, SPEC, meanwhile)
    assert torch.equal(Targets(tmp_path, SPEC)["task"][torch.tensor([22])], torch.tensor([[154]]))


def test_instructions_are_read_once_each(tmp_path: Path) -> None:
    read: list[str] = []

    def encode(texts: list[str]) -> Tensor:
        read.extend(texts)
        return torch.stack([torch.full((4, 6), float(len(text))) for text in texts])

    texts = [f"open drawer {k % 5}" + "!" * (k % 5) for k in range(20)]
    stored = cached_texts(tmp_path, texts, encode, teacher_hash="a" * 64, batch=2)
    assert sorted(read[1:]) == sorted(set(texts)), "after a look at the shape"
    got = stored[[texts[3], texts[0], texts[3]]]
    assert got.shape == (3, 4, 6) and got[:, 0, 0].tolist() == [16.0, 13.0, 16.0]
    with pytest.raises(ConfigError, match=r"'open drawer 9' has no embedding \(did you mean 'open drawer 0'\?\)"):
        stored[["open drawer 9"]]
    with pytest.raises(ConfigError, match="another data"):
        cached_texts(tmp_path, texts[:3], encode, teacher_hash="a" * 64, batch=2)
    with pytest.raises(ConfigError, match="no instruction"):
        cached_texts(tmp_path, [], encode, teacher_hash="a" * 64)
