"""What `disback inspect` says about pairs of a teacher."""

import pytest
import torch
from safetensors.torch import save_file

from disback_cli.configuration import runfolder
from disback_cli.distillation.pairs import Shard, write_manifest
from disback_cli.errors import UserError
from disback_cli.files import sha256_of
from disback_cli.inspection.recognise import inspect


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pairs"
    folder.mkdir()
    shards = []
    for index, n in enumerate((4, 2)):
        file = folder / f"pairs_{index:05d}.safetensors"
        save_file({"z": torch.zeros(n, 2), "x": torch.ones(n, 2)}, file)
        shards.append(Shard(file.name, n, sha256_of(file)))
    request = {"dtype": "fp32", "seed": 3, "sampler": {"steps": 18}, "n": 6}
    facts = {"teacher": {"name": "gmm_2d", "hash": "ab" * 32}, "shape": [2], "classes": 0, "request": request}
    write_manifest(folder, shards, facts)
    return folder


def test_pairs_alone_and_a_file_of_theirs(pairs):
    report = inspect("pairs")
    assert report.kind == "pairs" and report.facts["pairs"] == 6 and report.facts["whole"] is True
    assert report.facts["teacher"] == "gmm_2d" and report.facts["sampler"] == {"steps": 18}
    assert report.next == ["disback regress pairs=pairs"]
    assert inspect("pairs/pairs_00001.safetensors").facts == report.facts


def test_a_run_that_made_pairs(pairs):
    runfolder.create(pairs, "pairs", "gmm_2d", ["teacher=gmm_2d", "n=6"])
    runfolder.set_state(pairs, "finished")
    report = inspect("pairs")
    assert report.title == "a run of `disback pairs`" and report.facts["pairs"] == 6
    assert report.next == ["disback regress pairs=pairs"]


def test_an_unfinished_run_goes_on_with_its_own_command(pairs):
    (pairs / "pairs.json").unlink()
    runfolder.create(pairs, "pairs", "gmm_2d", ["teacher=gmm_2d", "n=6"])
    assert inspect("pairs").next == ["disback pairs teacher=gmm_2d n=6"]


def test_damage_is_named(pairs):
    (pairs / "pairs_00000.safetensors").write_bytes(b"torn")
    report = inspect("pairs")
    assert report.facts["whole"] is False and report.next == []
    assert report.texts["whole"] == "no: pairs_00000.safetensors"
    (pairs / "pairs.json").write_text("{}")
    with pytest.raises(UserError, match="it lists no files"):
        inspect("pairs")
