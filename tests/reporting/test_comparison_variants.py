"""Which runs are repetitions, what the variants are called, and what each is compared with."""

import pytest
from comparison_runs import write_recording, write_run

from disback_cli.errors import UserError
from disback_cli.reporting.comparison.runs import read_run
from disback_cli.reporting.comparison.variants import baselines, differences, group, text_of

QUALITY = [8.0, 4.0, 2.0]


def grouped(*folders, notes=None):
    return group([read_run(folder) for folder in folders], [] if notes is None else notes)


def test_seed_recording_and_how_a_run_is_watched_make_no_difference(tmp_path):
    folders = []
    for seed in (1, 0):
        path = write_recording(tmp_path / f"record{seed}", seed)
        config = {"logger": {"_target_": f"logger{seed}"}, "trainer": {"threads": seed + 1}, "runs": f"runs{seed}"}
        for schedule in ("path", "endpoint"):
            folder = tmp_path / f"{schedule}{seed}"
            folders.append(write_run(folder, QUALITY, seed=seed, schedule=schedule, path=path, config=config))
    found = grouped(*folders)
    assert [(v.label, [run.seed for run in v.runs]) for v in found] == [
        ("schedule=path", [0, 1]),
        ("schedule=endpoint", [0, 1]),
    ]
    assert {d.key: d.values for d in differences([v.settings for v in found])} == {
        "schedule._target_": tuple(f"disback_cli.distillation.schedules.{n}Schedule" for n in ("Path", "Endpoint")),
        "path": ("given", None),
    }


def test_seeds_that_follow_the_runs_make_no_difference_and_fixed_ones_do(tmp_path):
    def pair(name):
        return [write_run(tmp_path / f"{name}{seed}", QUALITY, seed=seed, config={
            "student": {"seed": seed if name == "follows" else 7 * seed}, "fake": {"seed": 5},
            "teacher": {"name": "gmm_2d", "seed": 0}}) for seed in (0, 1)]  # fmt: skip

    assert [len(variant.runs) for variant in grouped(*pair("follows"))] == [2]
    assert [variant.label for variant in grouped(*pair("fixed"))] == ["student.seed=0", "student.seed=7"]


def test_how_the_path_was_recorded_makes_a_difference(tmp_path):
    folders = []
    for spacing in ("distance", "steps"):
        for seed in (0, 1):
            path = write_recording(tmp_path / f"record_{spacing}{seed}", seed, spacing=spacing)
            folders.append(write_run(tmp_path / f"{spacing}{seed}", QUALITY, seed=seed, schedule="path", path=path))
    found = grouped(*folders)
    assert [(v.label, len(v.runs)) for v in found] == [("path.spacing=distance", 2), ("path.spacing=steps", 2)]


def test_which_student_the_path_was_recorded_for_makes_a_difference_and_its_weights_none(tmp_path):
    folders = []
    for seed, levels in enumerate([[40.0, 4.0], [40.0, 4.0], [2.5, 0.8]]):
        student = {"kind": "few_step", "sigmas": levels, "sha256": f"{seed}" * 64}
        path = write_recording(tmp_path / f"record{seed}", seed, student=student)
        folders.append(write_run(tmp_path / f"run{seed}", QUALITY, seed=seed, schedule="path", path=path))
    found = grouped(*folders)
    assert [(v.label, len(v.runs)) for v in found] == [
        ("path.student=few_step sigmas=[40.0, 4.0]", 2),
        ("path.student=few_step sigmas=[2.5, 0.8]", 1),
    ]


def test_the_samples_in_a_pass_make_a_difference_to_a_divergence_only(tmp_path):
    def variants_of(name, objective):
        return grouped(*[write_run(tmp_path / f"{name}{most}", QUALITY, seed=i, words=[f"trainer.max_batch={most}"],
                         config={"objective": objective, "trainer": {"max_batch": most, "threads": i}})
                         for i, most in enumerate((None, 8))])  # fmt: skip

    assert len(variants_of("plain", {"_target_": "a.B"})) == 1
    found = variants_of("ratio", {"_target_": "a.B", "divergence": "js"})
    assert [v.label for v in found] == ["trainer.max_batch=-", "trainer.max_batch=8"]


def test_a_recording_that_is_gone_is_not_compared_and_that_is_told(tmp_path):
    path = write_recording(tmp_path / "record")
    kept = write_run(tmp_path / "kept", QUALITY, schedule="path", path=path)
    gone = write_run(tmp_path / "gone", QUALITY, seed=1, schedule="path", path=tmp_path / "removed")
    notes = []
    (variant,) = grouped(kept, gone, notes=notes)
    assert len(variant.runs) == 2 and "path is not compared" in notes[0] and str(gone) in notes[0]


