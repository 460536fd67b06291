"""The study of convergence: its plan is sound, its choice of rates fair, its statistics are those of closed forms."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.convergence import analysis, collect, plan, tuning
from benchmarks.convergence.analysis import Cell, Run
from benchmarks.convergence.jobs import FAILED, SUMMARY, WORDS, Job, state
from benchmarks.convergence.summary import markdown

CELLS = plan.compared(plan.PARTS)


def runs() -> list[Job]:
    return plan.runs(CELLS, {cell: cell.problem.rates[0] for cell in CELLS})


def geometric(schedule: str, factor: float, seed: int = 0, recording: float = 0.0, **options: bool) -> Run:
    """Quality falls from 1 by ``factor`` every 10 updates, down to 0.01."""
    updates = tuple(range(0, 101, 10))
    quality = tuple(max(0.01, factor ** (u / 10)) for u in updates)
    return Run(schedule, seed, updates, quality, 8.0, recording, **options)


def cell(**runs_of: list[Run]) -> Cell:
    return Cell("ring", "far", "sid", "usual", 0.1, {name: {r.seed: r for r in rs} for name, rs in runs_of.items()})


def test_no_two_jobs_share_a_folder_or_their_words() -> None:
    jobs = [*plan.recordings(CELLS), *plan.tuning_runs(CELLS), *runs()]
    assert len({job.name for job in jobs}) == len(jobs)
    assert len({job.words for job in plan.recordings(CELLS)}) == len(plan.recordings(CELLS))
    nested = {parent.as_posix() for job in jobs for parent in Path(job.name).parents}
    assert not nested & {job.name for job in jobs}, "a job's folder lies in another job's"


def test_number_of_jobs_is_that_of_the_crossed_parts() -> None:
    schedules = sum(len(names) for names in CELLS.values())
    assert len(runs()) == schedules * len(plan.SEEDS)
    assert len(plan.tuning_runs(CELLS)) == sum(len(c.problem.rates) for c in CELLS) * len(plan.TUNED_WITH)
    recorded = {(c.problem.name, c.student.name, c.law.fake) for c in CELLS}
    assert len(plan.recordings(CELLS)) == len(recorded) * (len(plan.SEEDS) + 1)


def test_every_cell_has_both_controls_and_three_seeds() -> None:
    seeds = (*plan.SEEDS, *plan.FURTHER_SEEDS)
    assert len(plan.SEEDS) >= 3 and len(set(seeds)) >= 5 and plan.TUNING_SEED not in seeds
    assert all({"endpoint", "warm_start", "path"} <= set(schedules) for schedules in CELLS.values())


def test_schedules_of_a_cell_share_recording_rates_and_everything_but_the_schedule() -> None:
    one = next(iter(CELLS))
    path, endpoint = (set(plan.run(one, name, 1, (1e-3, 2e-3)).words) for name in ("path", "endpoint"))
    assert endpoint - path == {"schedule=endpoint"}
    assert path - endpoint == {"schedule=path", f"path={{work}}/{plan.recording(one, 1).name}"}
    assert {"lr.student=0.001", "lr.fake=0.002"} <= path & endpoint


def test_objectives_share_recordings_where_student_and_law_agree() -> None:
    ours = [c for c in CELLS if (c.problem.name, c.student.name, c.law.fake) == ("ring", "far", "lognormal")]
    assert len({c.objective.name for c in ours}) > 1
    assert len({plan.recording(c, 0) for c in ours}) == 1


def test_rates_are_tried_alike_with_endpoint_and_path() -> None:
    tried = Counter((job.name.split("/")[1], job.name.split("/")[3]) for job in plan.tuning_runs(CELLS))
    for c in CELLS:
        assert {tried[c.name, schedule] for schedule in ("endpoint", "path")} == {len(c.problem.rates)}


def test_choice_of_rates_does_not_change_when_the_schedules_are_exchanged() -> None:
    trials = {(1e-4, 1e-3): {"endpoint": 0.1, "path": 0.9}, (1e-3, 1e-3): {"endpoint": 0.4, "path": 0.2}}
    exchanged = {r: {"endpoint": s["path"], "path": s["endpoint"]} for r, s in trials.items()}
    assert tuning.chosen(trials) == tuning.chosen(exchanged) == (1e-3, 1e-3)
    assert tuning.standing(trials[1e-4, 1e-3]) == pytest.approx(0.3)


def test_rates_with_which_one_schedule_diverges_are_not_chosen() -> None:
    assert tuning.chosen({(1e-2, 1e-2): {"endpoint": 1e-9}, (1e-3, 1e-3): {"endpoint": 5, "path": 5}}) == (1e-3, 1e-3)
    with pytest.raises(ValueError, match="no rates"):
        tuning.chosen({})


def test_score_leaves_out_the_start() -> None:
    assert tuning.score([100.0, 0.2, 0.05]) == pytest.approx(0.1)


def test_time_to_a_level_is_linear_between_measurements_and_counts_the_recording() -> None:
    run = Run("path", 0, (0, 10, 20), (1.0, 0.6, 0.2), 8.0, 100.0)
    assert run.reached(0.4) == 15
    assert run.time(0.4, "updates") == 15 and run.time(0.4, "passes") == 100 + 15 * 8
    assert run.reached(0.1) is None and run.time(0.1, "updates") == 20


def test_ratio_of_two_geometric_curves_is_closed_form() -> None:
    # quality 1/2 and 1/4 every 10 updates: the second is twice as fast at any level on the measurements
    both = cell(endpoint=[geometric("endpoint", 0.5, s) for s in (0, 1, 2)],
                path=[geometric("path", 0.25, s, recording=160) for s in (0, 1, 2)])  # fmt: skip
    assert both.level == pytest.approx(0.015)
    assert both.half_way == pytest.approx(0.1), "from 1 to 0.01"
    assert [both.runs[name][0].time(0.0625, "updates") for name in ("endpoint", "path")] == [40, 20]
    exact = analysis.ratio([both], "endpoint", "path", "updates", lambda _: 0.0625)
    assert exact is not None and exact.value == pytest.approx(2)
    updates = analysis.ratio([both], "endpoint", "path", "updates")
    passes = analysis.ratio([both], "endpoint", "path", "passes")
    assert updates is not None and passes is not None
    slow, fast = (both.runs[name][0].reached(both.level) or math.nan for name in ("endpoint", "path"))
    assert updates.value == pytest.approx(slow / fast)
    assert updates.low == pytest.approx(updates.high) == pytest.approx(updates.value), "seeds do not differ"
    assert passes.value == pytest.approx(8 * slow / (160 + 8 * fast))
    assert updates.bound == "=" and updates.pairs == 3


def test_ratio_is_the_geometric_mean_over_seeds_and_cells_and_its_interval_holds_it() -> None:
    def shifted(late: float, schedule: str, seed: int) -> Run:
        return Run(schedule, seed, (0, int(late), 1000), (1.0, 0.01, 0.01), 1.0, 0.0)

    first = cell(endpoint=[shifted(200, "endpoint", s) for s in (0, 1)],
                 path=[shifted(100, "path", 0), shifted(50, "path", 1)])  # fmt: skip
    second = cell(endpoint=[shifted(100, "endpoint", 0)], path=[shifted(200, "path", 0)])
    found = analysis.ratio([first, second], "endpoint", "path", "updates")
    assert found is not None
    assert found.value == pytest.approx(math.sqrt(math.sqrt(2 * 4) * 0.5))
    assert found.low <= found.value <= found.high and found.low == pytest.approx(0.5)


def test_runs_that_never_arrive_make_bounds() -> None:
    stuck = geometric("endpoint", 0.9)
    both = cell(endpoint=[stuck], path=[geometric("path", 0.5)])
    found, turned = (analysis.ratio([both], *pair, "updates") for pair in (("endpoint", "path"), ("path", "endpoint")))
    assert found is not None and turned is not None
    assert (found.bound, turned.bound) == (">=", "<=") and found.value == pytest.approx(1 / turned.value)
    assert stuck.fate(both.level) == "stalled"


def test_a_run_that_was_there_and_left_is_a_collapse() -> None:
    collapsed = Run("endpoint", 0, (0, 10, 20, 30, 40), (1.0, 0.01, 0.5, 0.5, 0.5), 8.0, 0.0)
    both = cell(endpoint=[collapsed], path=[geometric("path", 0.5, recording=50)])
    assert collapsed.fate(both.level) == "collapsed"
    found = analysis.verdict([both], "path")
    assert (found.endpoint_failures, found.rescued, found.lost) == (1, 1, 0)
    assert found.slower == ("ring-far-sid-usual",), "it arrives later, though it stays"


def test_cells_in_which_nothing_is_good_are_in_no_verdict() -> None:
    bad = cell(endpoint=[geometric("endpoint", 0.99)], path=[geometric("path", 0.99)])
    assert not bad.solved and analysis.verdict([bad], "path").cells == 0


def test_a_race_is_undecided_while_its_interval_has_a_one() -> None:
    def race(*factors: float) -> Cell:
        return cell(endpoint=[geometric("endpoint", 0.5, s) for s in range(len(factors))],
                    path=[geometric("path", factor, s) for s, factor in enumerate(factors)])  # fmt: skip

    assert not analysis.undecided(race(0.25, 0.25, 0.25))
    mixed = race(0.25, 0.25, 0.9)
    assert analysis.undecided(mixed), "two seeds for the path, one against"
    assert not analysis.undecided(mixed.of_seeds((0, 1))), "the third seed alone made it so"
    assert sorted(mixed.of_seeds((0, 1)).runs["path"]) == [0, 1]
    assert not analysis.undecided(cell(endpoint=[geometric("endpoint", 0.99)])), "nobody is good, no race"


def test_summary_of_results_shows_the_ratio(tmp_path: Path) -> None:
    def entry(run: Run) -> dict[str, object]:
        facts = {"problem": "ring", "student": "far", "objective": "sid", "law": "usual", "schedule": run.schedule}
        curve = {"updates": run.updates, "quality": run.quality, "passes_per_update": 8, "recording_passes": 0}
        return {**facts, "seed": run.seed, **curve, "seconds": 1.0}

    results = {
        "command": "c", "measured": "d", "machine": "m", "rates": {"ring-far-sid-usual": {"chosen": [1e-3, 3e-3]}},
        "problems": {"ring": {"good": 0.1, "quality": "swd"}},
        "runs": [entry(geometric("endpoint", 0.5)), entry(geometric("path", 0.25))],
    }  # fmt: skip
    text = markdown(json.loads(json.dumps(results)))
    ratio = analysis.ratio(analysis.cells(results), "endpoint", "path", "updates")
    assert ratio is not None and f"| ring | far | usual | 1 | {ratio.value:.2f} (" in text
    assert "13.09" in text and "| path | 1 | 1 | 0 | 0 | 1 |" in text


def test_trials_compare_the_schedules_at_every_rate_and_at_their_own_best() -> None:
    scores = [{"endpoint": 0.1, "path": 0.2}, {"endpoint": 0.4, "path": 0.1}, {"endpoint": 0.2}]
    found = analysis.trials([[{"rates": [i, i], "scores": score} for i, score in enumerate(scores)], []])
    assert (found.pairs, found.endpoint_ahead, found.path_ahead) == (2, 1, 1), "a pair with one trial is no pair"
    assert found.own_best == pytest.approx(1)
    assert (found.endpoint_loss, found.path_loss) == pytest.approx((2, math.sqrt(2)))


def test_a_job_is_done_only_with_a_summary_and_the_same_words(tmp_path: Path) -> None:
    job = Job("runs/a", ("backtrack", "seed=0"))
    folder = tmp_path / job.name
    folder.mkdir(parents=True)
    assert state(tmp_path, job) == "open"
    (folder / WORDS).write_text(json.dumps(job.words))
    assert state(tmp_path, job) == "open", "killed"
    (folder / FAILED).write_text(json.dumps({"code": 2, "log": "there is no objective=sdi"}))
    assert state(tmp_path, job) == "open", "a mistake is tried again"
    (folder / FAILED).write_text(json.dumps({"code": 2, "log": "not finite at iteration 3"}))
    assert state(tmp_path, job) == "diverged"
    (folder / SUMMARY).write_text("{}")
    assert state(tmp_path, job) == "done"
    assert state(tmp_path, Job(job.name, ("backtrack", "seed=1"))) == "open", "of other words"


def test_quality_is_read_where_it_was_measured(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("iteration,images,swd_2k,loss\n0,0,0.5,\n10,2560,,1.0\n20,5120,0.25,0.5\n")
    assert collect.curve(tmp_path, "swd_") == ([0, 20], [0.5, 0.25])
