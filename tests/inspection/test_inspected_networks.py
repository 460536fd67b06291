"""What `disback inspect` says about networks and weights."""

import hashlib
import json

import pytest
import tiny_pipelines
import torch
from nvidia_files import EDM2, tiny_denoiser, write_nvidia_pickle
from safetensors.torch import save_file

from disback_cli.denoisers.folder import save_model
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.inspection.recognise import inspect
from disback_cli.verbs.inspect import main

MIXTURE = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nvidia_pickle(here, capsys):
    net = tiny_denoiser()
    file = write_nvidia_pickle(here / "edm-cifar10-32x32-tiny.pkl", net)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert main(["edm-cifar10-32x32-tiny.pkl"]) == 0
    text = capsys.readouterr().out
    for words in (
        "nothing in it was executed", "SongUNet (DDPM++)", "img_resolution=8", "channel_mult=[1,2]",
        f"{count:,} in fp32", "images, 3 x 8 x 8", "none: unconditional", "0.002 to 80", "CC BY-NC-SA 4.0",
        hashlib.sha256(file.read_bytes()).hexdigest(), "can use it as the teacher",
    ):  # fmt: skip
        assert words in text, words
    assert text.splitlines()[-1] == "next: disback record teacher=edm teacher.path=edm-cifar10-32x32-tiny.pkl"
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("words", [["--json"], ["json=true"]])
def test_json_says_the_same_to_programs(here, capsys, words):
    write_nvidia_pickle(here / "net.pkl", tiny_denoiser(EDM2, "Precond"), class_name="Precond")
    assert main(["net.pkl", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "edm2-pickle" and found["record"] == {"usable": True, "why_not": None}
    assert found["facts"]["classes"] == 5 and found["facts"]["samples"]["shape"] == [4, 8, 8]
    assert found["facts"]["noise_levels"]["sigma_min"] == 0.002 and found["facts"]["dtype"] == "fp32"
    assert found["facts"]["activations"] == "fp16" and found["facts"]["arguments"]["num_blocks"] == 1
    assert found["next"] == ["disback record teacher=edm teacher.path=net.pkl"]


def test_a_pickle_that_cannot_be_used_says_why(here):
    file = write_nvidia_pickle(here / "net.pkl", tiny_denoiser())
    file.write_bytes(file.read_bytes()[:5000])
    report = inspect("net.pkl")
    assert report.usable is False and "truncated or damaged" in report.why_not and not report.next
    assert report.facts["bytes"] == 5000


def test_names_that_a_shell_or_hydra_would_take_apart_are_quoted(here):
    (here / "my nets").mkdir()
    write_nvidia_pickle(here / "my nets" / "a,b=c.pkl", tiny_denoiser())
    (command,) = inspect("my nets/a,b=c.pkl").next
    assert command == """disback record teacher=edm 'teacher.path="my nets/a,b=c.pkl"'"""


def test_diffusers_folder(here):
    tiny_pipelines.class_conditional(here / "ddpm")
    report = inspect("ddpm")
    assert report.kind == "diffusers" and report.usable and report.facts["classes"] == 3
    assert report.facts["prediction"] == "epsilon" and report.facts["scheduler"] == "DDPMScheduler"
    assert report.next == ["disback record teacher=diffusers teacher.path=ddpm"]


def test_latent_pipeline_from_one_of_its_files(here):
    tiny_pipelines.latent(here / "dit")
    for place in ("dit", "dit/model_index.json", "dit/transformer/diffusion_pytorch_model.safetensors"):
        report = inspect(place)
        assert report.next == ["disback record teacher=diffusers teacher.path=dit"], place
        assert report.facts["samples"]["kind"] == "latents" and report.facts["decoder"] > 1000


def test_unsupported_pipeline(here):
    tiny_pipelines.unconditional(here / "ddpm")
    index = here / "ddpm" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["diffusers", "UNet3DConditionModel"]}))
    config = here / "ddpm" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "UNet3DConditionModel"}))
    report = inspect("ddpm")
    assert report.usable is False and "UNet3DConditionModel" in report.why_not and not report.next


