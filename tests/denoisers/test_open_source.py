"""From a path to a network: each format by its content, and every way in which there is none."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny_pipelines
import torch
from nvidia_files import EDM2, tiny_denoiser, write_nvidia_pickle
from safetensors.torch import save_file

from disback_cli.denoisers.folder import build_network, load_config, save_model
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.open_source import built_without_memory, find_network, open_source
from disback_cli.denoisers.sniff import content_of
from disback_cli.denoisers.source import DecoderSource
from disback_cli.denoisers.tensor_files import entries_of, guess_network, read_tensor_file
from disback_cli.errors import UserError

MIXTURE = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "run" / "teacher", MIXTURE, _mixture().state_dict(), {"licence": "MIT"})


def _mixture():
    torch.manual_seed(0)
    return MixtureDenoiser(hidden=8)


def same(source, network):
    """The source builds exactly this network."""
    built = build_network(source.spec, source.weights, "test").state_dict()
    return built.keys() == network.state_dict().keys() and all(
        torch.equal(built[name], tensor.float()) for name, tensor in network.state_dict().items()
    )


@pytest.mark.parametrize("storage", ["inplace", "zip", "legacy"])
def test_nvidia_pickles_are_known_by_content_whatever_they_are_called(tmp_path, denoiser, storage):
    file = write_nvidia_pickle(tmp_path / "net.bin", denoiser, storage=storage)
    assert find_network(file).format == "nvidia"
    source = open_source(file)
    assert source.format == "edm-pickle" and same(source, denoiser)


def test_edm2(tmp_path):
    net = tiny_denoiser(EDM2, "Precond")
    source = open_source(write_nvidia_pickle(tmp_path / "net.pkl", net, class_name="Precond"))
    assert source.format == "edm2-pickle"
    built = built_without_memory(source)
    assert sum(p.numel() for p in built.parameters()) == sum(p.numel() for p in net.parameters())
    assert all(p.is_meta for p in built.parameters())


def test_diffusers_folder_with_options(tmp_path):
    place = tiny_pipelines.unconditional(tmp_path / "ddpm")
    assert open_source(place).facts["prediction"] == "epsilon"
    assert open_source(place, prediction="sample").facts["prediction"] == "sample"
    assert built_without_memory(open_source(place)).shape == (1, 8, 8)


def test_latent_pipeline_checks_its_decoder_too(tmp_path):
    source = open_source(tiny_pipelines.latent(tmp_path / "dit"))
    assert built_without_memory(source).shape == (4, 4, 4)
    assert source.decoder is not None
    name = next(iter(source.decoder.weights))
    wrong = dict(source.decoder.weights) | {name: torch.zeros(1, 2, 3)}
    broken = type(source)(
        source.format, source.spec, source.weights, {}, type(source.decoder)(source.decoder.spec, wrong)
    )
    with pytest.raises(UserError, match=f"the decoder.*{name} has shape"):
        built_without_memory(broken)


@pytest.mark.parametrize("inside", ["", "teacher"])
def test_model_folder_and_the_run_around_it(folder, inside):
    source = open_source(folder.parent / inside)
    assert source.format == "model-folder" and source.facts["licence"] == "MIT"
    assert source.facts["network"] == "MixtureDenoiser" and source.facts["arguments"] == {"hidden": 8}
    assert same(source, _mixture())
    assert built_without_memory(source).sigma_max == 80


def test_model_folder_with_its_decoder(folder):
    save_model(folder / "decoder", MIXTURE, _mixture().state_dict(), {})
    assert isinstance(open_source(folder).decoder, DecoderSource)


def test_shipped_teacher():
    source = open_source("pkg://disback_cli/assets/edm_digits")
    assert source.facts["network"] == "EDMDenoiser around SongUNet"
    assert sum(p.numel() for p in built_without_memory(source).parameters()) == 427_361


def test_options_of_diffusers_are_refused_elsewhere(folder):
    with pytest.raises(UserError, match="leave prediction and scheduler out"):
        open_source(folder, prediction="epsilon")


def test_damaged_model_folder(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="does not match the sha256"):
        open_source(folder)


def test_weights_that_do_not_fit_are_found_without_memory(folder):
    config = load_config(folder)
    config["denoiser"] = MIXTURE | {"hidden": 16}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"the weights do not fit.*has shape \[8, .*and \d+ more"):
        built_without_memory(open_source(folder))


def test_descriptions_of_strangers_are_refused(folder):
    config = load_config(folder)
    for wrong, text in (({"_target_": "os.system", "command": "true"}, "refused"), (["x"], "no description")):
        (folder / "config.json").write_text(json.dumps(config | {"denoiser": wrong}))
        with pytest.raises(UserError, match=text):
            built_without_memory(open_source(folder))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty: download or copy it again"),
        (b"<!DOCTYPE html><html>", "a web page, not a model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"hello", "holds no network.*supported are"),
        (b"PK\x03\x04broken", "cut short or damaged"),
        (pickle.dumps({"a": 1}), "holds no network"),
    ],
)
def test_files_that_are_no_network(tmp_path, content, text):
    with pytest.raises(UserError, match=f"(?s){text}"):
        open_source(write(tmp_path / "net.pkl", content))


def test_places_without_a_network(tmp_path):
    with pytest.raises(UserError, match="there is nothing at"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="it is empty"):
        open_source(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(UserError, match="it holds inner/"):
        open_source(tmp_path)


def test_weights_alone_name_their_largest_parts(tmp_path):
    save_file({"trunk.a": torch.zeros(1000, 2000), "head.b": torch.zeros(5)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"holds weights alone \(2 tensors\).*Largest parts: trunk\.a\.\* \(2 M\)"):
        open_source(tmp_path / "x.safetensors")
    torch.save(tiny_denoiser().state_dict(), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"by these names, EDM's DDPM\+\+"):
        open_source(tmp_path / "x.pt")


def test_weights_in_a_folder_that_describes_them(tmp_path, folder):
    with pytest.raises(UserError, match="give the folder"):
        open_source(folder / "model.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"without the config\.json"):
        open_source(tmp_path / "diffusion_pytorch_model.safetensors")


def test_contents_by_first_bytes(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "zip.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", a=np.zeros(2))
    np.save(tmp_path / "a.npy", np.zeros(2))
    found = {path.name: content_of(path) for path in tmp_path.iterdir()}
    assert found == {
        "zip.pt": "torch-archive", "old.pt": "torch-legacy", "a.safetensors": "safetensors", "a.npz": "npz",
        "a.npy": "npy",
    }  # fmt: skip


@pytest.mark.parametrize("new_format", [True, False])
def test_tables_of_a_nested_checkpoint(tmp_path, new_format):
    content = {"ema": {"w": torch.zeros(2, 3)}, "opt": {"state": [1, 2]}, "step": 7, "bias": torch.zeros(4).half()}
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=new_format)
    found = read_tensor_file(tmp_path / "x.ckpt")
    assert {place: list(table) for place, table in found.tables.items()} == {"": ["bias"], "ema": ["w"]}
    assert found.largest["w"].shape == (2, 3) and found.tables[""]["bias"].dtype == "fp16"
    assert found.others == {"opt.state": "list of 2", "step": "7"}


def test_objects_with_code_are_named_and_not_run(tmp_path, denoiser):
    torch.save({"net": denoiser}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="an object of the class disback_cli.denoisers.edm.EDMDenoiser.*would run code"):
        read_tensor_file(tmp_path / "x.pt")


def test_truncated_files_of_tensors(tmp_path):
    torch.save({"a": torch.zeros(500)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(500)}, tmp_path / "a.safetensors")
    for file in list(tmp_path.iterdir()):
        file.write_bytes(file.read_bytes()[:-600])
        with pytest.raises(UserError, match="copy"):
            read_tensor_file(file)


def test_guesses(denoiser):
    unet, transformer = tiny_pipelines.tiny_unet(), tiny_pipelines.tiny_transformer()
    guesses = {name: guess_network(entries_of(net.state_dict())) for name, net in
               {"song": denoiser, "edm2": tiny_denoiser(EDM2, "Precond"), "unet": unet, "dit": transformer,
                "vae": tiny_pipelines.tiny_autoencoder()}.items()}  # fmt: skip
    assert guesses == {
        "song": "EDM's DDPM++ or NCSN++ (SongUNet)", "edm2": "EDM2's U-Net", "unet": "diffusers' UNet2DModel",
        "dit": "diffusers' DiTTransformer2DModel", "vae": "diffusers' AutoencoderKL",
    }  # fmt: skip
    assert guess_network(entries_of({"layer.weight": torch.zeros(2)})) is None
