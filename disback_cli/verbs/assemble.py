"""`disback assemble`: a degradation path from training snapshots of the teacher."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.path import Node
    from disback_cli.distillation.recording import MismatchProbe
    from disback_cli.distillation.students import Student

log = logging.getLogger("disback_cli.verbs.assemble")


def work(cfg: DictConfig) -> None:
    """Open the teacher and its snapshots, measure them, write the path."""
    from hydra.utils import instantiate

    from disback_cli.distillation.assembling import assemble
    from disback_cli.errors import UserError
    from disback_cli.verbs.common import build_teacher, one_shot
    from disback_cli.verbs.path_facts import path_facts, student_facts

    began = time.monotonic()
    with one_shot(cfg, "assemble", None) as folder:
        if not cfg.snapshots:
            raise UserError("snapshots=[] names none; type snapshots=[A,B,...], the nearest to the teacher first")
        teacher = build_teacher(cfg)
        student = instantiate(cfg.student, teacher)
        probe = _build_probe(cfg, teacher, student)

        def facts() -> dict[str, Any]:
            return {
                **path_facts(cfg, teacher),
                "student": student_facts(student),
                "objective": "none: the nodes are training snapshots of the teacher",
                "recording": {"seed": cfg.seed, "probe_samples": cfg.probe_samples},
                "cost": _cost(cfg, teacher, student, time.monotonic() - began),
            }

        nodes = assemble(folder / "path", teacher, list(cfg.snapshots), probe, facts, _reopen(cfg))
        _finish(folder, teacher, list(cfg.snapshots), nodes)


def _reopen(cfg: DictConfig) -> Callable[[str], Teacher] | None:
    """Opens further files of weights as the teacher's was, where it has one."""
    from omegaconf import OmegaConf

    from disback_cli.verbs.common import build_teacher

    if "weights" not in cfg.teacher:
        return None
    return lambda place: build_teacher(OmegaConf.merge(cfg, {"teacher": {"weights": place}}))  # type: ignore[arg-type]


def _cost(cfg: DictConfig, teacher: Teacher, student: Student, seconds: float) -> dict[str, Any]:
    """The student's samples, and a pass of the teacher and of each snapshot on them."""
    from disback_cli.distillation.costs import measure_costs
    from disback_cli.distillation.students import evaluations_of_all_steps

    made = measure_costs(teacher.denoiser, student, teacher.denoiser).student
    evaluations = evaluations_of_all_steps(student, cfg.probe_samples)
    return {
        "images": cfg.probe_samples,
        "network_passes": made * evaluations + cfg.probe_samples * (1 + len(cfg.snapshots)),
        "seconds": round(seconds, 1),
    }


def _build_probe(cfg: DictConfig, teacher: Teacher, student: Student) -> MismatchProbe:
    """The untrained student's noisy samples and the teacher's answers on them."""
    from hydra.utils import instantiate

    from disback_cli.distillation.recording import MismatchProbe, Subject
    from disback_cli.runtime.randomness import CounterRandom

    launch = instantiate(cfg.trainer)
    device = launch.device
    subject = Subject(student.to(device), instantiate(cfg.noise.fake), CounterRandom(cfg.seed), device)
    return MismatchProbe(subject, teacher.denoiser.to(device), cfg.probe_samples, launch.max_batch)


def _finish(folder: Path, teacher: Teacher, snapshots: list[str], nodes: list[Node]) -> None:
    from disback_cli.distillation.path import DegradationPath
    from disback_cli.files import write_json
    from disback_cli.reporting.table import table
    from disback_cli.runtime.session import SUMMARY_FILE, shown_path

    cost = DegradationPath(folder / "path").facts["cost"]
    metrics = {"nodes": len(nodes) - 1, "mismatch": nodes[-1].mismatch}
    summary = {"verb": "assemble", "folder": str(folder), "teacher": teacher.name, "metrics": metrics, "cost": cost}
    write_json(folder / SUMMARY_FILE, {**summary, "path": str(folder / "path")})
    names = [f"the teacher, {teacher.name}", *snapshots]
    rows = [(node.index, node.mismatch, name) for node, name in zip(nodes, names, strict=True)]
    print(f"\n{table(('node', 'mismatch to the teacher', 'weights'), rows)}\n")
    print(
        f"node {nodes[-1].index} is a state of the teacher's training and does not fit the untrained student: "
        "the fake score starts with that error"
    )
    print(f"path:  {shown_path(folder)}/path")
    print(f"next:  disback backtrack path={shown_path(folder)}")


if __name__ == "__main__":
    verb_main("assemble", work)
