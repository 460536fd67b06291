"""A user's own teacher from its file to a published student, through the installed command alone."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from disback_command import Workplace, load, succeeded, together

sys.path.insert(0, str(Path(__file__).parents[1] / "denoisers"))

from nvidia_files import tiny_denoiser, write_nvidia_pickle  # noqa: E402
from tiny_pipelines import class_conditional, flow, latent, sample_prediction, unconditional, velocity  # noqa: E402

SMALL = ("batch_size=8", "trainer.threads=1", "log_every=2")
RECORD = (*SMALL, "iterations=6", "nodes=2", "probe_samples=4", "lr.fake=1e-4", "checkpoint.every=3")
BACKTRACK = (*SMALL, "iterations=6", "schedule.interval=2", "lr.student=1e-4", "lr.fake=1e-4", "checkpoint.every=3")
DIGITS = ("dataset=digits", "metrics=digits", "metrics.n=64")


NCSNPP = {
    "img_resolution": 8, "img_channels": 1, "label_dim": 0, "use_fp16": False, "model_type": "SongUNet",
    "augment_dim": 9, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
    "dropout": 0.13,
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
ADM = {
    "img_resolution": 8, "img_channels": 1, "label_dim": 10, "use_fp16": True, "model_type": "DhariwalUNet",
    "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.1,
}  # fmt: skip


@dataclass
class Case:
    """A teacher's file and what is expected of it."""

    make: Callable[[Path], object]
    group: str
    says: tuple[str, ...]
    classes: int = 0
    measures: bool = True
    stock: bool = False
    exports: bool = True


CASES = {
    "ncsnpp": Case(lambda file: write_nvidia_pickle(file, tiny_denoiser(NCSNPP)), "edm", ("SongUNet", "EDM")),
    "adm": Case(lambda file: write_nvidia_pickle(file, tiny_denoiser(ADM)), "edm", ("DhariwalUNet", "EDM"), classes=10),
    "ddpm": Case(unconditional, "diffusers", ("UNet2DModel", "epsilon"), stock=True),
}
OTHERS = {
    "class_conditional": Case(class_conditional, "diffusers", ("UNet2DModel",), classes=3, measures=False, stock=True),
    "velocity": Case(velocity, "diffusers", ("UNet2DModel", "v_prediction"), measures=False, stock=True),
    "sample": Case(sample_prediction, "diffusers", ("UNet2DModel", "sample"), measures=False, stock=True),
    "flow": Case(flow, "diffusers", ("UNet2DModel",), measures=False),
    "dit": Case(latent, "diffusers", ("DiTTransformer2DModel",), classes=3, measures=False),
}

LOADS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "disback_cli":
            raise ImportError("disback_cli is not installed in this process")

sys.meta_path.insert(0, Absent())
import numpy as np
import torch
from diffusers import DiffusionPipeline

folder, latents, out, trust, label = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=trust == "yes")
pipe.set_progress_bar_config(disable=True)
latents = torch.from_numpy(np.load(latents))
if latents.shape[1] != 3:
    pipe.check_inputs = lambda *_: None  # the stock pipeline takes latents of RGB images only