def test_model_folder_and_student(here):
    torch.manual_seed(0)
    weights = MixtureDenoiser(hidden=8).state_dict()
    save_model(here / "net", MIXTURE, weights, {"licence": "MIT"})
    report = inspect("net/model.safetensors")
    assert report.kind == "model-folder" and report.usable and report.facts["licence"] == "MIT"
    assert report.next == ["disback record teacher=folder teacher.folder=net"]
    student = {
        "kind": "disback-student", "student": {"kind": "one_step", "sigma_init": 2.5},
        "teacher": {"name": "gmm", "hash": "ab" * 32}, "metrics": {"fid_2k": 1.5},
    }  # fmt: skip
    save_model(here / "student", MIXTURE, weights, student)
    report = inspect("student")
    assert report.kind == "student" and report.facts["asked_at"] == 2.5 and report.usable is None
    assert report.next == [
        "disback sample student=student",
        "disback evaluate student=student",
        "disback convert student OUT to=diffusers",
    ]


def test_model_folder_with_other_weights_than_described(here):
    save_model(here / "net", MIXTURE | {"hidden": 16}, MixtureDenoiser(hidden=8).state_dict(), {})
    report = inspect("net")
    assert report.usable is False and "the weights do not fit" in report.why_not and not report.next


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_foreign_state_dict_is_listed_and_guessed(here, capsys, suffix):
    torch.save({"model": tiny_pipelines.tiny_unet().state_dict(), "epoch": 3}, here / f"x{suffix}")
    assert main([f"x{suffix}"]) == 0
    text = capsys.readouterr().out
    for words in (
        "diffusers' UNet2DModel",
        "conv_in.weight",
        "[8, 1, 3, 3]",
        "epoch=3",
        "config.json",
        "cannot use it",
    ):
        assert words in text, words


def test_lone_safetensors_of_an_unknown_network(here):
    save_file({"trunk.w": torch.zeros(30, 40).half(), "head.b": torch.zeros(5)}, here / "x.safetensors", {"by": "me"})
    report = inspect("x.safetensors")
    assert report.facts["looks_like"] is None and report.facts["metadata"] == {"by": "me"}
    assert report.facts["tensors"] == {"the file": {"tensors": 2, "numbers": 1205, "dtype": "fp16 and fp32"}}
    assert "teacher=flow" in report.notes[0] and report.usable is False


def test_file_with_code_is_told_and_not_run(here):
    torch.save({"net": torch.nn.Linear(2, 2)}, here / "x.pt")
    report = inspect("x.pt")
    assert "would run code" in report.why_not and report.facts["sha256"]


def test_single_file_of_ours(here):
    metadata = {"disback": json.dumps({"denoiser": MIXTURE, "kind": "disback-student"})}
    save_file(MixtureDenoiser(hidden=8).state_dict(), here / "x.safetensors", metadata)
    report = inspect("x.safetensors")
    assert report.kind == "single-file" and report.next == ["disback convert x.safetensors FOLDER"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nowhere"], 2, "there is nothing at nowhere"),
        ([], 2, "usage: disback inspect PATH"),
        (["a", "b"], 2, "one file or folder, not 2: a b"),
        (["a", "--jsn"], 2, "did you mean --json?"),
        (["a", "json=maybe"], 2, "json=maybe: must be true or false"),
        (["--help"], 0, "usage: disback inspect PATH"),
        (["-h"], 0, "examples:"),
    ],
)
def test_mistakes_and_help(here, capsys, words, code, text):
    assert main(words) == code
    told = capsys.readouterr()
    assert text in (told.err if code and words else told.out)
    assert "Traceback" not in told.err


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"hello"])
def test_files_that_are_nothing(here, capsys, content):
    (here / "x.pkl").write_bytes(content)
    assert main(["x.pkl"]) == 2
    assert "x.pkl" in capsys.readouterr().err
