"""The formats of images through the installed command: measured, made into references, trained on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from disback_command import Workplace, load, refused, rows_without_times, state_of, succeeded, together

from disback_cli.data.digits import digits
from disback_cli.evaluation.features import InceptionFeatures
from disback_cli.evaluation.inception import Inception2015

sys.path.append(str(Path(__file__).parents[1] / "data"))

from image_files import edm_files, encoded, some_images, write_folder, write_tar, write_zip  # noqa: E402

N = 200
FORMATS = ("folder", "zip", "tar", "npz")


@pytest.fixture(scope="module")
def place(make_workplace: Callable[[str], Workplace]) -> Workplace:
    """A workplace with the same 200 faint digits in every format, and 300 others as an EDM archive with labels."""
    made = make_workplace("formats")
    data = digits()
    assert data.labels is not None
    faint = (data.images[:N] - data.images[:N] // 8).numpy()
    files = {f"{index:04d}.png": encoded(image) for index, image in enumerate(faint)}
    write_folder(made.folder / "faint.folder", files)
    write_zip(made.folder / "faint.zip", files)
    write_tar(made.folder / "faint.tar", files)
    np.savez(made.folder / "faint.npz", images=faint.transpose(0, 2, 3, 1))
    write_zip(made.folder / "set.zip", edm_files(data.images[N : N + 300].numpy(), data.labels[N : N + 300].tolist()))
    return made


@pytest.fixture(scope="module")
def reference(place: Workplace) -> Path:
    """The archive's statistics as anybody publishes them: mu and sigma, and nothing else."""
    succeeded(place("stats", "dataset=edm", "dataset.path=set.zip", "out=full.npz"))
    with np.load(place.folder / "full.npz") as archive:
        assert '"dataset": "set"' in str(archive["provenance"])
        np.savez(place.folder / "bare.npz", mu=archive["mu"], sigma=archive["sigma"])
    return place.folder / "bare.npz"


@pytest.fixture(scope="module")
def measured(place: Workplace, reference: Path) -> dict[str, dict[str, float]]:
    """What each format is measured as, and what the first is against the file that says more."""
    words = ("evaluate", "metrics=digits", f"metrics.n={N}")
    against = {kind: (f"images=faint.{kind}", f"metrics.reference={reference}", f"runs={kind}") for kind in FORMATS}
    against["full"] = ("images=faint.zip", "metrics.reference=full.npz", "runs=full")
    together(*[lambda more=more: succeeded(place(*words, *more)) for more in against.values()])
    return {
        kind: load(place.run_of("evaluate", more[-1].removeprefix("runs=")) / "summary.json")["metrics"]
        for kind, more in against.items()
    }


@pytest.mark.parametrize("kind", FORMATS[1:])
def test_the_same_images_are_measured_alike_in_every_format(measured: dict[str, dict[str, float]], kind: str) -> None:
    assert measured[kind] == measured["folder"]
    assert measured["folder"][f"fid_{N}"] > 5


def test_bare_statistics_measure_alike(measured: dict[str, dict[str, float]]) -> None:
    assert measured["full"] == measured["zip"]


def test_a_teacher_is_trained_on_an_archive_and_its_mirror_images(place: Workplace) -> None:
    words = ("pretrain", "dataset=edm", "dataset.path=set.zip", "iterations=2", "batch_size=16", "metrics=none")
    words = (*words, "teacher.denoiser.network.model_channels=8", "checkpoint.every=2", "log_every=1")
    together(
        lambda: succeeded(place(*words, "dataset.flip=true", "runs=flipped")),
        lambda: succeeded(place(*words, "runs=plain")),
    )
    flipped, plain = (place.run_of("pretrain", root) for root in ("flipped", "plain"))
    assert state_of(flipped) == state_of(plain) == "finished"
    losses = [rows_without_times(run) for run in (flipped, plain)]
    assert len(losses[0]) == 2 and losses[0] != losses[1], "other images, other losses"
    assert (flipped / "teacher" / "model.safetensors").is_file()


def test_labels_that_no_network_could_take_are_refused(place: Workplace) -> None:
    image = {"a.png": encoded(some_images(1)[0])}
    write_zip(place.folder / "many.zip", image | {"dataset.json": b'{"labels": [["a.png", 1' + b"0" * 24 + b"]]}"})
    write_zip(place.folder / "deep.zip", image | {"dataset.json": b"[" * 100_000})
    many, deep = together(
        lambda: place("stats", "dataset=edm", "dataset.path=many.zip", "runs=refused"),
        lambda: place("stats", "dataset=edm", "dataset.path=deep.zip", "runs=refused"),
    )
    refused(many, f"label {10**24} of image 0 makes more than 1,000,000 classes")
    refused(deep, "deep.zip: not valid JSON: nested too deeply")


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of two sets of features, [n, d] and [m, d], by their n m inner products alone."""
    a_centred, b_centred = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    cross = np.linalg.svd(a_centred @ b_centred.T, compute_uv=False).sum()  # trace of (S_a S_b)^(1/2)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + (a_centred**2).sum() + (b_centred**2).sum() - 2 * cross)


@pytest.mark.slow
def test_inception_measures_what_its_features_say(place: Workplace) -> None:
    torch.manual_seed(0)
    torch.save(Inception2015().state_dict(), place.folder / "inception.pth")
    own, other = some_images(20), some_images(24, seed=1) // 2
    write_zip(place.folder / "own.zip", edm_files(own))
    write_folder(place.folder / "other", edm_files(other, label_file=False))
    words = ("evaluate", "metrics=inception", "metrics.extractor.weights=inception.pth", "metrics.batch_size=10")
    sets = ("images=own.zip", "dataset=image_folder", "dataset.path=other", "dataset.use_labels=false")
    succeeded(place(*words, *sets, "metrics.n=20", "metrics.splits=2", "runs=inception"))
    summary = load(place.run_of("evaluate", "inception") / "summary.json")
    features = InceptionFeatures(weights=place.folder / "inception.pth")
    with torch.no_grad():
        found = [features(torch.from_numpy(images))[0].double().numpy() for images in (own, other)]
    assert summary["metrics"]["fid_20"] == pytest.approx(frechet(*found), rel=1e-3)
    assert summary["metrics"]["fid_20"] > 0 and "is_20" in summary["metrics"]
    assert summary["measured_with"]["resize"] == "tf_bilinear"