words = {"class_labels": [int(label)] * len(latents)} if label != "none" else {}
images = pipe(batch_size=len(latents), latents=latents, output_type="np", num_inference_steps=1, **words).images
np.save(out, np.asarray(images))
"""


@pytest.mark.slow
def test_from_a_file_to_a_published_student(make_workplace: Callable[[str], Workplace]) -> None:
    together(*(lambda n=name, c=case: walk(make_workplace(n), n, c) for name, case in CASES.items()))


@pytest.mark.slow
def test_from_another_format_to_a_published_student(make_workplace: Callable[[str], Workplace]) -> None:
    together(*(lambda n=name, c=case: walk(make_workplace(n), n, c) for name, case in OTHERS.items()))


def walk(workplace: Workplace, name: str, case: Case) -> None:
    """inspect, record, backtrack, sample, evaluate, convert: each with the words that the one before printed."""
    file = workplace.folder / (f"{name}.pkl" if case.group == "edm" else name)
    case.make(file)
    told = succeeded(workplace("inspect", file.name)).stdout
    for text in case.says:
        assert text in told, told
    assert f"disback record teacher={case.group} teacher.path={file.name}" in told

    succeeded(workplace("record", f"teacher={case.group}", f"teacher.path={file.name}", *RECORD))
    recorded = workplace.run_of("record")
    path = load(recorded / "path" / "path.json")
    assert [node["index"] for node in path["nodes"]] == [0, 1, 2]
    assert path["nodes"][2]["mismatch"] > 0

    measured = DIGITS if case.measures else ("metrics=none",)
    succeeded(workplace("backtrack", f"path={recorded}", *BACKTRACK, *measured))
    run = workplace.run_of("backtrack")
    assert [switch["node"] for switch in load(run / "summary.json")["targets"]] == [1, 0]

    assert (run / "grid.png").stat().st_size > 0
    assert sorted(file.stem for file in (run / "samples").glob("*.png")) == [f"iteration_{i:08d}" for i in (0, 6)]

    label = "1" if case.classes else "none"
    words = [f"label={label}"] if case.classes else []
    steps: list[Callable[[], object]] = [
        lambda: succeeded(workplace("sample", f"student={run}", "n=4", "out=samples", *words)),
        lambda: succeeded(workplace("convert", str(run), "published", "to=diffusers")),
    ]
    if case.measures:
        steps.append(lambda: succeeded(workplace("evaluate", f"student={run}", *DIGITS)))
    for step in steps:
        step()
    if case.measures:
        numbers = load(workplace.run_of("evaluate") / "summary.json")["metrics"]
        final = load(run / "summary.json")["metrics"]
        assert {key: numbers[key] for key in final} == pytest.approx(final, rel=1e-6)
    same_images_elsewhere(workplace, run, case, label)


def same_images_elsewhere(workplace: Workplace, run: Path, case: Case, label: str) -> None:
    """A process that cannot import this package draws the same images from the published folder."""
    from disback_cli.distillation.student_folder import load_student
    from disback_cli.evaluation.measure import EvaluationNoise

    student, _ = load_student(str(run))
    noise = EvaluationNoise(0, student.denoiser.shape, student.denoiser.label_dim, torch.device("cpu"))
    np.save(workplace.folder / "latents.npy", noise.latents(0, 4).numpy())
    trust = "no" if case.stock else "yes"
    (workplace.folder / "loads.py").write_text(LOADS)
    done = subprocess.run(
        [sys.executable, "loads.py", "published", "latents.npy", "images.npy", trust, label],
        cwd=workplace.folder,
        env=workplace.environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(workplace.folder / "hf")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = np.load(workplace.folder / "images.npy")
    drawn = np.load(workplace.folder / "samples" / "samples.npz")["samples"]
    # one grey level: where a value lies on the border of two, another order of the sums may take the other one
    assert np.abs(np.floor(images * 255 + 0.5).astype(int) - drawn.astype(int)).max() <= 1
    card = (workplace.folder / "published" / "README.md").read_text()
    assert re.search(r"licen[cs]e", card, re.IGNORECASE) and "from_pretrained" in card
    identifies_its_teacher(workplace, run, card)
    assert json.loads((workplace.folder / "published" / "model_index.json").read_text())


def identifies_its_teacher(workplace: Workplace, run: Path, card: str) -> None:
    """The student tells which weights it came from and how, and nothing of the machine that it was made on."""
    facts = load(run / "student" / "config.json")
    source = facts["teacher"]["source"]
    file = workplace.folder / source["name"]
    assert file.exists() and f"# One-step student of {file.name}\n" in card
    if file.is_file():
        assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert source["sha256"] in card
    assert (facts["training"]["batch_size"], facts["training"]["iterations"]) == (8, 6)
    for told in ("- batch size: 8\n", "- iterations: 6\n", "- learning rates: student=", "- noise laws: fake=("):
        assert told in card, told
    assert facts["path"] == workplace.run_of("record").name
    assert Path(load(run / "summary.json")["path"]).is_dir()
    assert str(workplace.folder) not in json.dumps(facts) + card
