"""Numbers that must not stand side by side."""

import pytest
from comparison_runs import MEASURED, write_run

from disback_cli.errors import UserError
from disback_cli.reporting.comparison.alike import require_alike
from disback_cli.reporting.comparison.runs import read_run

QUALITY = [8.0, 4.0]
MORE = ("digits", "22" * 32)


def checked(*folders):
    return require_alike([read_run(folder) for folder in folders])


@pytest.mark.parametrize(
    ("change", "number", "told"),
    [
        ({"n": 256}, "fid_256", "n: 2048 against 256"),
        ({"extractor": "inception"}, "fid_2k", "extractor: points against inception"),
        ({"reference_sha256": "ef" * 32}, "fid_2k", "reference_sha256: cdcd"),
        ({"resize": "clean"}, "fid_2k", "resize: none against clean"),
    ],
)
def test_another_n_extractor_or_reference_is_refused_and_the_runs_are_named(tmp_path, change, number, told):
    alike = [write_run(tmp_path / f"alike{seed}", QUALITY, seed=seed) for seed in range(2)]
    other = write_run(tmp_path / "other", QUALITY, number=number, measured=MEASURED | change)
    with pytest.raises(UserError) as refused:
        checked(*alike, other)
    message = str(refused.value)
    assert told in message
    assert f"one way: {alike[0]}, {alike[1]}\n  another way: {other}\n" in message


def test_what_only_names_the_reference_or_chooses_the_samples_is_no_obstacle(tmp_path):
    a = write_run(tmp_path / "a", QUALITY, measured=MEASURED | {"seed": 0})
    b = write_run(tmp_path / "b", QUALITY, measured=MEASURED | {"seed": 1, "reference_dataset": "mine", "kid": "x"})
    assert checked(a, b) == []


def test_settings_of_a_number_that_two_of_three_share_count_between_those_two(tmp_path):
    kinds = [{}, {"kid": "100 subsets of 1000"}, {"kid": "10 subsets of 100"}]
    runs = [write_run(tmp_path / str(i), QUALITY, measured=MEASURED | kind) for i, kind in enumerate(kinds)]
    assert checked(runs[0], runs[1]) == [] and checked(runs[0], runs[2]) == []
    with pytest.raises(UserError, match="kid: 100 subsets of 1000 against 10 subsets of 100"):
        checked(*runs)


def test_an_unfinished_run_is_judged_by_its_settings(tmp_path):
    done = write_run(tmp_path / "done", QUALITY)
    alike = write_run(tmp_path / "alike", QUALITY, state="interrupted")
    other = write_run(tmp_path / "other", QUALITY, state="running", config={"metrics": {"n": 512, "reference": None}})
    (note,) = checked(done, alike)
    assert "silent about how they were measured" in note and str(alike) in note
    with pytest.raises(UserError, match=r"other does not say how .* \(it is running\).*metrics.n: 2048 against 512"):
        checked(done, other)


def test_different_teachers_need_numbers_against_one_reference(tmp_path):
    one, same = write_run(tmp_path / "one", QUALITY), write_run(tmp_path / "same", QUALITY, teacher=MORE)
    other = write_run(tmp_path / "other", QUALITY, teacher=MORE, measured=MEASURED | {"reference_sha256": "ef" * 32})
    silent = write_run(tmp_path / "silent", QUALITY, teacher=MORE, number="loss", measured=None)
    (note,) = checked(one, same)
    assert "different teachers, measured against the same reference: gmm_2d: " in note
    with pytest.raises(UserError, match="They are of different teachers: gmm_2d and digits"):
        checked(one, other)
    with pytest.raises(UserError, match="of different teachers, and not all of them have numbers"):
        checked(one, silent)


def test_one_name_with_other_weights_is_another_teacher(tmp_path):
    one = write_run(tmp_path / "one", QUALITY)
    other = write_run(tmp_path / "other", QUALITY, teacher=("gmm_2d", "22" * 32))
    (note,) = checked(one, other)
    assert "gmm_2d (111111111111)" in note and "gmm_2d (222222222222)" in note
