"""Exported pipelines, loaded by stock diffusers in a process that cannot import this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from disback_cli.denoisers.folder import load_decoder
from disback_cli.distillation.student_folder import load_student, student_place
from disback_cli.errors import UserError
from disback_cli.publishing import diffusers_export
from disback_cli.publishing.custom_pipeline import write_custom_pipeline
from disback_cli.publishing.diffusers_export import write_diffusers
from disback_cli.publishing.model import read_model
from disback_cli.publishing.stock_pipeline import stock_parts, write_stock_pipeline

CUSTOM = ("song", "adm", "dit", "few")
COUNT = 4
LABELS = [2, 0, 1, 2]
# All pipelines in one process: code of one export must not become another's.
STRANGER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "disback_cli":
            raise ModuleNotFoundError("disback_cli is not installed here")

sys.meta_path.insert(0, Blocked())
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
root, labels = sys.argv[1], [int(word) for word in sys.argv[2:]]
z = load_file(root + "/latents.safetensors")
load = lambda name: DiffusionPipeline.from_pretrained(f"{root}/{name}", trust_remote_code=name != "unet")
pipes = {name: load(name) for name in ("song", "adm", "dit", "unet", "few")}
found = {}
for name, pipe in pipes.items():
    options = {} if name in ("song", "few") else {"class_labels": labels}
    if name == "few":
        options = {"generator": torch.Generator().manual_seed(7), "num_inference_steps": 3}
    found[name] = pipe(batch_size=len(labels), latents=z[name], output_type="pt", **options).images
    module = pipe.unet if name == "unet" else pipe.network
    found |= {f"{name}/{key}": tensor for key, tensor in module.state_dict().items()}

pipe = pipes["adm"]
pipe.save_pretrained(root + "/again")
again = load("again")
one_hot = torch.eye(4)[labels]
found["again"] = again(latents=z["adm"], class_labels=one_hot, output_type="pt").images
draw = lambda: pipe(batch_size=3, generator=torch.Generator().manual_seed(1), output_type="np").images
found["drawn twice"] = torch.tensor([abs(draw() - draw()).max() < 1e-6, draw().shape == (3, 8, 8, 3), draw().std() > 0])
(pictures,) = pipe(latents=z["adm"], class_labels=labels, return_dict=False)
found["pictures"] = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures])
assert type(pipes["few"]).__name__ == "FewStepPipeline"
pipes["few"].save_pretrained(root + "/few again")
few, images = load("few again"), {}
for name, one in (("few", pipes["few"]), ("again", few)):
    images[name] = one(batch_size=2, generator=torch.Generator().manual_seed(3), output_type="pt").images
assert torch.allclose(images["few"], images["again"], atol=1e-6)
assert not torch.equal(few(latents=z["few"], output_type="pt").images, few(latents=z["few"], output_type="pt").images)
grey = pipes["song"](latents=z["song"]).images
assert [p.mode for p in pictures + grey] == ["RGB"] * 4 + ["L"] * 4
two = {"class_labels": [0], "batch_size": 2}
for wrong in ({"num_inference_steps": 2}, {"class_labels": 4}, two, {"output_type": "x"}):
    try:
        pipe(**wrong)
    except ValueError as error:
        assert next(iter(wrong)).split("_")[0] in str(error), error
    else:
        raise AssertionError(wrong)
lines = open(root + "/unet/README.md").read().splitlines()
exec("\\n".join(line[4:] for line in lines if line.startswith("    ")).replace("THIS_FOLDER", root + "/unet"))
half = DiffusionPipeline.from_pretrained(root + "/dit", trust_remote_code=True, torch_dtype=torch.bfloat16)
found["dit in bf16"] = half(latents=z["dit"], class_labels=labels, output_type="pt").images
assert half.network.dtype == torch.bfloat16
assert "disback_cli" not in sys.modules
save_file({key: value.contiguous().clone() for key, value in found.items()}, root + "/found.safetensors")
"""


