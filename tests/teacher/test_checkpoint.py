"""Published checkpoints are loaded whole or refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.teacher.checkpoint import INDEX, LORA_PREFIX, PREFIX, load_into, open_checkpoint
from distill.teacher.config import TEACHERS, TeacherConfig, config_from_checkpoint, teacher_named
from distill.teacher.dit import DreamZero
from edge_wam.errors import ConfigError
from tests.teacher.published import ALPHA, RANK, adapter, document, full, lora, lora_tensors
from tests.teacher.tiny import CONFIGS, TINY_14B, tiny


def _empty() -> DreamZero:
    with torch.device("meta"):
        return DreamZero(TINY_14B)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full(tmp_path_factory.mktemp("published"), TINY_14B)


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


# The published tensors of one block, and of the rest, from the checkpoints themselves: D, F, channels in, out * 4.
BLOCK = {
    "modulation": "1,6,D", "norm3.weight": "D", "norm3.bias": "D",
    **{f"self_attn.{p}.{q}": "D,D" if q == "weight" else "D" for p in "qkvo" for q in ("weight", "bias")},
    **{f"cross_attn.{p}.{q}": "D,D" if q == "weight" else "D"
       for p in ("q", "k", "v", "o", "k_img", "v_img") for q in ("weight", "bias")},
    **{f"self_attn.norm_{p}.weight": "D" for p in "qk"},
    **{f"cross_attn.norm_{p}.weight": "D" for p in ("q", "k", "k_img")},
    "ffn.0.weight": "F,D", "ffn.0.bias": "F", "ffn.2.weight": "D,F", "ffn.2.bias": "D",
}  # fmt: skip
REST = {
    "state_encoder.layer1.W": "1,64,1024", "state_encoder.layer1.b": "1,1024", "state_encoder.layer2.W": "1,1024,D",
    "state_encoder.layer2.b": "1,D", "action_encoder.W1.W": "1,32,D", "action_encoder.W1.b": "1,D",
    "action_encoder.W2.W": "1,2*D,D", "action_encoder.W2.b": "1,D", "action_encoder.W3.W": "1,D,D",
    "action_encoder.W3.b": "1,D", "action_decoder.layer1.W": "1,D,1024", "action_decoder.layer1.b": "1,1024",
    "action_decoder.layer2.W": "1,1024,32", "action_decoder.layer2.b": "1,32", "patch_embedding.weight": "D,I,1,2,2",
    "patch_embedding.bias": "D", "text_embedding.0.weight": "D,4096", "text_embedding.0.bias": "D",
    "text_embedding.2.weight": "D,D", "text_embedding.2.bias": "D", "time_embedding.0.weight": "D,256",
    "time_embedding.0.bias": "D", "time_embedding.2.weight": "D,D", "time_embedding.2.bias": "D",
    "time_projection.1.weight": "6*D,D", "time_projection.1.bias": "6*D", "head.modulation": "1,2,D",
    "head.head.weight": "O,D", "head.head.bias": "O", "img_emb.proj.0.weight": "1280", "img_emb.proj.0.bias": "1280",
    "img_emb.proj.1.weight": "1280,1280", "img_emb.proj.1.bias": "1280", "img_emb.proj.3.weight": "D,1280",
    "img_emb.proj.3.bias": "D", "img_emb.proj.4.weight": "D", "img_emb.proj.4.bias": "D",
}  # fmt: skip
PUBLISHED = {
    "14b": ({"D": 5120, "F": 13824, "I": 36, "O": 64}, 40, 1317, 16_484_292_448),
    "5b": ({"D": 3072, "F": 14336, "I": 48, "O": 192}, 30, 997, 5_606_692_832),
}


def _shape(text: str, sizes: dict[str, int]) -> tuple[int, ...]:
    out = []
    for part in text.split(","):
        factor, _, letter = part.rpartition("*")
        out.append(int(factor or 1) * (sizes[letter] if letter in sizes else int(letter)))
    return tuple(out)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_keys_shapes_and_parameters_are_those_of_the_published_checkpoints(name: str) -> None:
    sizes, depth, tensors, parameters = PUBLISHED[name]
    with torch.device("meta"):
        model = DreamZero(TEACHERS[name])
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    expected = {key: _shape(text, sizes) for key, text in REST.items()}
    for block in range(depth):
        expected |= {f"blocks.{block}.{key}": _shape(text, sizes) for key, text in BLOCK.items()}
    assert found == expected
    assert len(found) == tensors
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_shape_is_read_from_the_published_configuration(config: TeacherConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document(config)), encoding="utf-8")
    found = config_from_checkpoint(tmp_path)
    assert replace(found, name="", latent_grid=(2, 2)) == replace(config, name="", latent_grid=(2, 2))
    assert found.frame_tokens == config.frame_tokens


def test_a_teacher_is_refused_by_its_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean '14b'"):
        teacher_named("14B")


@pytest.mark.parametrize(
    "change", [{"num_layers": "three"}, {"model_type": "t2v"}, {"max_chunk_size": -1}, {"in_dim": 16}]
)
def test_a_configuration_that_is_none_of_ours_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    wrong = document(TINY_14B)
    wrong["action_head_cfg"]["config"]["diffusion_model_cfg"] |= change
    (tmp_path / "config.json").write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(ConfigError, match=next(iter(change))):
        config_from_checkpoint(tmp_path)


def test_a_checkpoint_round_trips_onto_a_model_that_was_never_allocated(published: Path) -> None:
    model, seen = _empty(), []
    load_into(model, open_checkpoint(published), progress=lambda done, total: seen.append((done, total)))
    for name, value in tiny(TINY_14B).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    assert seen == [(i + 1, len(model.state_dict())) for i in range(len(model.state_dict()))]
    assert len(open_checkpoint(published).encoders) == 3


def test_bfloat16_stays_bfloat16_and_fills_float32(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(full(tmp_path, TINY_14B, torch.bfloat16))
    meta, allocated = _empty(), DreamZero(TINY_14B)
    load_into(meta, checkpoint)
    load_into(allocated, checkpoint)
    for name, value in tiny(TINY_14B).state_dict().items():
        assert meta.state_dict()[name].dtype == torch.bfloat16
        torch.testing.assert_close(allocated.state_dict()[name], value.bfloat16().float(), rtol=0, atol=0)


def _merged() -> dict[str, torch.Tensor]:
    additions, out = lora_tensors(TINY_14B), dict(tiny(TINY_14B).state_dict())
    assert len(additions) == 2 * TINY_14B.depth * 10
    for name, a in additions.items():
        if ".lora_A." in name:
            b = additions[name.replace(".lora_A.", ".lora_B.")]
            out[name.replace(".lora_A.default", "")] = out[name.replace(".lora_A.default", "")] + ALPHA / RANK * (b @ a)
    return out


def test_a_lora_checkpoint_is_merged(tmp_path: Path) -> None:
    model = _empty()
    load_into(model, open_checkpoint(lora(tmp_path, TINY_14B)))
    for name, value in _merged().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_an_adapter_is_laid_over_its_base(published: Path, tmp_path: Path) -> None:
    model, addition = _empty(), open_checkpoint(adapter(tmp_path, TINY_14B))
    with pytest.raises(ConfigError, match="give its base"):
        load_into(_empty(), addition)
    load_into(model, open_checkpoint(published), addition)
    for name, value in _merged().items():
        factor = 2.0 if name.startswith(("state_encoder.", "action_encoder.", "action_decoder.")) else 1.0
        torch.testing.assert_close(model.state_dict()[name], factor * value)


def _edit(folder: Path, key: str, value: torch.Tensor | None, new_key: str | None = None) -> None:
    """Change, rename or take away one tensor, index included."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    file = folder / index["weight_map"].pop(key)
    tensors = load_file(file)
    old = tensors.pop(key)
    if value is not None or new_key is not None:
        tensors[new_key or key] = old if value is None else value
        index["weight_map"][new_key or key] = file.name
    save_file(tensors, file)
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


