"""Weights of model folders: whole, in shards, as pickles, under old names, damaged."""

from __future__ import annotations

import json

import pytest
import tiny_pipelines
import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

from disback_cli.denoisers.diffusers_weights import read_weights
from disback_cli.errors import UserError

STEM = "diffusion_pytorch_model"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    return tiny_pipelines.tiny_unet()


def require_same(found: dict[str, torch.Tensor], unet: UNet2DModel) -> None:
    expected = unet.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard", ["10GB", "60KB"])
def test_files_as_diffusers_writes_them(unet, tmp_path, safe, shard):
    unet.save_pretrained(tmp_path, safe_serialization=safe, max_shard_size=shard)
    count = len(list(tmp_path.glob("*.safetensors" if safe else "*.bin")))
    assert count == 1 if shard == "10GB" else count > 1
    require_same(read_weights(tmp_path), unet)


def test_variants(unet, tmp_path):
    """One variant is taken where there is nothing else; of several, none."""
    unet.save_pretrained(tmp_path, variant="fp16")
    require_same(read_weights(tmp_path), unet)
    save_file(unet.state_dict(), tmp_path / f"{STEM}.non_ema.safetensors")
    with pytest.raises(UserError, match="several variants.*fp16.*non_ema.*rename one"):
        read_weights(tmp_path)
    save_file(unet.state_dict(), tmp_path / f"{STEM}.safetensors")
    require_same(read_weights(tmp_path), unet)


def test_old_names_of_attention(unet, tmp_path):
    """As diffusers itself reads them."""
    renamed = {}
    for name, tensor in unet.state_dict().items():
        for new, old in OLD.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = tensor
    assert "mid_block.attentions.0.proj_attn.weight" in renamed
    unet.save_config(tmp_path)
    save_file(renamed, tmp_path / f"{STEM}.safetensors")
    require_same(read_weights(tmp_path), unet)
    require_same(UNet2DModel.from_pretrained(tmp_path).state_dict(), unet)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.safetensors", "only .safetensors files beside it"),
        ("/etc/passwd", "only .safetensors files beside it"),
        ("..safetensors", "only .safetensors files beside it"),
        ("other.bin", "only .safetensors files beside it"),
        ("missing.safetensors", "lacks missing.safetensors"),
    ],
)
def test_indices_cannot_lead_out_of_the_folder(tmp_path, name, message):
    save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=message):
        read_weights(folder)


def test_shards_that_overlap(tmp_path):
    for name in ("one", "two"):
        save_file({"a": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="a is also in another shard"):
        read_weights(tmp_path)


@pytest.mark.parametrize("index", ["{}", "[]", "{", '{"weight_map": []}'])
def test_damaged_indices(tmp_path, index):
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="index.json"):
        read_weights(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_damaged_files(unet, tmp_path, suffix, kept):
    unet.save_pretrained(tmp_path, safe_serialization=suffix == "safetensors")
    file = tmp_path / f"{STEM}.{suffix}"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=file.name):
        read_weights(tmp_path)


def test_no_weights_or_no_tensors(tmp_path):
    with pytest.raises(UserError, match="holds no weights: diffusion_pytorch_model.safetensors"):
        read_weights(tmp_path)
    torch.save({"a": [1, 2]}, tmp_path / f"{STEM}.bin")
    with pytest.raises(UserError, match="something else than tensors"):
        read_weights(tmp_path)
