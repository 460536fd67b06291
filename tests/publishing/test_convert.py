"""`disback convert` in this process: what goes in comes out, and what is refused changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvidia_files import DHARIWAL, EDM2, SONG, tiny_denoiser, write_nvidia_pickle
from safetensors.torch import load_file, save_file
from tiny_pipelines import unconditional

from disback_cli.denoisers.folder import load_decoder, load_model
from disback_cli.denoisers.open_source import open_source
from disback_cli.denoisers.teachers import folder as teacher_folder
from disback_cli.distillation.student_folder import load_student, student_place
from disback_cli.publishing import writers
from disback_cli.publishing.precision import differing
from disback_cli.verbs.convert import main


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def converted(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def refused(capsys, *words: object) -> str:
    """The message; nothing new lies in the folder."""
    before = sorted(Path().rglob("*"))
    assert main([str(word) for word in words]) == 2
    assert sorted(Path().rglob("*")) == before
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "class_name"), [(SONG, "EDMPrecond"), (DHARIWAL, "EDMPrecond"), (EDM2, "Precond")]
)
def test_a_pickle_becomes_a_teacher_with_the_same_weights_and_samples(arguments, class_name, capsys):
    denoiser = tiny_denoiser(arguments, class_name)
    write_nvidia_pickle(Path("net.pkl"), denoiser, class_name=class_name)
    converted("net.pkl", "teacher")
    assert "equal bit for bit" in capsys.readouterr().out
    teacher = teacher_folder(name="mine", folder="teacher")
    assert differing(load_file("teacher/model.safetensors"), open_source("net.pkl").weights) == []
    x = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 20.0])
    labels = torch.eye(denoiser.label_dim)[:2] if denoiser.label_dim else None
    with torch.no_grad():
        torch.testing.assert_close(teacher.denoiser(x, sigma, labels), denoiser(x, sigma, labels), rtol=0, atol=2e-6)
    origin = load_model("teacher")[1]["origin"]
    assert origin["file"] == "net.pkl" and len(origin["sha256"]) == 64
    assert origin["sha256"][:16] in Path("teacher/README.md").read_text()


def test_a_diffusers_folder_becomes_a_teacher(capsys):
    unconditional(Path("pipeline"))
    converted("pipeline", "teacher", "to=folder")
    assert differing(load_file("teacher/model.safetensors"), open_source("pipeline").weights) == []
    assert "teacher=folder teacher.folder=teacher" in capsys.readouterr().out


def test_a_latent_student_keeps_its_decoder(students):
    converted(students["dit"], "student", "dtype=fp16")
    student, config = load_student("student")
    decoder, _ = load_decoder("student")
    original, _ = load_decoder(student_place(str(students["dit"])))
    assert decoder is not None and original is not None and config["dtype"] == "float16"
    half = {name: tensor.half().float() for name, tensor in original.state_dict().items()}
    assert differing(decoder.state_dict(), half) == []
    assert student.sigma_init == load_student(str(students["dit"]))[0].sigma_init


@pytest.mark.parametrize("out", ["weights.pt", "weights.safetensors"])
def test_a_state_dict_loads_strictly_under_the_public_names(students, out):
    converted(students["song"], out, "to=state_dict")
    found = torch.load(out, weights_only=True) if out.endswith(".pt") else load_file(out)
    student, _ = load_student(str(students["song"]))
    assert type(found) is dict and all(name.startswith("model.") for name in found)
    original = load_file(student_place(str(students["song"])) / "model.safetensors")
    assert differing(found, original) == []
    student.denoiser.load_state_dict(found, strict=True)


@pytest.mark.parametrize(
    ("dtype", "stored"), [("fp16", torch.float16), ("bf16", torch.bfloat16), (None, torch.float32)]
)
def test_one_file_holds_everything_and_becomes_a_folder_again(students, dtype, stored):
    converted(students["adm"], "one.safetensors", *([f"dtype={dtype}"] if dtype else []))
    weights = load_file("one.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {stored}
    converted("one.safetensors", "again")
    assert differing(load_file("again/model.safetensors"), weights) == []
    student, config = load_student("again")
    original, facts = load_student(str(students["adm"]))
    assert student.sigma_init == original.sigma_init and config["metrics"] == facts["metrics"]
    expected = {name: tensor.to(stored).float() for name, tensor in original.denoiser.state_dict().items()}
    assert differing(student.denoiser.state_dict(), expected) == []


def test_too_large_for_fp16(students, capsys):
    converted(students["song"], "one.pt")
    converted(students["song"], "copy")
    weights = load_file("copy/model.safetensors")
    weights["model.map_layer0.bias"][0] = 1e6
    from disback_cli.denoisers.folder import save_model

    config = json.loads(Path("copy/config.json").read_text())
    save_model("copy", config["denoiser"], weights, config)
    assert "model.map_layer0.bias holds values" in refused(capsys, "copy", "out", "dtype=fp16")
    converted("copy", "out", "dtype=bf16")


def test_an_existing_place_is_replaced_only_if_asked_and_only_if_it_is_a_model(students, capsys):
    converted(students["song"], "out")
    assert "out exists" in refused(capsys, students["adm"], "out")
    before = Path("out/config.json").read_bytes()
    converted(students["adm"], "out", "overwrite=true")
    assert Path("out/config.json").read_bytes() != before
    assert sorted(path.name for path in Path().iterdir()) == ["out"]
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("years of work")
    assert "holds no model" in refused(capsys, students["adm"], "thesis", "overwrite=true")
    assert "is or contains what shall be converted" in refused(capsys, "out", "out", "overwrite=true")
    assert Path("thesis/chapter.tex").read_text() == "years of work"


def test_nothing_is_left_when_the_disk_lies(students, monkeypatch, capsys):
    def other(file):
        return {name: tensor + 1 for name, tensor in load_file(file).items()}

    monkeypatch.setattr(writers, "load_file", other)
    message = refused(capsys, students["song"], "out.safetensors")
    assert "changed on their way to the disk" in message


def test_a_damaged_file_is_refused(students, capsys):
    converted(students["song"], "one.safetensors")
    content = bytearray(Path("one.safetensors").read_bytes())
    content[-1] ^= 1
    Path("one.safetensors").write_bytes(content)
    assert "damaged" in refused(capsys, "one.safetensors", "out")
    save_file({"a": torch.ones(1)}, "weights.safetensors")
    assert "weights alone" in refused(capsys, "weights.safetensors", "out")
    assert "nothing at absent" in refused(capsys, "absent", "out")


def test_what_a_format_has_no_place_for(students, capsys):
    assert "needs its decoder" in refused(capsys, students["dit"], "one.safetensors")
    assert "makes points" in refused(capsys, students["points"], "out", "to=diffusers")
    converted(students["points"], "points.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in"], "give two places"),
        (["in", "out", "third"], "got in out third"),
        (["in", "out", "tu=folder"], "did you mean to=?"),
        (["in", "out", "to=difusers"], "did you mean to=diffusers?"),
        (["in", "out", "dtype=half"], "valid are fp32, fp16, bf16"),
        (["in", "out", "overwrite=yes"], "valid are true, false"),
        (["in", "out", "--force"], "there is no option --force"),
        (["in", "out", "to=safetensors"], "must end in .safetensors"),
        (["in", "out.bin", "to=state_dict"], "must end in .pt or .safetensors"),
    ],
)
def test_a_command_line_that_makes_no_sense(capsys, words, message):
    assert message in refused(capsys, *words)


def test_help(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("to=diffusers", "dtype=", "overwrite=true", "IN", "OUT"))
