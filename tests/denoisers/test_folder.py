"""Model folders: a round trip, and every way in which a folder can be wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from disback_cli.denoisers.folder import (
    TRUSTED_PREFIXES,
    build,
    load_config,
    load_model,
    resolve_folder,
    save_model,
    weights_hash,
)
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.errors import UserError

NETWORK = {
    "_target_": "disback_cli.denoisers.song_unet.SongUNet",
    "img_resolution": 8,
    "in_channels": 1,
    "out_channels": 1,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}
SPEC = {"_target_": "disback_cli.denoisers.edm.EDMDenoiser", "network": NETWORK, "shape": [1, 8, 8], "sigma_max": 70.0}
MIXTURE = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}


@pytest.fixture
def saved(tmp_path):
    """A folder with a small network, and the denoiser it was saved from."""
    torch.manual_seed(0)
    denoiser = build(SPEC)
    return save_model(tmp_path / "model", SPEC, denoiser.state_dict(), {"note": "x"}), denoiser


def edit(folder: Path, **entries) -> None:
    """Change entries of the config."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def replace_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Put other weights into the folder, with a fitting hash."""
    save_model(folder, load_config(folder)["denoiser"], weights, {})


def test_round_trip(saved):
    folder, original = saved
    loaded, config = load_model(folder)
    assert config["note"] == "x" and config["denoiser"] == SPEC and not loaded.training
    assert loaded.shape == (1, 8, 8) and loaded.sigma_max == 70.0
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in original.state_dict().items())
    assert config["weights_hash"] == weights_hash(state) == weights_hash(original.state_dict())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_loading_leaves_the_global_generator_alone(saved):
    state = torch.get_rng_state()
    load_model(saved[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_storage_loads_as_fp32(tmp_path):
    weights = MixtureDenoiser(hidden=8).state_dict()
    save_model(tmp_path, MIXTURE, weights, {}, dtype=torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded, config = load_model(tmp_path)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert config["dtype"] == "float16" and config["weights_hash"] == weights_hash(loaded.state_dict())
    torch.testing.assert_close(loaded.state_dict()["mixture.means"], weights["mixture.means"], rtol=1e-3, atol=1e-4)


def test_integers_keep_their_type(tmp_path):
    folder = save_model(tmp_path, MIXTURE, {"a": torch.tensor([1, 2]), "b": torch.ones(2)}, {}, dtype=torch.float16)
    stored = load_file(folder / "model.safetensors")
    assert (stored["a"].dtype, stored["b"].dtype) == (torch.int64, torch.float16)


def test_overwriting_and_shared_memory(saved):
    """A folder can be written again from its own config; weights that share memory or are not contiguous are fine."""
    folder, original = saved
    _, config = load_model(folder)
    weights = {name: tensor + 1 for name, tensor in original.state_dict().items()}
    name = "model.map_layer1.weight"
    weights[name] = weights[name].t().contiguous().t()
    save_model(folder, SPEC, weights, config)
    loaded, again = load_model(folder)
    assert again["note"] == "x" and again["sha256"] != config["sha256"]
    assert torch.equal(loaded.state_dict()[name], weights[name])
    base = torch.arange(4.0)
    save_model(folder, SPEC, {"a": base, "b": base}, {})
    assert torch.equal(load_file(folder / "model.safetensors")["b"], base)


def test_failed_write_leaves_the_old_model(saved, monkeypatch):
    folder, original = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError):
        save_model(folder, SPEC, original.state_dict(), {"bad": object()})

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match="no space"):
        save_model(folder, SPEC, {"a": torch.ones(1)}, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_crash_between_the_two_files_is_noticed(saved):
    folder, original = saved
    old = (folder / "config.json").read_text()
    save_model(folder, SPEC, {name: tensor + 1 for name, tensor in original.state_dict().items()}, {})
    (folder / "config.json").write_text(old)
    with pytest.raises(UserError, match="does not match the sha256"):
        load_model(folder)


def test_missing_folder_and_files(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(UserError, match="no model folder at .*nowhere"):
        load_model(tmp_path / "nowhere")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no model.safetensors"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="has no config.json"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "a JSON list, not an object: it does not describe a model"),
        ('{"denoiser": {}}', "lacks the entries"),
        ("\xff", "not valid"),
        ('{"denoiser": ' + "[" * 100_000 + "]" * 100_000 + ', "sha256": ""}', "config.json is nested too deeply"),
        ('{"denoiser": ' + "[" * 60 + "]" * 60 + ', "sha256": ""}', "config.json is nested more than 50 deep"),
    ],
    ids=["cut", "list", "empty", "binary", "bottomless", "deep"],
)
def test_broken_config(saved, text, message):
    (saved[0] / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        load_config(saved[0])


def test_changed_byte(saved):
    path = saved[0] / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not match the sha256"):
        load_model(saved[0])


def test_weights_file_of_another_format(saved):
    import hashlib

    content = b"\x80\x02junk" * 10
    (saved[0] / "model.safetensors").write_bytes(content)
    edit(saved[0], sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match="not a safetensors file"):
        load_model(saved[0])


def test_loading_is_strict(saved):
    folder, original = saved
    weights = original.state_dict()
    name = "model.map_layer0.weight"
    for changed, message in (
        ({k: v for k, v in weights.items() if k != name}, f"missing {name}"),
        (weights | {"extra": torch.ones(1)}, "unexpected extra"),
        (weights | {name: torch.ones(3, 3)}, r"has shape \[3, 3\] instead of \[32, 8\]"),
        ({}, "missing .*and [0-9]+ more"),
    ):
        replace_weights(folder, changed)
        with pytest.raises(UserError, match=message):
            load_model(folder)


HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.load",
    "torch.nn.Linear",
    "disback_cli.cli.main",
    "disback_cli.denoisers",
    "disback_cli.denoisers.EDMDenoiser",
    "disback_cli.denoisers.folder.os",
    "disback_cli.denoisers.folder.os.system",
    "disback_cli.denoisers.folder.save_model",
    "disback_cli.denoisers.folder.Path",
    "disback_cli.denoisers.edm.nn",
    "disback_cli.denoisers.edm.Denoiser",
    "disback_cli.denoisers.edm.EDMDenoiser.__class__",
    "disback_cli.denoisers.edm.__builtins__",
    "disback_cli.denoisers.edm.EDMDenoiser.load_state_dict",
    "disback_cli.denoisers_evil.edm.EDMDenoiser",
    "disback_cli.denoisers..os.system",
    "disback_cli.denoisers.edm.EDMDenoiser()",
    "",
    "edm",
    None,
    7,
]


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused(saved, target, monkeypatch):
    def ran(*_, **__):
        raise AssertionError("code from a folder was executed")

    monkeypatch.setattr(os, "system", ran)
    for spec in (
        {"_target_": target},
        {**SPEC, "network": {"_target_": target}},
        {**SPEC, "shape": [{"_target_": target}]},
    ):
        edit(saved[0], denoiser=spec)
        with pytest.raises(UserError, match="_target_="):
            load_model(saved[0])


def test_a_module_outside_the_prefixes_is_not_even_imported(saved):
    assert "this" not in sys.modules
    with pytest.raises(UserError, match="refused"):
        build({"_target_": "this.Zen"}, allow=TRUSTED_PREFIXES)
    assert "this" not in sys.modules


def test_folder_must_describe_a_denoiser(saved):
    for spec in (NETWORK, {"a": 1}, [1], None):
        edit(saved[0], denoiser=spec)
        with pytest.raises(UserError, match="not a denoiser"):
            load_model(saved[0])


def test_build_explains_wrong_arguments():
    with pytest.raises(UserError, match="SongUNet cannot be built.*embedding_type='sine'"):
        build({**NETWORK, "embedding_type": "sine"})
    with pytest.raises(UserError, match="cannot be built.*unexpected keyword argument 'width'"):
        build({**NETWORK, "width": 3})
    with pytest.raises(UserError, match="_partial_"):
        build({**NETWORK, "_partial_": True})


def test_build_of_a_user_s_own_target():
    assert build({"_target_": "fractions.Fraction", "numerator": 3, "denominator": 4}) == 3 / 4
    assert build({"_target_": "fractions.Fraction.from_float", "f": 0.5}) == 0.5
    assert build({"a": [1, {"_target_": "fractions.Fraction", "numerator": 2}]}) == {"a": [1, 2]}
    with pytest.raises(UserError, match="no module nowhere"):
        build({"_target_": "nowhere.at.all"})
    with pytest.raises(UserError, match="fractions has no Friction"):
        build({"_target_": "fractions.Friction"})
    with pytest.raises(UserError, match="not callable"):
        build({"_target_": "math.pi"})
    with pytest.raises(UserError, match="underscores"):
        build({"_target_": "fractions.Fraction.__init__"})


def test_weights_hash_sees_names_shapes_and_values_only():
    base = {"a": torch.arange(4.0), "b": torch.tensor([1, 2])}
    digest = weights_hash(base)
    assert digest == weights_hash({"b": base["b"], "a": base["a"].half()}) and len(digest) == 64
    strided = {"a": torch.arange(8.0).view(4, 2)[:, 0] / 2, "b": base["b"]}
    assert digest == weights_hash(strided)
    for other in (
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].view(2, 2), "b": base["b"]},
        {"a": base["a"] + 1e-6, "b": base["b"]},
        {"a": base["a"], "b": base["b"].int()},
        {"a": base["a"]},
    ):
        assert weights_hash(other) != digest