@pytest.fixture(scope="module")
def root(students, tmp_path_factory) -> Path:
    """Exported pipelines, and what a stranger's process drew with them."""
    root = tmp_path_factory.mktemp("exported")
    latents = {}
    for name in (*CUSTOM, "unet"):
        model = read_model(str(students[name]))
        denoiser = model.network()
        shape = (COUNT, *denoiser.shape)
        latents[name] = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        parts = stock_parts(model, denoiser)
        assert (parts is None) == (name in CUSTOM)
        if parts is None:
            write_custom_pipeline(model, root / name, None, denoiser.label_dim)
        else:
            write_stock_pipeline(model, parts, root / name, None)
    save_file(latents, root / "latents.safetensors")
    words = [sys.executable, "-P", "-c", STRANGER, str(root), *map(str, LABELS)]
    environment = os.environ | {"HF_MODULES_CACHE": str(root / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def found(root) -> dict[str, torch.Tensor]:
    return load_file(root / "found.safetensors")


def _samples(run: Path, latents: torch.Tensor) -> torch.Tensor:
    """What our student makes of these latents, in [-1, 1]."""
    student, _ = load_student(str(run))
    labels = torch.eye(student.denoiser.label_dim)[LABELS] if student.denoiser.label_dim else None
    generator = torch.Generator().manual_seed(7)
    further = [torch.randn(latents.shape, generator=generator) for _ in range(1, student.network_evaluations)]
    with torch.no_grad():
        samples = student(latents, labels, lambda step: further[step - 1])
        decoder, _ = load_decoder(student_place(str(run)))
        return samples if decoder is None else decoder(samples)


@pytest.mark.parametrize("name", [*CUSTOM, "unet"])
def test_images_equal_the_students(name, students, root, found):
    expected = (_samples(students[name], load_file(root / "latents.safetensors")[name]) / 2 + 0.5).clamp(0, 1)
    assert expected.std() > 0.05
    # Euler's step rounds; and matrix products round by where the matrices lie in memory
    torch.testing.assert_close(found[name], expected, rtol=0, atol=5e-6 if name == "unet" else 1e-6)


@pytest.mark.parametrize("name", [*CUSTOM, "unet"])
def test_weights_are_the_students_bit_for_bit(name, students, found):
    folder = student_place(str(students[name]))
    prefix = "" if name == "unet" else "denoiser."
    ours = {prefix + key.removeprefix("model.unet."): t for key, t in load_file(folder / "model.safetensors").items()}
    if name == "dit":
        inner = load_file(folder / "decoder" / "model.safetensors")
        ours |= {f"decoder.{key}": tensor for key, tensor in inner.items()}
    theirs = {key.removeprefix(f"{name}/"): tensor for key, tensor in found.items() if key.startswith(f"{name}/")}
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], tensor) for key, tensor in ours.items())


def test_a_pipeline_saved_again_keeps_its_code(found):
    torch.testing.assert_close(found["again"], found["adm"], rtol=0, atol=1e-6)


def test_weights_may_be_loaded_in_a_narrow_type(found):
    difference = (found["dit in bf16"] - found["dit"]).abs().max()
    assert 0 < difference < 0.05


def test_what_else_the_pipeline_gives(students, root, found):
    from disback_cli.data.pixels import to_uint8

    assert found["drawn twice"].all()
    ours = to_uint8(_samples(students["adm"], load_file(root / "latents.safetensors")["adm"]))
    difference = found["pictures"].reshape(COUNT, 8, 8, 3).int() - ours.permute(0, 2, 3, 1).int()
    assert difference.abs().max() <= 1 and (difference == 0).float().mean() > 0.99


