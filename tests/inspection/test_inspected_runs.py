"""What `disback inspect` says about runs, paths and sweeps."""

import json

import pytest
import torch
import yaml

from disback_cli.configuration import runfolder
from disback_cli.denoisers.folder import save_model
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.distillation.path import Node, save_weights, write_manifest
from disback_cli.errors import UserError
from disback_cli.files import write_json
from disback_cli.inspection.recognise import inspect
from disback_cli.runtime.checkpoint import AtomicCheckpointIO, CheckpointStore

MIXTURE = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(folder, verb, state="finished", **config):
    runfolder.create(folder, verb, "gmm_2d", [f"teacher=gmm_2d iterations={config.get('iterations', 20)}"])
    (folder / "config.yaml").write_text(yaml.safe_dump({"iterations": 20} | config))
    if state != "running":
        runfolder.set_state(folder, state)
    return folder


def make_path(folder, count=3):
    nodes = []
    for index in range(count):
        name = f"node_{index:02d}.safetensors"
        digest = save_weights(folder / name, {"w": torch.full((3,), float(index))})
        nodes.append(Node(index, name, 10 * index, 320 * index, 0.5 * index, digest))
    write_manifest(folder, nodes, {"teacher": {"name": "gmm_2d", "hash": "ab" * 32}})
    return folder


def save_checkpoint(folder, iteration):
    store = CheckpointStore(folder / "checkpoints")
    content = {
        "stage": {"iteration": iteration, "batch_size": 32, "sums": {}}, "state_dict": {"fake.w": torch.zeros(5)},
        "pytorch-lightning_version": "2.6.6",
    }  # fmt: skip
    AtomicCheckpointIO().save_checkpoint(content, store.path_for(iteration))
    store.register(store.path_for(iteration), iteration)
    return store.path_for(iteration)


def test_finished_recording(here):
    folder = make_run(here / "run", "record")
    make_path(folder / "path")
    write_json(folder / "summary.json", {"metrics": {"nodes": 2, "mismatch": 1.25}, "cost": {"images": 640}})
    report = inspect("run")
    assert report.kind == "recording" and report.facts["state"] == "finished" and report.facts["whole"] is True
    assert report.facts["metrics"] == {"nodes": 2, "mismatch": 1.25}
    assert report.rows == [["0", 0, 0, 0.0, "whole"], ["1", 10, 320, 0.5, "whole"], ["2", 20, 640, 1.0, "whole"]]
    assert report.next == ["disback backtrack path=run"]
    text = report.as_text()
    assert "every hash was verified" in text and "mismatch to the teacher" in text and "20" in text


def test_damaged_and_missing_nodes_are_named(here):
    make_path(here / "path")
    node = here / "path" / "node_01.safetensors"
    node.write_bytes(node.read_bytes()[:-1] + b"x")
    (here / "path" / "node_02.safetensors").unlink()
    report = inspect("path")
    assert [row[-1] for row in report.rows] == ["whole", "damaged", "missing"]
    assert report.facts["whole"] is False and "nodes 1, 2" in report.as_text() and not report.next
    assert inspect("path/node_00.safetensors").kind == "path"


def test_path_of_a_stranger(here):
    make_path(here / "path")
    manifest = json.loads((here / "path" / "path.json").read_text())
    manifest["nodes"][1] |= {"file": "../secret", "mismatch": {"a": 1}}
    write_json(here / "path" / "path.json", manifest)
    report = inspect("path")
    assert report.rows[1][-1] == "outside the folder" and "{'a': 1}" in report.as_text()
    write_json(here / "path" / "path.json", {"nodes": [1]})
    with pytest.raises(UserError, match="lists no nodes"):
        inspect("path")


def test_path_of_adapters_says_so(here):
    make_path(here / "path")
    manifest = json.loads((here / "path" / "path.json").read_text())
    adapter = {"kind": "lora", "rank": 4, "alpha": 8.0, "layers": ["qkv", "affine"]}
    write_json(here / "path" / "path.json", manifest | {"adapter": adapter})
    report = inspect("path")
    assert report.facts["adapter"] == adapter
    assert "nodes are LoRA of rank 4, alpha 8.0, on layers: qkv, affine" in report.as_text()


def test_unfinished_run_and_its_checkpoint(here):
    folder = make_run(here / "run", "record", "interrupted")
    file = save_checkpoint(folder, 8)
    report = inspect("run")
    assert report.facts["iterations"] == {"saved": 8, "total": 20} and "8 of 20" in report.as_text()
    assert report.next == ["disback record resume=run"]
    report = inspect(str(file.relative_to(here)))
    assert report.kind == "checkpoint" and (report.facts["iteration"], report.facts["images"]) == (8, 256)
    assert report.next == ["disback record resume=run/checkpoints/iteration_00000008.ckpt"]
    assert report.usable is False


def test_run_in_use_and_killed_run(here):
    folder = make_run(here / "run", "backtrack", "running")
    assert "it was killed, or runs elsewhere" in inspect("run").as_text()
    with runfolder.lock(folder):
        report = inspect("run")
    assert "works in it" in report.as_text() and not report.next


def test_finished_distillation_needs_its_student(here):
    folder = make_run(here / "run", "backtrack")
    assert not inspect("run").next
    torch.manual_seed(0)
    save_model(folder / "student", MIXTURE, MixtureDenoiser(hidden=8).state_dict(), {})
    assert inspect("run").next[0] == "disback sample student=run"
    assert inspect("run").next[2] == "disback convert run OUT to=diffusers"


def test_finished_training(here):
    folder = make_run(here / "run", "pretrain")
    save_model(folder / "teacher", MIXTURE, MixtureDenoiser(hidden=8).state_dict(), {})
    report = inspect("run")
    assert report.usable and report.next == ["disback record teacher=folder teacher.folder=run"]
    (folder / "teacher" / "model.safetensors").write_bytes(b"torn")
    assert inspect("run").usable is False


def test_run_file_that_cannot_be_read(here):
    make_run(here / "run", "record")
    (here / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        inspect("run")


def test_folder_of_runs(here):
    for name in ("a", "b"):
        make_run(here / "runs" / "record" / "gmm_2d" / name, "record")
    report = inspect("runs")
    assert (
        report.facts["runs"] == 2 and len(report.rows) == 2 and report.next[0].startswith("disback inspect runs/record")
    )


def test_sweep(here):
    write_json(here / "sweep" / "sweep.json", {"verb": "backtrack", "overrides": ["seed=0,1"]})
    for number, state in enumerate(("done", "failed")):
        status = {"state": state, "returncode": number, "overrides": [f"seed={number}"], "seconds": 1.5}
        write_json(here / "sweep" / str(number) / "status.json", status)
    write_json(here / "sweep" / "0" / "summary.json", {"metrics": {"fid_2k": 1.25}})
    report = inspect("sweep")
    assert report.facts["jobs"] == {"done": 1, "failed": 1}
    assert report.rows == [["0", "done", 1.5, 1.25, "seed=0"], ["1", "failed", 1.5, None, "seed=1"]]
    assert report.next == ["disback backtrack -m hydra.sweep.dir=sweep"]
    write_json(here / "sweep" / "1" / "status.json", {"state": "done", "overrides": ["seed=1"], "seconds": 1.0})
    assert not inspect("sweep/sweep.json").next
