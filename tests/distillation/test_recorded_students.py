"""Stage 1 with students of every kind: what the copy learns from, what it costs, and the whole verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import open_dict

from disback_cli.configuration import check
from disback_cli.configuration.run_id import register_run_id
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.distillation.path_recorder import PathRecorder
from disback_cli.distillation.recording import MismatchProbe, Recording
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.student_folder import load_student
from disback_cli.distillation.students import FewStepStudent, fingerprint, samples_of_all_steps, step_of
from disback_cli.runtime.optimizers import AdamSettings
from disback_cli.verbs import record
from disback_cli.verbs.common import build_teacher

BATCH, ITERATIONS = 8, 6


class Counted(MixtureDenoiser):
    """Counts the samples it is asked for, and notes whether a graph was kept."""

    def __init__(self) -> None:
        super().__init__("ring", hidden=8, depth=1)
        self.asked, self.graphs = 0, set()

    def forward(self, x, sigma, labels=None):
        self.asked += len(x)
        self.graphs.add(torch.is_grad_enabled())
        return super().forward(x, sigma, labels)


def recording(passes: int = 1) -> Recording:
    return Recording(
        student=FewStepStudent(Counted(), sigmas=[20.0, 3.0, 0.5]), fake=Counted(), law=LogNormal(), passes=passes,
        batch_size=BATCH, iterations=ITERATIONS, seed=0, optimizer=AdamSettings(), lr={"fake": 1e-2},
    )  # fmt: skip


def test_the_cost_of_a_few_step_recording_is_what_was_computed(fit, tmp_path):
    stage, teacher = recording(), Counted().requires_grad_(False)
    recorder = PathRecorder(
        run_dir=tmp_path, teacher=teacher, nodes=2, spacing="steps", iterations=ITERATIONS, probe_samples=5
    )
    fit(stage, recorder)
    steps = [step_of(stage.student, stage.random, iteration) for iteration in range(ITERATIONS)]
    assert len(set(steps)) > 1
    # a training step of the copy: forward 1, backward 2
    assert stage.network_passes == BATCH * sum(step + 1 + 3 for step in steps)
    asked = stage.student.denoiser.asked + stage.fake.asked + teacher.asked
    assert stage.network_passes + recorder.probe_passes(stage) == asked + 2 * BATCH * ITERATIONS
    assert stage.student.denoiser.graphs == {False}


@pytest.mark.parametrize("passes", [2, 4])
def test_passes_share_a_step_and_change_nothing(fit, passes):
    whole, parts = recording(), recording(passes)
    fit(whole)
    fit(parts)
    assert parts.network_passes == whole.network_passes
    for one, other in zip(whole.fake.parameters(), parts.fake.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_probe_holds_samples_of_every_step():
    stage = recording()
    probe = MismatchProbe(stage, Counted().requires_grad_(False), 9, at_once=2)
    z = stage.random.normal("probe z", 0, 0, 9, (2,), stage.device)
    noise = stage.random.normal("probe noise", 0, 0, 9, (2,), stage.device)

    def renoise(step: int) -> torch.Tensor:
        return stage.random.normal(f"probe student noise {step}", 0, 0, 9, (2,), stage.device)

    x = samples_of_all_steps(stage.student, z, None, renoise)
    torch.testing.assert_close(probe.noisy, x + probe.sigma.float()[:, None] * noise)


# The verb -----------------------------------------------------------------------------------------------------


def run_record(folder: Path, *words: str) -> dict:
    """`disback record` in this process; returns path.json."""
    register_run_id()
    small = ("iterations=3", "nodes=1", "spacing=steps", "batch_size=4", "probe_samples=4", "log_every=1")
    given = ["teacher=gmm_2d", *small, *words, f"hydra.run.dir={folder}"]
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose("record", given, return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        cfg.hydra.overrides.task = list(words)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    check.check(cfg, "record")
    try:
        record.work(cfg)
        student = instantiate(cfg.student, build_teacher(cfg))
    finally:
        HydraConfig.instance().cfg = None
    manifest = json.loads((folder / "path" / "path.json").read_text())
    # what backtrack builds is what was recorded for
    assert manifest["student"] == {**student.settings(), "sha256": fingerprint(student)}
    untrained, _ = load_student(str(folder / "untrained_student"))
    assert fingerprint(untrained) == fingerprint(student)
    return manifest


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["student=generator", "student.network.shift=2"], {"kind": "generator", "shape": [2], "label_dim": 0}),
        (["student=compact", "student.seed=3"], {"kind": "compact", "sigma_init": 2.5}),
        (["student=few_step", "student.sigmas=[40,4]"], {"kind": "few_step", "sigmas": [40.0, 4.0]}),
    ],
)
def test_record_with_students_of_all_kinds(tmp_path, words, settings, capsys):
    manifest = run_record(tmp_path / "run", *words)
    assert settings.items() <= manifest["student"].items()
    assert len(manifest["nodes"]) == 2 and manifest["overrides"] == words
    assert "next:  disback backtrack" in capsys.readouterr().out
    assert (tmp_path / "run" / "samples" / "untrained_student.png").is_file()
    # a student that starts from this one's folder has its weights
    again = run_record(tmp_path / "again", *words, f"student.weights={tmp_path / 'run' / 'untrained_student'}")
    assert again["student"] == manifest["student"]