def test_the_stock_folder_holds_no_code_and_the_card_tells_everything(root):
    with Image.open(root / "sample.png") as picture:  # drawn by the code on the card
        assert picture.size == (8, 8)
    assert not list((root / "unet").rglob("*.py"))
    assert json.loads((root / "unet" / "model_index.json").read_text())["_class_name"] == "ConsistencyModelPipeline"
    card = (root / "unet" / "README.md").read_text()
    told = ("fid_2k: 1.234", "digits-classifier-1", "n 2048", "class=DMD", "interval=5", "images=64", "Apache-2.0")
    for text in (*told, "unknown: ask the teacher's owner", "recorded beforehand", "DiffusionPipeline.from_pretrained"):
        assert text in card, text
    assert "trust_remote_code" not in card and "somebody" not in card
    assert "trust_remote_code=True" in (root / "adm" / "README.md").read_text()


def test_a_learnt_variance_is_left_out_and_a_learnt_embedding_needs_code(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler
    from tiny_pipelines import tiny_unet
    from untrained_students import untrained

    from disback_cli.denoisers import teachers

    kinds = {
        "variance": {"out_channels": 6},
        "embedding": {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    }
    found = {}
    for name, config in kinds.items():
        DDPMPipeline(tiny_unet(3, **config), DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path / name)
        run = untrained(tmp_path / f"run_{name}", teachers.diffusers(name=name, path=str(tmp_path / name)), 5.0)
        model = read_model(str(run))
        found[name] = stock_parts(model, model.network())
    assert found["embedding"] is None
    parts = found["variance"]
    assert parts.network["out_channels"] == 3 and parts.weights["conv_out.weight"].shape[0] == 3


def test_the_card_of_a_few_step_pipeline_tells_its_levels(root):
    card = (root / "few" / "README.md").read_text()
    for text in ("# Few-step student of edm_digits", "3 evaluations of its network", "sigmas: 80, 6, 1", '"few-step"'):
        assert text in card, text


def test_the_few_step_check_in_a_clean_process_draws_the_same_noise(students, tmp_path, monkeypatch):
    """Latents, then the noise of the further evaluations, come from one generator, here as there."""
    made = {}

    def sampled(root, count, seed, label_dim, custom):
        generator = torch.Generator().manual_seed(seed)
        z, one, two = (torch.randn(count, 1, 8, 8, generator=generator) for _ in range(3))
        student, _ = load_student(str(students["few"]))
        made["x"] = (student(z, None, lambda step: (one, two)[step - 1]) / 2 + 0.5).clamp(0, 1)
        return made["x"]

    monkeypatch.setattr(diffusers_export, "sampled_in_clean_process", sampled)
    exported = write_diffusers(read_model(str(students["few"])), tmp_path / "out", None, lambda _: None)
    assert exported.custom and exported.difference == 0 and made["x"].std() > 0.05


def test_a_compact_student_is_exported_like_a_one_step_student(students, tmp_path):
    model = read_model(str(students["compact"]))
    assert model.sigmas == [2.5]
    write_custom_pipeline(model, tmp_path, None, 0)
    assert json.loads((tmp_path / "network" / "config.json").read_text())["sigma_init"] == 2.5
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == ["pipeline", "OneStepPipeline"]


def test_a_pipeline_that_makes_other_images_is_refused(students, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusers_export, "sampled_in_clean_process", lambda *_, **__: torch.zeros(4, 1, 8, 8))
    with pytest.raises(UserError, match="differ from the student's"):
        write_diffusers(read_model(str(students["song"])), tmp_path / "out", None, lambda _: None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("points", "makes points of shape"),
        ("teacher", "is a teacher"),
        (
            "generator",
            "a generator student, for which there is no diffusers pipeline: use to=folder",
        ),
    ],
)
def test_what_has_no_pipeline(students, tmp_path, name, message):
    location = "pkg://disback_cli/assets/edm_digits" if name == "teacher" else str(students[name])
    with pytest.raises(UserError, match=message):
        write_diffusers(read_model(location), tmp_path / "out", None, lambda _: None)
    assert not (tmp_path / "out").exists()
