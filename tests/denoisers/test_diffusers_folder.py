"""Folders in diffusers' format: what is found in them, what is missing, and what strangers may have put there."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file

from disback_cli.denoisers.diffusers_folder import is_diffusers, read_diffusers
from disback_cli.denoisers.diffusers_networks import UNet2D
from disback_cli.denoisers.folder import build_network, load_model, save_model
from disback_cli.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def edit(path: Path, **entries) -> None:
    """Change entries of a JSON file; None removes one."""
    document = json.loads(path.read_text()) | entries
    removed = [key for key, value in entries.items() if value is None]
    path.write_text(json.dumps({key: value for key, value in document.items() if key not in removed}))


@pytest.fixture
def pipeline(tmp_path):
    """A folder with a small unconditional DDPM."""
    return tiny_pipelines.unconditional(tmp_path / "pipeline")


def test_pipeline(pipeline):
    source = read_diffusers(pipeline)
    denoiser = build_network(source.spec, source.weights, "pipeline")
    assert source.format == "diffusers" and source.decoder is None
    assert json.loads(json.dumps([source.spec, source.facts])) == [source.spec, source.facts]
    assert (denoiser.shape, denoiser.label_dim, denoiser.prediction) == ((1, 8, 8), 0, "epsilon")
    facts = source.facts
    assert (facts["network"], facts["prediction"], facts["scheduler"]) == ("UNet2DModel", "epsilon", "DDPMScheduler")
    assert facts["licence"] is None and facts["notes"] == []
    assert facts["arguments"]["block_out_channels"] == [8, 16]
    assert facts["parameters"] == sum(parameter.numel() for parameter in denoiser.parameters())
    stored = load_file(pipeline / "unet" / WEIGHTS)
    assert {f"model.unet.{name}" for name in stored} == source.weights.keys()
    assert len(json.dumps(source.spec)) < 2000


def test_becomes_a_model_folder(pipeline, tmp_path):
    source = read_diffusers(pipeline)
    denoiser = build_network(source.spec, source.weights, "pipeline")
    save_model(tmp_path / "model", source.spec, source.weights, {})
    loaded, _ = load_model(tmp_path / "model")
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 7.0])
    assert torch.equal(loaded(x, sigma), denoiser(x, sigma)) and loaded.levels == denoiser.levels


def test_latent_pipeline(tmp_path):
    source = read_diffusers(tiny_pipelines.latent(tmp_path))
    assert source.facts["network"] == "DiTTransformer2DModel" and source.spec["sigma_data"] == 1.0
    assert any("variance" in note for note in source.facts["notes"])
    assert source.decoder is not None and source.decoder.spec["scaling_factor"] == 0.18215


def test_the_same_from_every_place(pipeline, tmp_path):
    """The model's folder in the pipeline; the model alone with the scheduler beside it; all in one folder."""
    expected = read_diffusers(pipeline)
    alone, flat, given = tmp_path / "alone", tmp_path / "flat", tmp_path / "given"
    for folder in (alone, given, flat):
        shutil.copytree(pipeline / "unet", folder)
    shutil.copytree(pipeline / "scheduler", alone / "scheduler")
    shutil.copy(pipeline / "scheduler" / "scheduler_config.json", flat)
    shutil.copy(pipeline / "model_index.json", flat)
    ema = tmp_path / "pipeline" / "unet_ema"
    shutil.copytree(pipeline / "unet", ema)
    edit(ema / "config.json", decay=0.9999, use_ema_warmup=True, power=0.75)
    scheduler = pipeline / "scheduler"
    for place, keywords in (
        (pipeline / "unet", {}),
        (alone, {}),
        (flat, {}),
        (given, {"scheduler": scheduler}),
        (given, {"scheduler": scheduler / "scheduler_config.json"}),
        (ema, {}),
    ):
        found = read_diffusers(place, **keywords)
        assert is_diffusers(place) and found.spec == expected.spec
        assert all(torch.equal(tensor, found.weights[name]) for name, tensor in expected.weights.items())
    assert "decay, power, use_ema_warmup" in read_diffusers(ema).facts["notes"][0]
    with pytest.raises(UserError, match="has no scheduler_config.json.*teacher.scheduler=FILE"):
        read_diffusers(given)
    with pytest.raises(UserError, match="teacher.scheduler=.*there is no such file"):
        read_diffusers(given, scheduler=tmp_path / "nowhere")


def test_model_in_a_latent_pipeline_keeps_its_decoder(tmp_path):
    tiny_pipelines.latent(tmp_path)
    assert read_diffusers(tmp_path / "transformer").decoder is not None


