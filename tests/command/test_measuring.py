"""`disback stats` and `disback evaluate` as processes: files they leave, numbers they agree on, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disback_command import TWO_PROCESSES, Workplace, leftovers, load, refused, state_of, succeeded, together

from disback_cli.data.digits import digits


@pytest.fixture(scope="module")
def place(make_workplace: Callable[[str], Workplace]) -> Workplace:
    """A workplace with 600 digits of two kinds, and a data set for the kind that is drawn."""
    made = make_workplace("measuring")
    images = digits().images.permute(0, 2, 3, 1).numpy()
    np.savez(made.folder / "digits.npz", images=images[:600])
    np.savez(made.folder / "faint.npz", images=images[:600] - images[:600] // 8)
    return made


@pytest.fixture(scope="module")
def reference(place: Workplace) -> Path:
    """Statistics that two processes computed together, with features."""
    words = ("stats", "dataset=npz", "dataset.path=digits.npz", "metrics.batch_size=100", "out=reference.npz")
    done = succeeded(place(*words, "metrics.kid=true", *TWO_PROCESSES))
    with np.load(place.folder / "reference.npz") as archive:
        moments = {name: archive[name] for name in ("mu", "sigma", "provenance")}
    np.savez(place.folder / "moments.npz", **moments)
    assert "digits train, 600 samples of shape [1, 8, 8]" in done.stdout
    assert "metrics.reference=reference.npz" in done.stdout
    return place.folder / "reference.npz"


def test_statistics_are_edms_file_and_say_what_they_are_of(place: Workplace, reference: Path) -> None:
    run = place.run_of("stats")
    assert state_of(run) == "finished" and leftovers(place.folder / "runs") == []
    facts = load(run / "summary.json")
    assert facts["n"] == facts["features"] == 600 and facts["file"] == str(reference)
    with np.load(reference) as archive:
        assert archive["mu"].shape == (64,) and archive["sigma"].shape == (64, 64)
        assert archive["mu"].dtype == archive["sigma"].dtype == np.float64
        assert facts["sha256"] in str(archive["provenance"]) and archive["features"].shape == (600, 64)
        two = archive["sigma"]
    cache = place.environment | {"DISBACK_CACHE": str(place.folder / "other cache")}
    alone = Workplace(place.folder, cache)
    words = ("dataset=npz", "dataset.path=digits.npz", "metrics.batch_size=100", "out=alone.npz", "runs=elsewhere")
    succeeded(alone("stats", *words))
    with np.load(place.folder / "alone.npz") as archive:
        assert "features" not in archive.files
        assert np.allclose(archive["sigma"], two, rtol=1e-9, atol=1e-12)


def test_images_are_measured_alike_by_one_and_by_two(place: Workplace, reference: Path) -> None:
    words = ("evaluate", "images=faint.npz", f"metrics.reference={reference}", "metrics.batch_size=40", "ranges=3")
    more = ("metrics.kid=true", "metrics.precision_recall=true")
    one, two = together(
        lambda: succeeded(place(*words, *more, "runs=one")),
        lambda: succeeded(place(*words, *more, *TWO_PROCESSES, "runs=two")),
    )
    found = [load(place.run_of("evaluate", root) / "summary.json") for root in ("one", "two")]
    assert found[0]["metrics"] == pytest.approx(found[1]["metrics"], rel=1e-9, abs=1e-12)
    for shown in (one.stdout, two.stdout):
        assert shown.count("n = 200; features digits-classifier-1 (") == 1
        assert "resize none; reference digits train (" in shown and ") of 600 samples" in shown
        assert "images, samples 400..599" in shown
    assert "holds 600 images: n = 200" in one.stderr and two.stderr.count("holds 600 images") == 1
    numbers = found[0]["metrics"]
    assert numbers["fid_200_min"] == min(part["fid_200"] for part in found[0]["ranges"])
    assert numbers["fid_200_mean"] == pytest.approx(np.mean([part["fid_200"] for part in found[0]["ranges"]]))
    assert [part["first"] for part in found[0]["ranges"]] == [0, 200, 400]
    assert numbers["fid_200_min"] > 5 and 0 < numbers["recall_200_max"] < 1 and "kid_std_200_mean" in numbers
    assert found[0]["measured_with"]["reference_n"] == 600 and found[0]["measured_with"]["resize"] == "none"
    assert found[0]["generator"]["count"] == 600 and (place.run_of("evaluate", "one") / "grid.png").is_file()
    assert place.run_of("evaluate", "two").parent.name == "images"


def test_of_more_images_a_random_part_is_measured(place: Workplace, reference: Path) -> None:
    """The first ones by name are no fair part of a set that is sorted by class."""
    images = digits()
    assert images.labels is not None
    by_class = images.images[:600][images.labels[:600].argsort()].permute(0, 2, 3, 1).numpy()
    np.savez(place.folder / "sorted.npz", images=by_class)
    done = succeeded(
        place("evaluate", "images=sorted.npz", f"metrics.reference={reference}", "metrics.n=200", "runs=part")
    )
    summary = load(place.run_of("evaluate", "part") / "summary.json")
    assert summary["generator"]["measured"] == "200 of 600 images, a fixed random part"
    assert "200 of 600 images, a fixed random part" in done.stderr and "a fixed random part" in done.stdout
    assert summary["metrics"]["fid_200"] < 6 and summary["metrics"]["is_200"] > 4, "all classes are there"


def test_a_set_is_at_no_distance_from_its_own_statistics(place: Workplace, reference: Path) -> None:
    succeeded(place("evaluate", "images=digits.npz", f"metrics.reference={reference}", "runs=own"))
    assert load(place.run_of("evaluate", "own") / "summary.json")["metrics"]["fid_600"] < 1e-6


@pytest.mark.slow
def test_a_teacher_is_measured_by_two_processes(place: Workplace) -> None:
    words = ("evaluate", "teacher=gmm_2d", "metrics.n=300", "metrics.batch_size=64", "metrics.kid=true")
    together(
        lambda: succeeded(place(*words, "runs=one_teacher")),
        lambda: succeeded(place(*words, *TWO_PROCESSES, "runs=two_teacher")),
    )
    one, two = (load(place.run_of("evaluate", f"{root}_teacher") / "summary.json") for root in ("one", "two"))
    assert one["metrics"] == pytest.approx(two["metrics"], rel=1e-9, abs=1e-12)
    assert two["metrics"].keys() == {"fid_300", "kid_300", "kid_std_300", "swd_300"}


def test_what_cannot_be_measured(place: Workplace, reference: Path) -> None:
    np.savez(place.folder / "large.npz", images=np.zeros((8, 16, 16, 1), np.uint8))
    faults: dict[tuple[str, ...], str] = {
        ("evaluate", "images=digits.npz", "metrics.n=300", "ranges=3"): "takes 900; give metrics.n=200 or less",
        ("evaluate", "images=digits.npz", "seed=1"): "seed= has no meaning",
        (
            "evaluate",
            "images=large.npz",
            f"metrics.reference={reference}",
            *TWO_PROCESSES,
        ): "samples of shape (1, 16, 16)",
        ("evaluate", "images=digits.npz", "metrics.reference=moments.npz", "metrics.kid=true"): "holds none",
        ("evaluate", "images=digits.npz", "metrics.kid=yes please"): "metrics.kid=yes please: must be true or false",
        ("evaluate", "images=digits.npz", "metrics=points"): "looks at points, images=",
        ("evaluate", "teacher=gmm_2d", "metrics=digits"): "looks at images, the teacher gmm_2d makes samples",
        ("evaluate", "images=digits.npz", "metrics.reference=moments.npz", "dataset=digits"): "would be ignored",
        ("stats", "dataset=gmm_2d"): "looks at images, ring8 has samples of shape (2,)",
        ("stats", "metrics=points"): "looks at points, digits has samples of shape (1, 8, 8)",
        ("stats", "out=runs"): "try out=",
        ("stats", "metrics.n=100"): "metrics.n=100 would be ignored",
        ("stats", "metrics.reference=reference.npz"): "metrics.reference= is what this verb makes",
    }
    calls = [lambda words=words: place(*words, "runs=refused") for words in faults]
    for words, done in zip(faults, together(*calls), strict=True):
        refused(done, faults[words])
        assert done.stderr.count("disback ") <= 3, words
    assert not (place.folder / "refused").exists(), "a refused command leaves nothing"
