"""What a reader must know of runs whose curves do not show it."""

import json

import pytest
import yaml
from comparison_runs import BATCH, EVERY, write_recording, write_run

from disback_cli.reporting.comparison.comparison import Wishes, compare
from disback_cli.reporting.comparison.runs import read_run
from disback_cli.reporting.comparison.starts import apart

NAN = float("nan")
FACTORIES = "disback_cli.distillation.students.factories"
ONE_STEP = {"_target_": f"{FACTORIES}.one_step", "sigma_init": 2.5, "weights": None}
LORA = {**ONE_STEP, "_target_": "disback_cli.distillation.lora.lora", "rank": 4, "seed": 3}
FEW_STEP = {"_target_": f"{FACTORIES}.few_step", "sigmas": [40.0, 4.0]}
OWN = {"_target_": "my.student", "sigma_init": 1.0}


def notes_of(*folders):
    return compare([str(folder) for folder in folders], Wishes()).notes


def test_measurements_that_are_not_finite_are_told(tmp_path):
    sound = write_run(tmp_path / "sound", [8.0, 4.0, 2.0])
    broken = write_run(tmp_path / "broken", [8.0, NAN, 2.0, float("inf")], seed=1)
    (told,) = notes_of(sound, broken)
    assert told == f"{broken}: measurements that are not finite are left out, at update 10, 30"


def test_a_run_that_went_on_without_being_measured_is_told(tmp_path):
    often = {"evaluate": {"every": EVERY * BATCH}, "batch_size": BATCH}
    only_at_the_end = {**often, "evaluate": {"every": 0}}
    quality, further = [8.0, 4.0, ""], {"fake_loss": [1.0, 1.0, 1.0]}
    sound = write_run(tmp_path / "sound", quality, extra=further, config=often)
    ended = write_run(tmp_path / "ended", [8.0, 4.0, "", ""], seed=1, extra={"x": [1.0] * 4}, config=often)
    silent = write_run(tmp_path / "silent", [8.0, "", "", ""], seed=2, extra={"x": [1.0] * 4}, config=only_at_the_end)
    (told,) = notes_of(sound, ended, silent)
    assert told.startswith(
        f"{ended}: last measured at update 10 and logged until 30, which is more than the 10 updates"
    )


@pytest.mark.parametrize(
    ("own", "recorded", "typed", "told"),
    [
        (ONE_STEP, {"kind": "one_step", "sigma_init": 2.5, "sha256": "0"}, None, []),
        (ONE_STEP, {"kind": "one_step", "sigma_init": 10.0}, None, ["sigma_init=10 there, 2.5 here"]),
        (ONE_STEP, {"kind": "few_step", "sigmas": [40.0, 4.0]}, None, ["few_step there, one_step here"]),
        (LORA, {"kind": "one_step", "sigma_init": 2.5}, {**LORA, "rank": 8, "seed": 5}, []),
        # a network of discrete time is asked at the levels nearest to those that were typed
        (FEW_STEP, {"kind": "few_step", "sigmas": [39.7, 4.1]}, FEW_STEP, []),
        (
            ONE_STEP,
            {"kind": "one_step", "sigma_init": 2.5},
            {**ONE_STEP, "weights": "/r"},
            ["weights=/r there, - here"],
        ),
        (OWN, {"kind": "mine", "sigma_init": 2.0}, None, ["sigma_init=2 there, 1 here"]),
    ],
)
def test_a_path_of_another_student_is_told(tmp_path, own, recorded, typed, told):
    path = write_recording(tmp_path / "record", student=recorded)
    if typed is not None:
        (path / "config.yaml").write_text(yaml.safe_dump({"student": typed}))
    run = write_run(tmp_path / "run", [8.0, 4.0], schedule="path", path=path, config={"student": own})
    assert apart(read_run(run)) == told
    notes = notes_of(run)
    assert (len(notes), "for another untrained student" in "".join(notes)) == (len(told), bool(told))
    assert all(what in notes[0] for what in told)


def test_a_path_that_is_not_walked_or_says_nothing_is_of_no_student(tmp_path):
    path = write_recording(tmp_path / "record", student={"kind": "few_step"})
    idle = write_run(tmp_path / "idle", [8.0, 4.0], path=path, config={"student": ONE_STEP})
    assert apart(read_run(idle)) == []
    walking = write_run(tmp_path / "walking", [8.0, 4.0], schedule="path", path=path, config={"student": ONE_STEP})
    manifest = json.loads((path / "path" / "path.json").read_text())
    (path / "path" / "path.json").write_text(json.dumps({**manifest, "student": None}))
    assert apart(read_run(walking)) == []