def test_transformer_under_its_old_name(tmp_path):
    """Public DiT folders name the class that DiT belonged to, with the switches of its other uses, all off."""
    tiny_pipelines.latent(tmp_path)
    expected = read_diffusers(tmp_path)
    edit(tmp_path / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    edit(tmp_path / "transformer" / "config.json", _class_name="Transformer2DModel", only_cross_attention=False)
    found = read_diffusers(tmp_path)
    assert found.spec == expected.spec and found.facts["notes"] == expected.facts["notes"]
    edit(tmp_path / "transformer" / "config.json", norm_type="layer_norm")
    with pytest.raises(UserError, match="_class_name='Transformer2DModel' is not supported"):
        read_diffusers(tmp_path)


def test_prediction_can_be_overruled(pipeline):
    assert read_diffusers(pipeline, prediction="v_prediction").spec["prediction"] == "v_prediction"
    assert read_diffusers(pipeline, prediction="flow_prediction").spec["_target_"].endswith("FlowDenoiser")
    with pytest.raises(UserError, match="prediction_type='noise': valid are epsilon, v_prediction, sample"):
        read_diffusers(pipeline, prediction="noise")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: cc-by-nc\n---\n", "cc-by-nc"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\ntags: [a]\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\nlicense: {a: 1}\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.system ['touch HOSTILE']\n---\n", None),
        ("# Model\n---\nlicense: mit\n---\n", None),
        ("\xff", None),
    ],
)
def test_licence_is_that_of_the_model_card(pipeline, card, licence, monkeypatch):
    monkeypatch.chdir(pipeline)
    (pipeline / "README.md").write_text(card, encoding="latin-1")
    assert read_diffusers(pipeline).facts["licence"] == licence
    assert not (pipeline / "HOSTILE").exists()


def test_what_is_diffusers(pipeline, tmp_path):
    assert is_diffusers(pipeline) and is_diffusers(pipeline / "unet")
    save_model(tmp_path / "ours", {"_target_": "x"}, {"a": torch.ones(1)}, {})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for other in (tmp_path, tmp_path / "ours", tmp_path / "nowhere", tmp_path / "broken", pipeline / "scheduler"):
        assert not is_diffusers(other)
    with pytest.raises(UserError, match="holds neither model_index.json nor config.json"):
        read_diffusers(tmp_path)


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("model_index.json", {"_class_name": ["pipeline", "Mine"]}, "code of its own, which is never run"),
        ("model_index.json", {"_class_name": "ConsistencyModelPipeline"}, "samples in one step already"),
        ("model_index.json", {"unet": ["my_code", "UNet2DModel"]}, "class of 'my_code', not of diffusers"),
        ("model_index.json", {"unet": "UNet2DModel"}, r"need \[library, class\]"),
        ("model_index.json", {"unet": None}, "has 0 networks named unet or transformer"),
        ("model_index.json", {"vqvae": ["diffusers", "VQModel"]}, r"also needs vqvae \(VQModel\)"),
        ("model_index.json", {"text_encoder": ["transformers", "CLIPTextModel"]}, "also needs text_encoder"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "the vae is a AutoencoderTiny; supported are"),
        (
            "unet/config.json",
            {"_class_name": "UNet2DConditionModel"},
            "'UNet2DConditionModel' is not supported; supported",
        ),
        ("unet/config.json", {"_class_name": "os.system"}, "'os.system' is not supported"),
        ("unet/config.json", {"auto_map": {"AutoModel": "mine.Model"}}, "auto_map"),
        ("unet/config.json", {"act_fn": {"_target_": "os.system"}}, "act_fn=.*need a number, a word or a list"),
        ("unet/config.json", {"act_fn": "explode"}, "no network can be built"),
        ("unet/config.json", {"block_out_channels": "wide"}, "no network can be built"),
        ("unet/config.json", {"sample_size": None}, "sample_size=None: write the height and width"),
        ("unet/config.json", {"in_channels": 2}, "in_channels=2, out_channels=1"),
        ("unet/config.json", {"layers_per_block": 2}, "the weights do not fit.*missing unet"),
        ("unet/config.json", {"block_out_channels": [8, 24]}, "the weights do not fit.*has shape"),
        ("unet/config.json", {"num_class_embeds": 5}, "missing unet.class_embedding.weight"),
        ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, "supported schedulers are DDPMSch"),
        ("scheduler/scheduler_config.json", {"beta_start": None}, "lacks beta_start: add what the network was trained"),
    ],
)
def test_folders_that_are_refused(pipeline, file, entries, message):
    edit(pipeline / file, **entries)
    with pytest.raises(UserError, match=message):
        read_diffusers(pipeline)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"latents_mean": [0.0, 0.0, 0.0, 0.0]}, "latents_mean and latents_std are not supported"),
        ({"_class_name": "AutoencoderDC"}, "_class_name='AutoencoderDC' is not supported"),
        ({"latent_channels": 8}, "latent_channels=8, but the network has 4"),
        ({"scaling_factor": 0}, "scaling_factor=0"),
        ({"layers_per_block": 2}, "the weights do not fit"),
    ],
)
def test_autoencoders_that_are_refused(tmp_path, entries, message):
    tiny_pipelines.latent(tmp_path)
    edit(tmp_path / "vae" / "config.json", **entries)
    with pytest.raises(UserError, match=message):
        read_diffusers(tmp_path)


