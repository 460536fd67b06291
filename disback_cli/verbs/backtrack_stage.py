"""What `disback backtrack` builds before it works: everything that cannot work is found here."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.backtracking import Backtracking, Judge
from disback_cli.distillation.costs import NetworkCosts, measure_costs
from disback_cli.distillation.discriminator import BottleneckTap, Discriminator
from disback_cli.distillation.fake_scores import start_from
from disback_cli.distillation.objectives.base import Objective
from disback_cli.distillation.pairs import Pairs
from disback_cli.distillation.path import DegradationPath
from disback_cli.distillation.rerecording import Rerecorder
from disback_cli.distillation.schedules import RerecordSchedule, Schedule
from disback_cli.distillation.students import Student
from disback_cli.distillation.students.base import fingerprint
from disback_cli.errors import UserError
from disback_cli.runtime.randomness import counter_seed
from disback_cli.runtime.session import Session
from disback_cli.verbs.common import build_real_samples, open_pairs, stage_settings
from disback_cli.verbs.path_facts import path_facts, student_facts

log = logging.getLogger(__name__)


def open_path(cfg: DictConfig, teacher: Teacher, schedule: Schedule) -> DegradationPath | None:
    """The verified path, or None for a schedule that needs none.

    Raises:
        UserError: there is none, it is another teacher's, or it is too long for the run.
    """
    if not schedule.needs_path:
        _require_time(cfg, schedule, 0)
        return None
    if cfg.path is None:
        raise UserError(
            f"no path has been recorded for teacher={teacher.name} yet: type `disback record teacher={teacher.name}` "
            "first, give path=RUN, or take schedule=endpoint, which needs none"
        )
    path = DegradationPath(cfg.path)
    path.require_teacher(teacher.name, teacher.hash, teacher.spec)
    schedule.prepare(path.distances)
    _require_time(cfg, schedule, path.last)
    return path


def _require_time(cfg: DictConfig, schedule: Schedule, last: int) -> None:
    """Refuse a run that would end before the teacher is the target."""
    reached = schedule.teacher_from(last)
    if reached < cfg.iterations:
        return
    rerecords = isinstance(schedule, RerecordSchedule)
    nodes = schedule.nodes if isinstance(schedule, RerecordSchedule) else last
    sooner = "schedule.at or schedule.interval" if rerecords else "schedule.interval (schedule.max_interval)"
    raise UserError(
        f"the teacher would become the target at iteration {reached} of {cfg.iterations} only: the path"
        f"{' recorded last' if rerecords else ''} has {nodes} nodes. Raise iterations, or lower {sooner}"
    )


def warn_of_another_start(path: DegradationPath, student: Student, sha256: str) -> None:
    """Node N fits the student it was recorded with; say so if this one is another."""
    recorded, settings = path.facts["student"], student.settings()
    apart = [f"{k}={recorded.get(k)} there, {v} here" for k, v in settings.items() if recorded.get(k) != v]
    if not apart and recorded.get("sha256") in (None, sha256):
        return
    log.warning(
        "the path was recorded for another untrained student than this one (%s), so node %d does not fit it; record "
        "one with the same student=... options",
        "; ".join(apart) or "its weights differ", path.last,
    )  # fmt: skip


def build_stage(
    cfg: DictConfig,
    session: Session,
    teacher: Teacher,
    schedule: Schedule,
    objective: Objective,
    path: DegradationPath | None,
) -> Backtracking:
    """The stage, with everything it trains and follows.

    Raises:
        UserError: options contradict each other, or the objective needs what is not there.
    """
    # Without a law of its own the generator step uses the fake score's, as Diff-Instruct does.
    generator_law = cfg.noise.get("generator") or cfg.noise.fake
    _require_shareable(cfg, objective, generator_law)
    last = path.last if path else 0
    _require_useful_critic(cfg, schedule, objective, last)
    student: Student = instantiate(cfg.student, teacher)
    made_of = {"the teacher": teacher.hash, "the untrained student": fingerprint(student)}
    if path is not None:
        made_of["the path"] = path.identity
        warn_of_another_start(path, student, made_of["the untrained student"])
    fake: Denoiser = instantiate(cfg.fake, teacher)
    own = {name: tensor.cpu().clone() for name, tensor in teacher.denoiser.state_dict().items()}
    weights = _weights_of_nodes(own, path)
    _start_fake_score(fake, schedule, path, weights)
    judge = _build_judge(cfg, teacher, fake, objective)
    critic_rate = cfg.lr.critic if cfg.lr.critic is not None else cfg.lr.fake
    costs = measure_costs(teacher.denoiser, student, fake, judge.tap if judge else None)
    rates = {"student": cfg.lr.student, "fake": cfg.lr.fake, "critic": critic_rate}
    settings = stage_settings(cfg, session.launch, rates)
    stage = Backtracking(
        student=student,
        fake=fake,
        target=teacher.copy(),
        node_weights=weights,
        last=last,
        schedule=schedule,
        objective=objective,
        generator_law=instantiate(generator_law),
        fake_law=instantiate(cfg.noise.fake),
        generator_weighting=instantiate(cfg.noise.generator_weighting),
        fake_weighting=instantiate(cfg.noise.fake_weighting),
        ema_halflife=cfg.ema.halflife,
        ema_rampup=cfg.ema.rampup,
        share_draw=cfg.share_draw,
        fake_updates=cfg.fake_updates or objective.fake_updates,
        fake_samples=cfg.fake_samples,
        judge=judge,
        pairs=_open_pairs(cfg, teacher, objective),
        costs=costs,
        rerecorder=_build_rerecorder(cfg, session, teacher, schedule, own, costs, settings["passes"]),
        made_of=made_of,
        **settings,
    )
    _tell_cost(stage)
    _warn_of_unused(cfg, stage, path)
    return stage


def _require_shareable(cfg: DictConfig, objective: Objective, generator_law: DictConfig) -> None:
    """Refuse one draw for two losses where they cannot have it."""
    if not cfg.share_draw:
        return
    if generator_law != cfg.noise.fake:
        raise UserError(
            "share_draw=true takes one noise level for both losses, but noise.generator and noise.fake are different "
            "laws; give both the same, noise=lognormal, or share_draw=false"
        )
    if objective.through_denoisers or objective.critic is not None:
        why = "its gradient flows through the fake score" if objective.through_denoisers else "it has a critic"
        raise UserError(
            f"share_draw=true runs the fake score once for both losses, which objective={_chosen('objective')} does "
            f"not allow: {why}. Leave share_draw=false, or take objective=diff_instruct, vsd or dmd"
        )


def _require_useful_critic(cfg: DictConfig, schedule: Schedule, objective: Objective, last: int) -> None:
    """Refuse a critic that would never act, or that nothing would come of."""
    critic = objective.critic
    if critic is None:
        return
    reached = schedule.teacher_from(last) if critic.when == "teacher" else 0
    first = max(critic.warmup, reached)
    if first >= cfg.iterations:
        lower = "objective.critic.warmup" if critic.warmup >= reached else "schedule.interval (schedule.max_interval)"
        raise UserError(
            f"the critic of objective={_chosen('objective')} would act from iteration {first} of {cfg.iterations} "
            f"only: raise iterations, or lower {lower}"
        )
    if not critic.generator_weight and not objective.uses_ratio:
        raise UserError(
            f"the critic of objective={_chosen('objective')} would be trained for nothing: "
            "objective.critic.generator_weight is 0, and no density ratio is asked for. Give it a weight, another "
            "objective.divergence than rkl where there is one, or objective.critic=null"
        )


def _warn_of_unused(cfg: DictConfig, stage: Backtracking, path: DegradationPath | None) -> None:
    """Name the options that were given and mean nothing here; a sweep may well give them to all of its jobs."""
    unused = {
        "path": cfg.path is not None and path is None,
        "fake_samples=fresh": cfg.fake_samples == "fresh" and stage.updates == 1,
        "lr.critic": cfg.lr.critic is not None and stage.objective.critic is None,
        "pairs": cfg.pairs is not None and stage.pairs is None,
    }
    names = [name for name, there in unused.items() if there]
    if names:
        log.warning("not used with these options: %s", ", ".join(names))


def _chosen(group: str) -> str:
    """The option of a group as it was typed, for messages."""
    return str(HydraConfig.get().runtime.choices.get(group))


def _weights_of_nodes(own: dict[str, Tensor], path: DegradationPath | None) -> Callable[[int], dict[str, Tensor]]:
    """Full weights of every node under the teacher's names; ``own`` are the teacher's."""
    if path is None:
        return lambda _: own
    return lambda index: path.full_weights(index, own)


def _start_fake_score(
    fake: Denoiser,
    schedule: Schedule,
    path: DegradationPath | None,
    full_weights: Callable[[int], dict[str, Tensor]],
) -> None:
    """Give the fake score the weights of the node it starts from.

    Raises:
        UserError: the node's weights are not of this kind of fake score.
    """
    node = schedule.first_fake(path.last if path else 0)
    if path is None:
        return  # a fresh fake score is the teacher, node 0
    start_from(fake, path, node, full_weights)


def _build_rerecorder(
    cfg: DictConfig,
    session: Session,
    teacher: Teacher,
    schedule: Schedule,
    own: dict[str, Tensor],
    costs: NetworkCosts,
    passes: int,
) -> Rerecorder | None:
    """What records new paths on the way, for a schedule that wants them."""
    if not isinstance(schedule, RerecordSchedule):
        return None
    own_batch = schedule.batch_size
    return Rerecorder(
        run_dir=session.folder,
        schedule=schedule,
        teacher=teacher.denoiser,
        teacher_weights=own,
        make_copy=lambda: instantiate(cfg.fake, teacher),
        law=instantiate(cfg.noise.fake),
        weighting=instantiate(cfg.noise.fake_weighting),
        optimizer=instantiate(cfg.optimizer),
        lr=schedule.lr or cfg.lr.fake,
        batch_size=own_batch or cfg.batch_size,
        passes=session.launch.passes(own_batch) if own_batch else passes,
        at_once=session.launch.max_batch,
        seed=cfg.seed,
        costs=costs,
        facts=lambda student: {**path_facts(cfg, teacher), "student": student_facts(student)},
    )


def _build_judge(cfg: DictConfig, teacher: Teacher, fake: Denoiser, objective: Objective) -> Judge | None:
    """Head, tap and data of an objective with a critic.

    Raises:
        UserError: there is no data set, or the network has no bottleneck.
    """
    if objective.critic is None:
        return None
    real = build_real_samples(cfg, teacher, f"objective={_chosen('objective')} has a critic")
    tap = BottleneckTap(fake, objective.critic.features)
    head = Discriminator(tap.feature_shape(), seed=counter_seed(cfg.seed, "critic's head"))
    return Judge(tap, head, real)


def _open_pairs(cfg: DictConfig, teacher: Teacher, objective: Objective) -> Pairs | None:
    """The teacher's pairs for an objective with a regression term."""
    if objective.regression is None:
        return None
    return open_pairs(cfg, teacher, "objective.regression is a term on pairs")


def _tell_cost(stage: Backtracking) -> None:
    """Say what an iteration costs at its beginning, and which of its terms are still to come."""
    later = [
        name
        for name, there, acts in (
            ("the critic", stage.objective.critic is not None, stage.critic_acts),
            ("the regression", stage.pairs is not None, stage.regression_acts),
        )
        if there and not acts
    ]
    log.info(
        "updates an iteration: 1 of the generator, %d of the fake score; %.3g network passes a sample%s",
        stage.updates, stage.passes_per_sample, f", and later those of {' and '.join(later)}" if later else "",
    )  # fmt: skip
