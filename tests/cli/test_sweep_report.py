"""The end of a sweep: what was best among what can be compared, over the seeds, and what a search is told."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from disback_cli.configuration import jobs, runfolder, sweeptable
from disback_cli.configuration.jobs import Job, SweepFailed
from disback_cli.configuration.searching import Search
from disback_cli.configuration.sweepreport import Sweep, outcome, report
from disback_cli.errors import UserError

FACTS = {"n": 2048, "extractor": "digits", "reference_sha256": "a", "splits": 10}


@pytest.fixture
def job(tmp_path: Path):
    """Makes a job with its summary: ``job(number, "key=value ...", numbers)``; no numbers: it failed."""

    def make(number: int, words: str, numbers: dict[str, float] | None, **facts: object) -> Job:
        folder = tmp_path / str(number)
        folder.mkdir()
        if numbers is not None:
            summary = {"metrics": numbers, "measured_with": FACTS | facts}
            (folder / "summary.json").write_text(json.dumps(summary))
        return Job(number, tuple(words.split()), folder, [], jobs.DONE if numbers is not None else jobs.FAILED)

    return make


def told(made: list[Job], metric: str | None = None) -> list[str]:
    flags = ["--config-dir", "my conf"]
    return report(Sweep("backtrack", made[0].folder.parent, made, ["rate", "seed"], metric, flags)).splitlines()


def test_the_best_variant_is_that_of_the_seeds_and_then_its_best_run(job) -> None:
    values = {("0.1", 0): 2.0, ("0.1", 1): 2.2, ("0.2", 0): 1.0, ("0.2", 1): 9.0, ("0.3", 0): 0.5}
    made = [
        job(number, f"rate={rate} seed={seed}", {"fid_2k": value, "is_2k": value})
        for number, ((rate, seed), value) in enumerate(values.items())
    ]
    made.append(job(5, "rate=0.3 seed=1", None))
    lines = told(made)
    assert [line.split()[0] for line in lines[1:7]] == ["4", "2", "0", "1", "3", "5"], "the best first"
    table = [line.split() for line in lines[lines.index("fid_2k over the seeds (smaller is better):") + 2 :][:3]]
    assert [row[0] for row in table] == ["rate=0.1", "rate=0.2", "rate=0.3"]
    assert table[0][1:] == ["2", "2.1", "0.141421", "2", "2.2"]
    assert table[2][1:5] == ["1", "of", "2", "0.5"], "the seed that survived stands for nothing"
    assert "best variant: rate=0.1 (mean 2.1 of 2 seeds)" in lines
    assert "best run of the best variant: job 0 (rate=0.1 seed=0), fid_2k 2" in lines
    assert shlex.split(lines[-1]) == ["disback", "backtrack", "rate=0.1", "seed=0", "--config-dir", "my conf"]

    larger = told(made, "is_2k")
    assert "best variant: rate=0.2 (mean 5 of 2 seeds)" in larger
    assert "best run of the best variant: job 3 (rate=0.2 seed=1), is_2k 9" in larger


def test_a_number_that_no_job_has_is_told_at_once_and_the_default_one_ranks(job) -> None:
    values = {("0.1", 0): 2.0, ("0.1", 1): 2.2, ("0.2", 0): 1.0}
    made = [
        job(number, f"rate={rate} seed={seed}", {"fid_2k": value, "is_2k": value})
        for number, ((rate, seed), value) in enumerate(values.items())
    ]
    there = "there are fid_2k, is_2k"
    assert outcome(made[0], "kid_2k") == f"fid_2k 2  hydra.launcher.metric=kid_2k: this job has no such number; {there}"
    assert outcome(made[0], "is_2k") == "is_2k 2"
    lines = told(made, "kid_2k")
    assert [line.split()[0] for line in lines[1:4]] == ["2", "0", "1"], "the best first"
    lines.remove(f"hydra.launcher.metric=kid_2k: no job has this number; {there}, so the best is by fid_2k:")
    assert lines == told(made), "else as without a wish"
    nothing = job(3, "rate=1 seed=0", {"nodes": 4})
    assert told([nothing], "kid_2k")[-1] == "hydra.launcher.metric=kid_2k: this job has no such number; there are nodes"


def test_one_variant_has_a_best_run_of_its_own(job) -> None:
    made = [job(seed, f"rate=1 seed={seed}", {"fid_2k": 2.0 - seed}) for seed in (0, 1)]
    assert "best run: job 1 (rate=1 seed=1), fid_2k 1" in told(made)


def test_points_go_by_their_sliced_distance_and_a_repeated_run_by_the_words_it_ran_with(job) -> None:
    made = [job(n, f"rate={n}.12345678901 seed=0", {"fid_4k": n, "swd_4k": 1 - n}) for n in (0, 1)]
    runfolder.create(made[1].folder, "backtrack", "gmm_2d", ["path=/a b/c", "rate=1.12345678901", "resume=auto"])
    lines = told(made)
    assert "best run: job 1 (rate=1.123 seed=0), swd_4k 0" in lines
    assert "1.12345678901" not in "".join(lines[:-1]) and "repeat it:" in lines
    assert shlex.split(lines[-1])[2:4] == ["path=/a b/c", "rate=1.12345678901"]
    assert "resume" not in lines[-1]


def test_only_numbers_that_can_be_compared_have_a_best(job) -> None:
    made = [
        job(0, "rate=1 seed=0", {"fid_2k": 3.0}),
        job(1, "rate=2 seed=0", {"fid_2k": 1.0}, extractor="inception"),
        job(2, "rate=3 seed=0", {"fid_2k": 2.0}),
        job(3, "rate=4 seed=0", {"fid_2k": math.nan}),
    ]
    lines = told(made)
    assert [line.split()[0] for line in lines[1:5]] == ["0", "1", "2", "3"]
    best = [line for line in lines if line.startswith("best run")]
    assert best == ["best run: job 2 (rate=3 seed=0), fid_2k 2", "best run: job 1 (rate=2 seed=0), fid_2k 1"]
    assert sum(line.startswith("measured with ") for line in lines) == 2
    assert not any("best" in line for line in told([job(4, "rate=1 seed=0", None)]))


def search(metric: str | None = None, **settings: object) -> Search | None:
    return Search.of(OmegaConf.create({"_target_": "a.Searcher", "n_trials": 7, **settings}), metric)


def test_a_search_goes_on_after_jobs_that_failed_or_collapsed(job) -> None:
    made = [job(0, "rate=1", {"fid_2k": 3.0}), job(1, "rate=2", None), job(2, "rate=3", {"fid_2k": math.nan})]
    found = search(direction="minimize")
    assert found is not None and found.trials == 7
    assert [found.value(one, made) for one in made] == [3.0, math.inf, math.inf]
    larger = search("is_2k", direction="maximize")
    made = [job(3, "rate=1", {"is_2k": 3.0}), job(4, "rate=1", None)]
    assert larger is not None and [larger.value(one, made) for one in made] == [3.0, -math.inf]
    assert (
        Search.of(OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}), None)
        is None
    )


def test_a_search_without_anything_to_go_by_is_refused(job) -> None:
    with pytest.raises(UserError, match="give hydra.sweeper.direction=maximize"):
        search("precision_2k", direction="minimize")
    with pytest.raises(UserError, match="continued from its own folder"):
        search(storage="sqlite:///x.db")
    found = search()
    assert found is not None
    with pytest.raises(UserError, match="metrics=none measures nothing"):
        found.require_measured(OmegaConf.create({"metrics": {"n": 0}}))
    nothing = job(0, "rate=1", {"nodes": 4})
    with pytest.raises(UserError, match="job 0 has no distance .* its numbers are: nodes"):
        found.value(nothing, [nothing])
    others = [job(1, "rate=1", {"fid_2k": 1.0}), job(2, "rate=2", {"fid_2k": 1.0}, extractor="other")]
    with pytest.raises(SweepFailed, match="measured differently"):
        found.value(others[1], others)
    failed = [job(number, "rate=1", None) for number in (3, 4, 5)]
    found.require_hope(failed[:2])
    with pytest.raises(
        SweepFailed, match="no job has come to its end, so the search was stopped:\n  job 3 failed, see"
    ):
        found.require_hope(failed)


def test_a_law_for_both_losses_is_told_as_it_was_typed(job) -> None:
    follows = r"noise/generator=$\{noise/fake\}"
    laws = {"karras": 2.0, "narrow": 1.0}
    made = [job(n, f"noise/fake={law} {follows}", {"fid_2k": laws[law]}) for n, law in enumerate(laws)]
    swept = ["noise/fake"]
    assert sweeptable.labels(made, swept) == {0: "noise=karras", 1: "noise=narrow"}
    assert [row[:2] for row in sweeptable.table(made, swept)] == [["job", "noise"], ["0", "karras"], ["1", "narrow"]]
    lines = report(Sweep("backtrack", made[0].folder.parent, made, swept, None, [])).splitlines()
    assert "best run: job 1 (noise=narrow), fid_2k 1" in lines and lines[-1] == "  disback backtrack noise=narrow"
