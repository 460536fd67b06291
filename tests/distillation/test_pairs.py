"""Pairs of a teacher: how they are made, found again, verified and handed out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from disback_cli.data.sampler import indices
from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.denoisers.sampling import heun
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation import pair_making
from disback_cli.distillation.pair_making import PairsRequest
from disback_cli.distillation.pairs import Pairs
from disback_cli.errors import UserError
from disback_cli.verbs.common import open_pairs

CPU = torch.device("cpu")
STEPS = 3


class Shrinking(Denoiser):
    """D(x; sigma) of a Gaussian about a mean of its label's own: the sampler's work is a few products."""

    def forward(self, x, sigma, labels=None):
        labels = self.check_labels(labels, len(x))
        mean = 0.0 if labels is None else labels.argmax(1).float()[:, None]
        return mean + (x - mean) / (1 + expand_sigma(sigma, x).square())


def teacher(classes: int = 0, **sampler: float) -> Teacher:
    spec = {"_target_": "mine.Shrinking", "shape": (3,), "network_dtype": "fp16"}
    denoiser = Shrinking((3,), label_dim=classes)
    return Teacher("shrinking", denoiser, spec, "abc" * 10, {"steps": STEPS, **sampler})


def request(of: Teacher | None = None, **changed: object) -> PairsRequest:
    settings = {"seed": 0, "n": 10, "dtype": "fp32", "shard_size": 4} | changed
    return PairsRequest.of(of or teacher(), **settings)


def made(folder: Path, of: Teacher | None = None, batch_size: int = 3, **changed: object) -> Path:
    """A complete folder of pairs."""
    of = of or teacher()
    wanted = request(of, **changed)
    pair_making.begin(folder, wanted)
    for number in pair_making.missing(folder, wanted):
        assert sum(pair_making.make_shard(folder, wanted, number, of, batch_size, CPU)) == wanted.shards[number][2]
    facts = {"teacher": of.identity(), "shape": list(of.denoiser.shape), "classes": of.denoiser.label_dim}
    pair_making.finish(folder, wanted, facts)
    return folder


def everything(pairs: Pairs):
    return pairs.at(torch.arange(len(pairs)), CPU)


def test_x_is_what_the_deterministic_sampler_makes_of_z(tmp_path):
    pairs = Pairs(made(tmp_path, teacher(sigma_max=40.0), n=2000, shard_size=2000, batch_size=500))
    z, labels, x = everything(pairs)
    assert labels is None and x.shape == (2000, 3)
    assert torch.allclose(x, heun(Shrinking((3,)), z, steps=STEPS, sigma_max=40.0).float(), atol=1e-6)
    assert abs(float(z.mean())) < 0.05 and abs(float(z.std()) - 1) < 0.03
    assert pairs.facts["cost"]["network_passes"] == 2000 * (2 * STEPS - 1)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_pair_belongs_together_as_it_is_stored(tmp_path, dtype):
    """The teacher is asked for the rounded latent, so half precision costs the rounding of x alone."""
    z, _, x = everything(Pairs(made(tmp_path, dtype=dtype)))
    again = heun(Shrinking((3,)), z, steps=STEPS).to({"fp32": torch.float32, "fp16": torch.float16}[dtype]).float()
    assert torch.allclose(x, again, atol=1e-6)
    assert load_file(tmp_path / "pairs_00000.safetensors")["z"].element_size() == {"fp32": 4, "fp16": 2}[dtype]


def test_pairs_do_not_depend_on_shards_batches_or_the_number_of_pairs(tmp_path):
    z, _, x = everything(Pairs(made(tmp_path / "a")))
    other, _, same = everything(Pairs(made(tmp_path / "b", batch_size=5, shard_size=9)))
    more, _, _ = everything(Pairs(made(tmp_path / "c", n=20)))
    assert torch.equal(z, other) and torch.allclose(x, same, atol=1e-6) and torch.equal(z, more[:10])
    assert not torch.equal(z, everything(Pairs(made(tmp_path / "d", seed=1)))[0])


def test_labels_belong_to_their_pairs(tmp_path):
    """Each class has its own mean, so a sample tells its label."""
    pairs = Pairs(made(tmp_path, teacher(4), n=64))
    z, labels, x = pairs.batch(3, 0, 64, CPU)
    assert (
        labels.shape == (64, 4) and torch.equal(labels.sum(1), torch.ones(64)) and len(labels.argmax(1).unique()) == 4
    )
    assert torch.allclose(x, heun(Shrinking((3,), label_dim=4), z, labels, steps=STEPS).float(), atol=1e-6)


def test_batches_follow_the_samplers_order_over_the_shards_and_processes_share_them(tmp_path):
    pairs = Pairs(made(tmp_path))
    z, _, x = everything(pairs)
    order = indices(7, 8, 6, 10)
    found = pairs.batch(7, 8, 6, CPU)
    assert torch.equal(found[0], z[order]) and torch.equal(found[2], x[order])
    parts = [pairs.batch(7, first, 2, CPU) for first in (8, 10, 12)]
    assert torch.equal(torch.cat([part[2] for part in parts]), found[2])


def test_churn_is_refused_because_the_latent_would_not_determine_the_sample():
    with pytest.raises(UserError, match=r"s_churn=40.*teacher.sampler.s_churn=0"):
        request(teacher(s_churn=40.0))
    assert request(teacher(s_churn=0.0, s_min=0.05)).sampler == request().sampler


def test_a_sample_that_cannot_be_stored_is_refused(tmp_path):
    far = teacher(classes=1)
    far.denoiser.forward = lambda x, sigma, labels: torch.full_like(x, 1e9)
    with pytest.raises(UserError, match="not finite in fp16.*dtype=fp32"):
        made(tmp_path, far, dtype="fp16")
    assert list(tmp_path.glob("*.safetensors")) == []


def test_an_interrupted_folder_goes_on_with_the_shards_it_lacks(tmp_path):
    whole = made(tmp_path / "whole")
    wanted, cut = request(), tmp_path / "cut"
    pair_making.begin(cut, wanted)
    list(pair_making.make_shard(cut, wanted, 1, teacher(), 3, CPU))
    with pytest.raises(UserError, match="no complete pairs"):
        Pairs(cut)
    assert wanted.matches(pair_making.stored_request(cut)) and pair_making.missing(cut, wanted) == [0, 2]
    before = (cut / "pairs_00001.safetensors").stat().st_mtime_ns
    made(cut)
    assert (cut / "pairs_00001.safetensors").stat().st_mtime_ns == before
    assert all(
        torch.equal(a, b) for a, b in zip(everything(Pairs(cut))[::2], everything(Pairs(whole))[::2], strict=True)
    )
    assert not (cut / pair_making.REQUEST).exists()


def test_a_drawing_that_is_cut_short_leaves_no_file(tmp_path):
    drawing = pair_making.make_shard(tmp_path, request(), 0, teacher(), 3, CPU)
    next(drawing)
    drawing.close()
    assert list(tmp_path.iterdir()) == []


def test_the_same_pairs_are_found_again_and_no_others(tmp_path):
    made(tmp_path / "1")
    pair_making.begin(tmp_path / "2", request())
    folders = list(tmp_path.iterdir())
    assert pair_making.find(folders, request()) == tmp_path / "1", "complete before newer"
    assert pair_making.find([tmp_path / "2"], request(shard_size=7)) == tmp_path / "2", "in files of whatever size"
    assert pair_making.find(folders, replace(request(), teacher=json.loads(json.dumps(request().teacher)))) is not None
    renamed = replace(teacher(), name="mine", spec=teacher().spec | {"network_dtype": "fp32"})
    assert pair_making.find(folders, request(renamed)) == tmp_path / "1", "names and precision are not the teacher"
    others = [
        request(seed=1), request(n=11), request(dtype="fp16"), request(teacher(rho=5.0)), request(teacher(steps=4)),
        request(replace(teacher(), hash="other")), request(replace(teacher(), spec={"_target_": "mine.Other"})),
    ]  # fmt: skip
    assert [pair_making.find(folders, other) for other in others] == [None] * len(others)


def test_damage_is_found_when_pairs_are_opened(tmp_path):
    folder = made(tmp_path)
    shard, manifest = folder / "pairs_00001.safetensors", folder / "pairs.json"
    content, text = shard.read_bytes(), manifest.read_text()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="pairs_00001.safetensors is damaged"):
        Pairs(folder)
    shard.unlink()
    with pytest.raises(UserError, match="pairs_00001.safetensors is missing"):
        Pairs(folder)
    shard.write_bytes(content)
    for wrong, message in [
        (text.replace('"pairs_00001', '"../pairs_00001'), "outside its folder"),
        (text.replace('"format": 1', '"format": 2'), "reads format 1"),
        (text.replace('"classes": 0', '"classes": 5'), "holds"),
        (text.replace('"n": 4', '"n": 3'), "must list shards|holds"),
        (text[:-20], "is damaged"),
        ("[]", "is damaged"),
    ]:
        manifest.write_text(wrong)
        with pytest.raises(UserError, match=message):
            Pairs(folder)
    manifest.write_text(text)
    assert len(Pairs(manifest)) == 10


def test_pairs_of_another_denoiser_with_the_same_weights_are_refused(tmp_path):
    """As `disback regress` and `disback backtrack` open them."""
    of, cfg = teacher(), OmegaConf.create({"pairs": str(made(tmp_path))})
    other = replace(of, spec={**of.spec, "_target_": "mine.Growing"})
    assert len(open_pairs(cfg, other, "a test")) == 10, "pairs that do not say of which denoiser they are"
    manifest = tmp_path / "pairs.json"
    content = json.loads(manifest.read_text())
    content["teacher"]["denoiser"] = of.spec
    manifest.write_text(json.dumps(content))
    for same in (of, replace(of, spec={**of.spec, "network_dtype": "bf16"})):
        assert len(open_pairs(cfg, same, "a test")) == 10
    with pytest.raises(UserError, match=r"_target_ was mine.Shrinking and is mine.Growing.*choose other pairs=RUN"):
        open_pairs(cfg, other, "a test")


def test_pairs_of_another_teacher_are_refused_with_what_to_type(tmp_path):
    pairs = Pairs(made(tmp_path))
    pairs.require_teacher("renamed", teacher().hash)
    with pytest.raises(UserError, match=r"Give teacher=shrinking.*disback pairs teacher=other"):
        pairs.require_teacher("other", "def" * 10)
    with pytest.raises(UserError, match="leave teacher.* options out"):
        pairs.require_teacher("shrinking", "def" * 10)