def test_repetitions_of_a_seed_are_one_result(tmp_path):
    first = write_run(tmp_path / "first", QUALITY, state="interrupted")
    second = write_run(tmp_path / "second", QUALITY)
    notes = []
    (variant,) = grouped(second, first, notes=notes)
    assert [run.folder for run in variant.runs] == [second]
    assert notes == [f"{first} repeats {second} (seed 0) and is left out"]


def test_labels_are_the_words_that_differ(tmp_path):
    common = {"words": ["iterations=20"]}
    runs = [
        write_run(tmp_path / "a", QUALITY, **common, config={"lr": {"student": 1.0}}),
        write_run(tmp_path / "b", QUALITY, words=["iterations=20", "lr.student=2"], config={"lr": {"student": 2.0}}),
        write_run(tmp_path / "c", QUALITY, schedule="warm_start", words=["iterations=20", "lr.student=2"],
                  config={"lr": {"student": 2.0}}),
    ]  # fmt: skip
    labels = [variant.label for variant in grouped(*runs)]
    assert labels == ["schedule=endpoint", "schedule=endpoint lr.student=2", "schedule=warm_start lr.student=2"]
    assert [v.label for v in grouped(runs[0])] == ["schedule=endpoint"]


def test_words_that_make_no_difference_are_no_part_of_a_label(tmp_path):
    shared = {"student": {"sigma_init": 2.5}, "noise": {"fake": {"std": 1.2}}}
    words = ["student=one_step", "noise/fake=lognormal", "noise.fake.std=1.2", "experiment=mine"]
    runs = [
        write_run(tmp_path / "a", QUALITY, schedule="path", words=words, config=shared),
        write_run(tmp_path / "b", QUALITY, config=shared),
    ]
    assert [variant.label for variant in grouped(*runs)] == ["schedule=path experiment=mine", "schedule=endpoint"]


def test_variants_that_were_typed_alike_are_called_by_their_settings(tmp_path):
    runs = [
        write_run(tmp_path / name, QUALITY, config={"objective": {"_target_": f"a.b.c.{name}", "h": h}, "x": h})
        for name, h in (("Dmd", 1.0), ("Dmd2", 1.0), ("Dmd3", 0.5))
    ]
    assert [v.label for v in grouped(*runs)] == ["objective=Dmd", "objective=Dmd2", "objective=Dmd3"]


def test_each_variant_is_compared_with_the_nearest_baseline(tmp_path):
    runs = [
        write_run(tmp_path / f"{objective}{schedule}", QUALITY, schedule=schedule, words=[f"objective={objective}"],
                  config={"objective": {"_target_": objective}})
        for objective in ("dmd", "sid") for schedule in ("warm_start", "endpoint")
    ]  # fmt: skip
    found = grouped(*runs)
    assert baselines(found, None) == [1, 1, 3, 3]
    assert baselines(found, "objective=dmd") == [0, 1, 0, 1]
    assert baselines(found, "schedule=warm_start objective=sid") == [2, 2, 2, 2]
    with pytest.raises(UserError, match="--baseline objective=x: no variant is called that; there are: "):
        baselines(found, "objective=x")


def test_without_an_endpoint_the_first_variant_is_the_baseline(tmp_path):
    runs = [write_run(tmp_path / s, QUALITY, schedule=s) for s in ("warm_start", "path")]
    assert baselines(grouped(*runs), None) == [0, 0]


def test_values_as_they_are_read():
    assert [text_of(v) for v in (None, "a.b.Class", 1e-5, True, "x/y.png", [1, 2])] == [
        "-", "Class", "1e-05", "True", "x/y.png", "[1, 2]",
    ]  # fmt: skip


def test_where_every_variant_is_called_that_the_first_is_the_baseline(tmp_path):
    runs = [
        write_run(tmp_path / name, QUALITY, words=[f"objective={name}"], config={"objective": {"_target_": name}})
        for name in ("dmd", "sid", "vsd")
    ]
    assert baselines(grouped(*runs), None) == baselines(grouped(*runs), "schedule=endpoint") == [0, 0, 0]


def test_two_laws_that_were_set_together_are_called_by_the_shorthand(tmp_path):
    laws = {
        "karras": ["noise/fake=karras", r"noise/generator=$\{noise/fake\}"],
        "narrow": ["noise/fake=narrow", "noise/generator=narrow"],
    }
    found = grouped(*[
        write_run(tmp_path / law, QUALITY, words=words, config={"noise": {"fake": {"a": law}, "generator": {"a": law}}})
        for law, words in laws.items()
    ])  # fmt: skip
    assert [variant.label for variant in found] == ["noise=karras", "noise=narrow"]
    assert baselines(found, "noise=narrow") == baselines(found, "noise/fake=narrow") == [1, 1]