def test_huge_networks_are_refused_before_they_take_memory(pipeline):
    edit(pipeline / "unet" / "config.json", block_out_channels=[8, 2**20])
    with pytest.raises(UserError, match="the weights do not fit"):
        read_diffusers(pipeline)


class _Hostile:
    """A pickle that leaves a file behind when it is executed."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self):
        return Path.touch, (self.sign,)


def test_hostile_pickles_are_not_executed(pipeline, tmp_path):
    place, sign = pipeline / "unet", tmp_path / "executed"
    weights = load_file(place / WEIGHTS)
    (place / WEIGHTS).unlink()
    torch.save(weights | {"extra": _Hostile(sign)}, place / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="holds more than tensors"):
        read_diffusers(pipeline)
    (place / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Hostile(sign)))
    with pytest.raises(UserError, match="holds more than tensors"):
        read_diffusers(pipeline)
    assert not sign.exists()
    pickle.loads((place / "diffusion_pytorch_model.bin").read_bytes())
    assert sign.exists()  # it was hostile indeed


def test_code_in_a_folder_is_not_executed(pipeline, tmp_path):
    sign = tmp_path / "executed"
    for name in ("pipeline.py", "unet/UNet2DModel.py", "unet/my_code.py", "__init__.py"):
        (pipeline / name).write_text(f"import pathlib; pathlib.Path({str(sign)!r}).touch()")
    edit(pipeline / "unet" / "config.json", _custom_code="my_code")
    read_diffusers(pipeline)
    assert not sign.exists()


def test_reading_leaves_the_global_generator_alone(pipeline):
    state = torch.get_rng_state()
    read_diffusers(pipeline)
    assert torch.equal(torch.get_rng_state(), state)


def test_public_ddpm_of_cifar10(tmp_path):
    """Its configuration is of diffusers' first weeks, in one folder; Ho et al. 2020 count 35.7 million parameters."""
    blocks = ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]
    config = {
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.0.4",
        "act_fn": "silu",
        "attention_head_dim": None,
        "block_out_channels": [128, 256, 256, 256],
        "center_input_sample": False,
        "down_block_types": blocks,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 3,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-06,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 32,
        "time_embedding_type": "positional",
        "up_block_types": [name.replace("Down", "Up") for name in reversed(blocks)],
    }
    scheduler = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "trained_betas": None,
        "variance_type": "fixed_large",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    with torch.device("meta"):
        outline = UNet2D({key: value for key, value in config.items() if not key.startswith("_")})
    names = {name.removeprefix("unet."): tensor for name, tensor in outline.state_dict().items()}
    save_file(
        {name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in names.items()}, tmp_path / WEIGHTS
    )
    source = read_diffusers(tmp_path)
    assert source.facts["parameters"] == 35_746_307 and source.spec["shape"] == [3, 32, 32]


def test_zero_terminal_snr_is_said(tmp_path):
    tiny_pipelines.unconditional(tmp_path, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    source = read_diffusers(tmp_path)
    assert "infinite (zero terminal SNR)" in source.facts["notes"][0]
    assert build_network(source.spec, source.weights, "x").sigma_max < 1000


def test_half_precision_files_become_fp32_networks(pipeline):
    place = pipeline / "unet" / WEIGHTS
    weights = {name: tensor.half() for name, tensor in load_file(place).items()}
    save_file(weights, place)
    source = read_diffusers(pipeline)
    assert {tensor.dtype for tensor in source.weights.values()} == {torch.float16}
    denoiser = build_network(source.spec, source.weights, "x")
    assert {tensor.dtype for tensor in denoiser.state_dict().values()} == {torch.float32}