KEY = PREFIX + "blocks.1.ffn.0.bias"


def _missing_shard(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def _cut_shard(folder: Path) -> None:
    file = folder / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _moved_key(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    files = index["weight_map"]
    files[KEY] = next(name for name in set(files.values()) if name != files[KEY])
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _escaping_shard(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"][KEY] = "../elsewhere.safetensors"
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_missing_shard, "model-00002-of-00003.safetensors is missing"),
        (_cut_shard, "model-00002-of-00003.safetensors is damaged"),
        (_moved_key, "blocks.1.ffn.0.bias"),
        (_escaping_shard, "elsewhere"),
        (lambda f: (f / INDEX).write_text("{}"), "cannot be read"),
        (lambda f: (f / INDEX).unlink(), "neither"),
        (lambda f: _edit(f, KEY, None), "blocks.1.ffn.0.bias' is missing"),
        (lambda f: _edit(f, KEY, None, PREFIX + "blocks.1.ffn.0.biased"), "unexpected tensor 'blocks.1.ffn.0.biased'"),
        (lambda f: _edit(f, KEY, None, "model.bias"), "unexpected key 'model.bias'"),
        (lambda f: _edit(f, KEY, torch.zeros(TINY_14B.ffn + 1)), r"blocks.1.ffn.0.bias \(193,\)"),
        (lambda f: _edit(f, KEY, torch.full((TINY_14B.ffn,), float("nan"))), "blocks.1.ffn.0.bias holds a number"),
        (lambda f: _edit(f, KEY, torch.zeros(TINY_14B.ffn, dtype=torch.int8)), "blocks.1.ffn.0.bias is I8"),
        (lambda f: _edit(f, KEY, None, KEY.replace("0.bias", "0.lora_A.default.weight")), "lacks a half"),
        (lambda f: _edit(f, KEY, None, LORA_PREFIX + "blocks.1.ffn.0.base_layer.weight"), "is there twice"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(damage: object, says: str, copied: Path) -> None:
    assert callable(damage)
    damage(copied)
    with pytest.raises(ConfigError, match=says):
        load_into(_empty(), open_checkpoint(copied))
