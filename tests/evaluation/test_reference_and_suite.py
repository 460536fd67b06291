"""Reference statistics on disk, the names of numbers, and the refusal to compare what is not comparable."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from disback_cli.data.dataset import ImageDataset
from disback_cli.data.digits import digits
from disback_cli.data.points import ring
from disback_cli.data.views import Mirrored
from disback_cli.errors import UserError
from disback_cli.evaluation import reference
from disback_cli.evaluation.comparable import describe_measurement, refuse_mixing
from disback_cli.evaluation.features import DigitsFeatures, PointFeatures, require_fitting
from disback_cli.evaluation.reference import ReferenceStatistics, cached, compute, default_cache
from disback_cli.evaluation.suite import EvaluationSuite, count_suffix


def draw(n: int, seed: int = 0) -> torch.Tensor:
    """n digits with replacement, in the model's range."""
    data = digits()
    return data.batch(torch.randint(0, len(data), (n,), generator=torch.Generator().manual_seed(seed)))[0]


def measure(suite: EvaluationSuite, x: torch.Tensor, batch: int = 256) -> dict[str, float]:
    suite.reset()
    for part in torch.arange(len(x)).split(batch):
        suite.update(x[part], part)
    return suite.compute()


def test_statistics_are_numpys() -> None:
    data, extractor = digits(), DigitsFeatures()
    features = extractor(data.images)[0].double().numpy()
    for batch_size in (100, 5000):
        found = compute(data, extractor, batch_size)
        assert np.allclose(found.mu, features.mean(0), rtol=1e-6, atol=1e-6)
        assert np.allclose(found.sigma, np.cov(features, rowvar=False), rtol=1e-5, atol=1e-5)
        assert found.n == 1797 and found.provenance["extractor_sha256"] == extractor.sha256