def test_resolve_folder(tmp_path):
    import disback_cli

    root = Path(disback_cli.__file__).parent
    assert resolve_folder("pkg://disback_cli/denoisers") == root / "denoisers"
    assert resolve_folder("pkg://disback_cli") == root
    assert resolve_folder(str(tmp_path)) == tmp_path and resolve_folder("~/m") == Path.home() / "m"
    for bad in ("pkg://os/path", "pkg://disback_cli/../x", "pkg://", "pkg:///etc"):
        with pytest.raises(UserError, match="inside the package"):
            resolve_folder(bad)


def test_package_import_stays_light():
    """The command line must not pay for torch before its configuration is checked."""
    code = "import sys, disback_cli.denoisers, disback_cli.errors; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_stray_safetensors_are_not_a_model(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="has no config.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 100_000}, r"do not fit.*has shape \[\d+, \d+\] instead of \[400000, 100000\]"),
        ({"num_blocks": 10**9}, "has far more layers than there are weights"),
        ({"model_channels": "many"}, "cannot be built"),
    ],
)
def test_a_description_of_an_impossible_network(saved, changes, message):
    edit(saved[0], denoiser=SPEC | {"network": NETWORK | changes})
    with pytest.raises(UserError, match=message):
        load_model(saved[0])


def test_an_impossible_network_that_cannot_be_built_without_memory(tmp_path):
    save_model(tmp_path, MIXTURE, build(MIXTURE).state_dict(), {})
    assert isinstance(load_model(tmp_path)[0], MixtureDenoiser)
    edit(tmp_path, denoiser=MIXTURE | {"hidden": 10**6})
    with pytest.raises(UserError, match="takes far more memory than the weights: the description is wrong or damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("spec", [SPEC, MIXTURE], ids=["network", "mixture"])
def test_loading_draws_no_random_numbers(tmp_path, spec):
    save_model(tmp_path, spec, build(spec).state_dict(), {})
    before = torch.random.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
