"""The shipped classifier and the Inception network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from disback_cli.data.digits import digits
from disback_cli.errors import UserError
from disback_cli.evaluation import digits_classifier, train_digits_classifier
from disback_cli.evaluation.features import DigitsFeatures, InceptionFeatures, PointFeatures, full_float32
from disback_cli.evaluation.inception import Inception2015


def test_digits_features_know_the_digits() -> None:
    data, extractor = digits(), DigitsFeatures()
    features, logits = extractor(data.images)
    assert features.shape == (1797, extractor.feature_dim) and features.dtype == torch.float32
    assert logits is not None and logits.shape == (1797, 10)
    assert data.labels is not None and torch.eq(logits.argmax(1), data.labels).float().mean() > 0.99
    assert torch.linalg.eigvalsh(torch.cov(features.double().T))[0] > 1e-3  # no dead unit: FID sees every feature


def test_digits_features_refuse_other_images() -> None:
    extractor = DigitsFeatures()
    with pytest.raises(UserError, match="choose metrics=inception"):
        extractor(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        extractor(torch.zeros(2, 1, 8, 8))


def test_autocast_does_not_reach_the_extractor() -> None:
    images = digits().images[:8]
    extractor = DigitsFeatures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = extractor(images)[0]
    assert torch.equal(inside, extractor(images)[0])


def test_tf32_does_not_reach_the_extractor() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(ZeroDivisionError), full_float32():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise ZeroDivisionError
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_shipped_weights_are_small_and_described() -> None:
    folder = files("disback_cli").joinpath("assets", "digits_classifier")
    _, sha256 = digits_classifier.load_shipped()
    assert len(folder.joinpath("model.safetensors").read_bytes()) < 600_000
    card = folder.joinpath("README.md").read_text(encoding="utf-8")
    assert sha256 in card and "Apache-2.0" in card and "train_digits_classifier" in card


def test_training_is_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_digits_classifier.main(["--out", str(tmp_path / name), "--steps", "20"])
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the public file, which keeps no step counters."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    state = Inception2015().state_dict()
    torch.save({key: value for key, value in state.items() if "num_batches_tracked" not in key}, path)
    return path


def test_inception_has_the_layout_of_the_public_file() -> None:
    network = Inception2015()
    state = {key: value for key, value in network.state_dict().items() if "num_batches_tracked" not in key}
    assert len(state) == 472 and sum(p.numel() for p in network.parameters()) == 23_850_960
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7dbl_4.conv.weight": (128, 128, 7, 1),
        "Mixed_6e.branch7x7_2.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.bias": (192,),
        "fc.weight": (1008, 2048),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def test_inception_reads_a_file_and_warns_of_another_hash(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    extractor = InceptionFeatures(weights=weights)
    assert "not the published file" in caplog.text
    grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    features, logits = extractor(grey)
    assert features.shape == (2, 2048) and logits is not None and logits.shape == (2, 1008)
    assert torch.equal(features, extractor(grey.repeat(1, 3, 1, 1))[0])
    clean = InceptionFeatures(weights=weights, resize="clean")
    assert clean.sha256 == extractor.sha256 and not torch.allclose(clean(grey)[0], features, rtol=1e-3)
    with pytest.raises(UserError, match="channels"):
        extractor(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))


def test_inception_without_the_right_file(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="metrics.extractor.weights=PATH"):
        InceptionFeatures()
    with pytest.raises(UserError, match="no Inception weights.*metrics.extractor.weights=PATH"):
        InceptionFeatures(weights=tmp_path / "absent.pth")
    with pytest.raises(UserError, match="no resizer 'bicubic'; metrics.extractor.resize can be tf_bilinear, clean"):
        InceptionFeatures(weights=weights, resize="bicubic")  # type: ignore[arg-type]
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="not a file of torch tensors"):
        InceptionFeatures(weights=tmp_path / "text.pth")
    state = torch.load(weights, weights_only=True)
    del state["Mixed_5b.branch1x1.conv.weight"]
    state["AuxLogits.fc.weight"] = torch.zeros(2)
    state["fc.bias"] = torch.zeros(1000)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(UserError) as raised:
        InceptionFeatures(weights=tmp_path / "wrong.pth")
    for part in (
        "missing Mixed_5b.branch1x1.conv.weight",
        "unexpected AuxLogits.fc.weight",
        "fc.bias is [1000], not [1008]",
    ):
        assert part in str(raised.value)


def test_points_pass_through() -> None:
    points = torch.randn(5, 2)
    features, logits = PointFeatures()(points)
    assert torch.equal(features, points) and logits is None
    with pytest.raises(ValueError):
        PointFeatures(feature_dim=3)(points)