def test_round_trip_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISBACK_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "references"
    first = cached(digits(), DigitsFeatures())
    (path,) = default_cache().iterdir()  # and no temporary file beside it
    again = ReferenceStatistics.load(path)
    assert again.provenance == first.provenance and again.n == 1797
    assert np.array_equal(again.mu, first.mu) and np.array_equal(again.sigma, first.sigma)
    before = path.stat().st_mtime_ns
    cached(digits(), DigitsFeatures())
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "other"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    extractor = PointFeatures()
    data = ring(n=100)
    first = cached(data, extractor, tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        at = content.find(first.mu.tobytes())
        content[at + 3] ^= 1
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("not an archive")
    else:
        compute(ring(n=101), extractor).save(path)
    with caplog.at_level(logging.WARNING):
        second = cached(data, extractor, tmp_path)
    assert "computing it again" in caplog.text
    assert np.array_equal(first.mu, second.mu) and np.array_equal(ReferenceStatistics.load(path).mu, first.mu)


def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert cached(ring(n=50), PointFeatures(), tmp_path / "file").n == 50
    assert "could not store" in caplog.text


def test_the_fields_npz_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = compute(digits(), DigitsFeatures())
    np.savez(tmp_path / "cifar10-32x32.npz", mu=own.mu, sigma=own.sigma)
    loaded = ReferenceStatistics.load(tmp_path / "cifar10-32x32.npz")
    assert loaded.n is None and loaded.provenance["dataset"] == "cifar10-32x32" and loaded.provenance["sha256"]
    suite = EvaluationSuite(DigitsFeatures(), n=64, reference=tmp_path / "cifar10-32x32.npz")
    assert caplog.text.count("taken on trust") == 1
    EvaluationSuite(DigitsFeatures(), n=64, reference=loaded)
    assert caplog.text.count("taken on trust") == 1, "said once, when the file is opened"
    assert suite.provenance()["reference_n"] is None
    assert measure(suite, draw(64))["fid_64"] > 0


def test_features_are_kept_when_they_are_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extractor = DigitsFeatures()
    plain = cached(digits(), extractor, tmp_path)
    (path,) = tmp_path.iterdir()
    small = path.stat().st_size
    assert plain.features is None and ReferenceStatistics.load(path, features=True).features is None
    kept = cached(digits(), extractor, tmp_path, features=True)
    assert [path] == list(tmp_path.iterdir()) and path.stat().st_size > small + 1797 * 64 * 4
    assert kept.features is not None and kept.features.dtype == np.float32
    assert np.allclose(kept.features, extractor(digits().images)[0].numpy(), atol=1e-5)
    assert np.array_equal(kept.mu, plain.mu) and kept.provenance == plain.provenance
    before = path.stat().st_mtime_ns
    again = cached(digits(), extractor, tmp_path, features=True)
    assert np.array_equal(again.features, kept.features) and cached(digits(), extractor, tmp_path).features is None
    assert path.stat().st_mtime_ns == before and not caplog.records


def test_some_features_of_a_large_set_are_kept_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MAX_FEATURES", 30)
    data = ring(n=100)
    found = [compute(data, PointFeatures(), size, features=True).features for size in (100, 7)]
    assert found[0] is not None and found[0].shape == (30, 2) and np.array_equal(*found)
    rows = {tuple(row) for row in data.points.numpy().tolist()}
    assert len({tuple(row) for row in found[0].tolist()} & rows) == 30
    assert not np.array_equal(found[0], data.points[:30].numpy())


def test_a_mirrored_set_is_measured_without_its_mirror_images() -> None:
    plain, mirrored = (compute(data, DigitsFeatures()) for data in (digits(), Mirrored(digits())))
    assert mirrored.n == 1797 and mirrored.provenance == plain.provenance
    assert np.array_equal(mirrored.mu, plain.mu) and np.array_equal(mirrored.sigma, plain.sigma)


def test_kid_needs_features_of_the_reference(tmp_path: Path) -> None:
    data, extractor = digits(), DigitsFeatures()
    path = compute(data, extractor).save(tmp_path / "moments.npz")
    with pytest.raises(UserError, match="metrics.kid=true"):
        EvaluationSuite(extractor, n=64, reference=path, kid=True)
    with pytest.raises(UserError, match="metrics.kid=true"):
        EvaluationSuite(extractor, n=64, reference=path, precision_recall=True)
    path = compute(data, extractor, features=True).save(tmp_path / "features.npz")
    from_file = EvaluationSuite(extractor, n=300, reference=path, kid=True, precision_recall=True)
    from_data = EvaluationSuite(extractor, data, 300, cache_dir=tmp_path, kid=True, precision_recall=True)
    x = draw(300)
    found = measure(from_file, x)
    assert found == measure(from_data, x)
    assert tuple(found) == from_file.names
    assert found["precision_300"] > 0.9 and found["recall_300"] > 0.5
    noise = measure(from_file, torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert noise["kid_300"] > 50 * abs(found["kid_300"]) and noise["precision_300"] < 0.5
    with pytest.raises(UserError, match="more than 3 samples"):
        EvaluationSuite(extractor, data, 3, cache_dir=tmp_path, precision_recall=True)


def test_unreadable_references_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.npz"):
        ReferenceStatistics.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "half.npz", mu=np.zeros(3))
    with pytest.raises(UserError, match="sigma"):
        ReferenceStatistics.load(tmp_path / "half.npz")
    np.savez(tmp_path / "shape.npz", mu=np.zeros(3), sigma=np.zeros(3))
    with pytest.raises(UserError, match="sigma"):
        ReferenceStatistics.load(tmp_path / "shape.npz")


def test_a_matrix_that_is_no_covariance_is_refused(tmp_path: Path) -> None:
    """Against one, the distance would be too small, and for a negated one 0."""
    own = compute(digits(), DigitsFeatures())
    values, vectors = np.linalg.eigh(own.sigma)
    values[0] = -0.01 * values[-1]
    indefinite = (vectors * values) @ vectors.T
    faults = {
        "negative numbers on its diagonal": -own.sigma,
        "not symmetric": np.triu(own.sigma),
        "negative eigenvalues": (indefinite + indefinite.T) / 2,
    }
    for reason, sigma in faults.items():
        np.savez(tmp_path / "wrong.npz", mu=own.mu, sigma=sigma)
        with pytest.raises(UserError, match=reason):
            ReferenceStatistics.load(tmp_path / "wrong.npz")
    singular = np.outer(own.mu, own.mu)
    np.savez(tmp_path / "singular.npz", mu=own.mu, sigma=singular)
    assert ReferenceStatistics.load(tmp_path / "singular.npz").feature_dim == 64, "few samples give a singular one"


def test_shapes_that_an_extractor_cannot_look_at() -> None:
    faults = [
        (PointFeatures(), (1, 8, 8), "points looks at points, mine are samples of shape .1, 8, 8.; choose metrics=inc"),
        (PointFeatures(), (3,), "feature_dim=2 takes points of 2 numbers"),
        (DigitsFeatures(), (2,), "looks at images, mine are samples of shape .2,.; choose metrics=points"),
        (DigitsFeatures(), (3, 32, 32), r"takes images \[1, 8, 8\]; choose metrics=inception"),
    ]
    for extractor, shape, message in faults:
        with pytest.raises(UserError, match=message):
            require_fitting(extractor, shape, "mine are")
    require_fitting(PointFeatures(), (2,), "mine are")
    require_fitting(DigitsFeatures(), (1, 8, 8), "mine are")


def test_a_foreign_reference_is_refused() -> None:
    reference = compute(ring(n=100), PointFeatures())
    with pytest.raises(UserError, match="has 2 features.*for its features give metrics=points"):
        EvaluationSuite(DigitsFeatures(), n=100, reference=reference)
    own = compute(digits(), DigitsFeatures())
    stale = ReferenceStatistics(own.mu, own.sigma, own.n, {**own.provenance, "extractor_sha256": "0" * 64})
    with pytest.raises(UserError, match="extractor_sha256"):
        EvaluationSuite(DigitsFeatures(), n=100, reference=stale)
    with pytest.raises(UserError, match="needs a data set"):
        EvaluationSuite(DigitsFeatures(), n=100)


@pytest.mark.parametrize(
    ("n", "suffix"),
    [(500, "500"), (1000, "1k"), (2000, "2k"), (2048, "2k"), (50_000, "50k"), (10_240, "10k"), (1797, "1797")],
)
def test_names_carry_the_count(n: int, suffix: str) -> None:
    assert count_suffix(n) == suffix


def test_data_floor_and_distance_of_noise(tmp_path: Path) -> None:
    suite = EvaluationSuite(DigitsFeatures(), digits(), 2048, cache_dir=tmp_path)
    assert suite.names == ("fid_2k", "is_2k", "is_std_2k")
    floor = measure(suite, draw(2048))
    noise = measure(suite, torch.rand(2048, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert 0 < floor["fid_2k"] < 1 and floor["is_2k"] > 7
    assert noise["fid_2k"] > 100 and noise["is_2k"] < 2
    data = digits()
    assert data.labels is not None
    kept = torch.ne(data.labels, 3).nonzero()[:, 0]
    dropped = data.batch(kept[torch.randint(0, len(kept), (2048,), generator=torch.Generator().manual_seed(0))])[0]
    assert measure(suite, dropped)["fid_2k"] > 5  # a missing class is many floors away


def test_the_numbers_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    suite = EvaluationSuite(DigitsFeatures(), digits(), 200, cache_dir=tmp_path).to("cpu")
    x = draw(200)
    assert measure(suite, x, 200) == pytest.approx(measure(suite, x, 17), rel=1e-4)


def test_an_incomplete_evaluation_gives_no_number(tmp_path: Path) -> None:
    suite = EvaluationSuite(DigitsFeatures(), digits(), 100, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="100 samples"):
        measure(suite, draw(99))
    with pytest.raises(ValueError, match="NaN"):
        suite.update(torch.full((1, 1, 8, 8), float("nan")), torch.tensor([0]))


def test_points_have_fid_and_sliced_wasserstein(tmp_path: Path) -> None:
    data = ring(n=4000)
    suite = EvaluationSuite(PointFeatures(), data, 2000, cache_dir=tmp_path)
    assert suite.names == ("fid_2k", "swd_2k")
    near = measure(suite, data.batch(torch.arange(2000))[0])
    one_mode = measure(suite, data.points[data.labels == 0].repeat(9, 1)[:2000])
    assert near["swd_2k"] < 0.05 and one_mode["swd_2k"] > 0.5
    assert one_mode["fid_2k"] > 100 * near["fid_2k"]


def test_mixing_is_refused_with_the_reason(tmp_path: Path) -> None:
    def provenance(dataset: ImageDataset, n: int) -> dict[str, object]:
        return EvaluationSuite(DigitsFeatures(), dataset, n, cache_dir=tmp_path).provenance()

    data = digits()
    base = provenance(data, 2048)
    refuse_mixing(base, provenance(data, 2048))
    other_file = {**base, "reference_sha256": None}
    half = ImageDataset(data.images[:900], name="digits", split="half")
    for other, reason in [
        (provenance(data, 2000), "n: 2048 against 2000"),
        (provenance(half, 2048), "reference_n: 1797 against 900"),
        (other_file, "reference_sha256"),
        ({**base, "resize": "bicubic"}, "resize: none against bicubic"),
        ({**base, "extractor_sha256": "0"}, "extractor_sha256"),
    ]:
        with pytest.raises(UserError, match=reason):
            refuse_mixing(base, other)
    richer = EvaluationSuite(DigitsFeatures(), data, 2048, cache_dir=tmp_path, kid=True).provenance()
    refuse_mixing(base, richer)  # FID is the same number with and without KID beside it
    with pytest.raises(UserError, match="kid: cubic kernel, 100 subsets of 1000 against other"):
        refuse_mixing(richer, {**richer, "kid": "other"})


def test_a_number_says_what_it_depends_on(tmp_path: Path) -> None:
    suite = EvaluationSuite(DigitsFeatures(), digits(), 2048, cache_dir=tmp_path, kid=True, precision_recall=True)
    assert describe_measurement(suite.provenance()) == (
        f"n = 2048; features digits-classifier-1 ({suite.extractor.sha256[:12]}); resize none; "
        f"reference digits all ({digits().sha256[:12]}) of 1797 samples; KID: cubic kernel, 100 subsets of 1000; "
        "precision and recall: 3 neighbours, 1797 reference samples"
    )
    own = compute(digits(), DigitsFeatures())
    np.savez(tmp_path / "cifar10-32x32.npz", mu=own.mu, sigma=own.sigma)
    foreign = EvaluationSuite(DigitsFeatures(), n=64, reference=tmp_path / "cifar10-32x32.npz")
    assert describe_measurement(foreign.provenance()).endswith(") of an unknown number of samples")
