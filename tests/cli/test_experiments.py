"""``experiment=NAME`` on the command line, before anything is composed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from disback_cli.configuration import check
from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.experiments import with_experiment
from disback_cli.configuration.run_id import register_run_id
from disback_cli.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = [(file.parent.name, file.stem) for file in sorted((CONF / "experiment").glob("*/*.yaml"))]


def words(verb: str, *given: str) -> list[str]:
    return with_experiment(verb, CommandLine.parse(given)).words()


def test_an_experiment_names_its_teacher_and_its_verb() -> None:
    found = words("record", "experiment=disback_ffhq64", "seed=3")
    assert found == ["teacher=edm_ffhq", "experiment/record=disback_ffhq64", "seed=3"]
    assert words("record", *found) == found


def test_a_teacher_of_the_users_own_stays() -> None:
    assert words("record", "experiment=disback_ffhq64", "teacher=edm_afhqv2") == [
        "experiment/record=disback_ffhq64",
        "teacher=edm_afhqv2",
    ]


def test_a_sweep_over_experiments_leaves_the_teacher_to_every_job() -> None:
    both = "experiment/backtrack=disback_cifar10,diff_instruct_cifar10"
    assert words("backtrack", "experiment=disback_cifar10,diff_instruct_cifar10") == [both]


def test_an_unknown_experiment_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="experiment=disback: .* it has disback_cifar10, disback_ffhq64"):
        words("record", "experiment=disback")
    with pytest.raises(UserError, match="`disback sample` has no such experiment; it has none"):
        words("sample", "experiment=disback_cifar10")


def test_a_users_folder_of_experiments_is_read(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "record" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ndefaults:\n  - override /teacher: gmm_2d\n")
    found = words("record", "experiment=mine", "--config-dir", str(tmp_path))
    assert found[:2] == ["teacher=gmm_2d", "experiment/record=mine"]


@pytest.mark.parametrize(("verb", "name"), EXPERIMENTS)
def test_every_experiment_composes_and_has_its_recording(verb: str, name: str) -> None:
    register_run_id()
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose(verb, [f"experiment/{verb}={name}"])
        check.check(cfg, verb)
        if verb == "backtrack" and "Path" in cfg.schedule._target_:
            recording = compose("record", [f"experiment/record={name}"])
            assert recording.teacher == cfg.teacher
            assert recording.student == cfg.student
            assert recording.noise.fake == cfg.noise.fake


def test_published_settings_of_diff_instruct() -> None:
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose("backtrack", ["experiment/backtrack=diff_instruct_cifar10"])
    assert (cfg.batch_size, cfg.lr.student, cfg.lr.fake, cfg.student.sigma_init) == (128, 1e-5, 1e-5, 1.0)
    assert (list(cfg.optimizer.betas), cfg.ema.halflife) == ([0.0, 0.999], 500000)
    assert cfg.schedule._target_.endswith("EndpointSchedule")
    assert cfg.noise.generator == cfg.noise.fake == {**cfg.noise.fake, "mean": -1.2, "std": 1.2}
