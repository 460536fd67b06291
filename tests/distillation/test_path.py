"""The degradation path on disk: whole and exact, or refused with a sentence that helps."""

import json

import pytest
import torch
from safetensors.torch import load_file

from disback_cli.distillation.path import MANIFEST, DegradationPath, Node, save_weights, write_manifest
from disback_cli.distillation.path_recorder import PathRecorder
from disback_cli.distillation.recording import MismatchProbe
from disback_cli.distillation.spacing import select_by_distance
from disback_cli.errors import UserError

FACTS = {"teacher": {"name": "gmm_2d", "hash": "a" * 64}}


def write_path(folder, node_weights, count: int = 4):
    nodes = []
    for index in range(count):
        file = f"node_{index:02d}.safetensors"
        digest = save_weights(folder / file, node_weights(index))
        nodes.append(Node(index, file, 10 * index, 160 * index, 0.1 * index, digest))
    write_manifest(folder, nodes, FACTS)
    return nodes


@pytest.fixture
def folder(tmp_path, node_weights):
    write_path(tmp_path / "path", node_weights)
    return tmp_path / "path"


def edit(folder, change) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_what_is_written_is_read_bit_for_bit(tmp_path, node_weights):
    nodes = write_path(tmp_path, node_weights)
    path = DegradationPath(tmp_path)
    assert path.nodes == nodes
    assert path.last == 3
    assert path.teacher_name == "gmm_2d"
    for index in range(4):
        read, written = path.weights(index), node_weights(index)
        assert read.keys() == written.keys()
        assert all(torch.equal(read[name], written[name]) for name in written)
    assert any(not torch.equal(path.weights(1)[name], path.weights(2)[name]) for name in path.weights(1))


@pytest.mark.parametrize("where", ["", "path", "path/path.json"])
def test_a_path_is_found_by_its_run_its_folder_and_its_manifest(folder, where):
    assert DegradationPath(folder.parent / where).folder == folder


def test_no_path_says_how_to_record_one(tmp_path):
    with pytest.raises(UserError, match="disback record"):
        DegradationPath(tmp_path)


def test_nodes_without_a_manifest_are_no_path(folder):
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match="no recorded path"):
        DegradationPath(folder)


def test_truncated_node_is_named(folder):
    file = folder / "node_02.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="node 2 of the path is damaged"):
        DegradationPath(folder)


@pytest.mark.parametrize("place", [0, 500, -1])
def test_one_flipped_bit_is_noticed(folder, place):
    file = folder / "node_01.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match="node 1 of the path is damaged"):
        DegradationPath(folder)


def test_missing_node_is_named(folder):
    (folder / "node_03.safetensors").unlink()
    with pytest.raises(UserError, match=r"node 3 of the path is missing.*node_03"):
        DegradationPath(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "sub/node.safetensors"])
def test_node_outside_the_folder_is_refused_though_its_hash_fits(folder, name, node_weights):
    digest = save_weights(folder.parent / "outside.safetensors", node_weights(1))
    edit(folder, lambda manifest: manifest["nodes"][1].update(file=name, sha256=digest))
    with pytest.raises(UserError, match="outside its folder"):
        DegradationPath(folder)


def test_another_format_is_named(folder):
    edit(folder, lambda manifest: manifest.update(format=2))
    with pytest.raises(UserError, match="format 2; this version reads format 1"):
        DegradationPath(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"nodes"', '"knots"'),
        lambda text: text.replace('"sha256"', '"md5"'),
        lambda text: text.replace('"teacher"', '"pupil"'),
    ],
    ids=["truncated", "a list", "no nodes", "no hashes", "no teacher"],
)
def test_damaged_manifest_asks_to_record_again(folder, damage):
    (folder / MANIFEST).write_text(damage((folder / MANIFEST).read_text()))
    with pytest.raises(UserError, match=r"path\.json is damaged.*record the path again"):
        DegradationPath(folder)


def test_manifest_of_binary_rubbish_is_damaged_too(folder):
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00rubbish")
    with pytest.raises(UserError, match=r"path\.json is damaged"):
        DegradationPath(folder)


@pytest.mark.parametrize(
    "change", [lambda m: m["nodes"].reverse(), lambda m: m["nodes"].pop(1), lambda m: m.update(nodes=m["nodes"][:1])]
)
def test_nodes_must_be_in_order_and_at_least_two(folder, change):
    edit(folder, change)
    with pytest.raises(UserError, match="in order, at least two"):
        DegradationPath(folder)


def test_another_teacher_is_refused_with_both_names_and_a_way_out(folder):
    path = DegradationPath(folder)
    path.require_teacher("gmm_2d", "a" * 64)
    with pytest.raises(UserError) as caught:
        path.require_teacher("edm_digits", "b" * 64)
    for word in ("gmm_2d", "edm_digits", "a" * 12, "b" * 12, "disback record teacher=edm_digits"):
        assert word in str(caught.value)


def test_another_denoiser_with_the_same_weights_is_refused(folder):
    spec = {
        "_target_": "x.D",
        "prediction": "epsilon",
        "network": {"width": 3, "mult": (1, 2)},
        "network_dtype": "fp32",
    }
    edit(folder, lambda m: m["teacher"].update(denoiser=json.loads(json.dumps(spec))))
    path = DegradationPath(folder)
    path.require_teacher("gmm_2d", "a" * 64, spec)
    path.require_teacher("gmm_2d", "a" * 64, spec | {"network_dtype": "bf16"})
    with pytest.raises(UserError, match="prediction was epsilon and is sample"):
        path.require_teacher("gmm_2d", "a" * 64, spec | {"prediction": "sample"})
    with pytest.raises(UserError, match="network.width was 3 and is 4"):
        path.require_teacher("gmm_2d", "a" * 64, spec | {"network": {"width": 4, "mult": [1, 2]}})


def test_loading_is_strict(make_backtracking, node_weights):
    def renamed(index: int):
        weights = node_weights(index)
        if index == 1:
            weights["guidance." + next(iter(weights))] = weights.pop(next(iter(weights)))
        return weights

    stage = make_backtracking(node_weights=renamed)
    with pytest.raises(RuntimeError, match="Missing key"):
        stage.set_target(1)


# What a recording leaves ------------------------------------------------------------------------------------------


def record(tmp_path, teacher, make_recording, fit, *, nodes, spacing, iterations=12, states=None, watch=None):
    recorder = PathRecorder(
        run_dir=tmp_path, teacher=teacher, nodes=nodes, spacing=spacing, iterations=iterations, probe_samples=32
    )
    stage = make_recording(iterations=iterations)
    callbacks = [recorder]
    if states is not None:
        callbacks.append(
            watch(lambda s: states.update({s.iteration: {k: v.clone() for k, v in s.fake.state_dict().items()}}))
        )
    fit(stage, *callbacks)
    recorder.finish(teacher.state_dict(), stage.batch_size, FACTS)
    return DegradationPath(tmp_path), recorder


@pytest.mark.parametrize("spacing", ["distance", "arc", "steps", "geometric"])
@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_recording_leaves_exactly_the_nodes_asked_for_and_the_teacher_as_node_0(
    tmp_path, teacher, make_recording, fit, watch, spacing, nodes
):
    states: dict = {}
    path, recorder = record(
        tmp_path, teacher, make_recording, fit, nodes=nodes, spacing=spacing, states=states, watch=watch
    )
    assert path.last == nodes
    assert sorted(file.name for file in path.folder.glob("*.safetensors")) == [
        f"node_{index:02d}.safetensors" for index in range(nodes + 1)
    ]
    first = path.weights(0)
    assert all(torch.equal(first[name], tensor) for name, tensor in teacher.state_dict().items())
    assert [node.iteration for node in path.nodes] == sorted({node.iteration for node in path.nodes})
    assert path.nodes[-1].iteration == 12
    for node in path.nodes[1:]:
        weights = path.weights(node.index)
        assert all(torch.equal(weights[name], states[node.iteration][name]) for name in weights)
        assert node.mismatch > 0
        assert node.images == node.iteration * 16
    assert not recorder.candidates.folder.exists()


def test_nodes_hold_the_denoisers_weights_alone(tmp_path, teacher, make_recording, fit):
    path, _ = record(tmp_path, teacher, make_recording, fit, nodes=2, spacing="steps")
    assert load_file(path.folder / path.nodes[2].file).keys() == teacher.state_dict().keys()


def test_candidates_on_the_disk_stay_bounded_and_match_the_list(tmp_path, teacher, make_recording, fit, watch):
    recorder = PathRecorder(
        run_dir=tmp_path, teacher=teacher, nodes=1, spacing="distance", iterations=40, probe_samples=16
    )
    counts = []
    look = watch(lambda _: counts.append(len(list(recorder.candidates.folder.glob("*.safetensors")))))
    fit(make_recording(iterations=40), recorder, look)
    kept = recorder.candidates.kept
    assert max(counts) == recorder.candidates.most < len(recorder.steps)
    assert {candidate.file for candidate in kept} == {file.name for file in recorder.candidates.folder.iterdir()}
    assert kept[-1].iteration == 40


def test_finishing_twice_leaves_the_same_path(tmp_path, teacher, make_recording, fit):
    path, recorder = record(tmp_path, teacher, make_recording, fit, nodes=3, spacing="distance")
    again = recorder.finish(teacher.state_dict(), 16, FACTS)
    assert again == path.nodes
    assert DegradationPath(tmp_path).nodes == path.nodes


@pytest.mark.parametrize("spacing", ["distance", "arc", "steps"])
def test_interrupted_recording_leaves_the_same_path(tmp_path, teacher, make_recording, fit, save_at, spacing):
    whole, _ = record(tmp_path / "whole", teacher, make_recording, fit, nodes=3, spacing=spacing, iterations=20)
    settings = {"teacher": teacher, "nodes": 3, "spacing": spacing, "iterations": 20, "probe_samples": 32}
    saver = save_at(tmp_path / "checkpoints", [7])
    first = PathRecorder(run_dir=tmp_path / "parts", **settings)
    # Runs on behind its checkpoint, as a run does that is killed later.
    fit(make_recording(iterations=20), first, saver)
    second = PathRecorder(run_dir=tmp_path / "parts", **settings)
    fit(make_recording(iterations=20), second, checkpoint=saver.store.newest_whole())
    second.finish(teacher.state_dict(), 16, FACTS)
    assert DegradationPath(tmp_path / "parts").nodes == whole.nodes


@pytest.mark.parametrize("spacing", ["arc", "steps"])
def test_the_way_to_a_node_is_measured_from_candidate_to_candidate(
    tmp_path, teacher, make_recording, fit, watch, spacing
):
    states: dict = {}
    settings = {"nodes": 3, "spacing": spacing, "iterations": 9, "states": states, "watch": watch}
    path, recorder = record(tmp_path, teacher, make_recording, fit, **settings)
    probe = MismatchProbe(make_recording(), teacher, 32)
    network, way, ways = make_recording().fake, 0.0, {}
    for step in sorted(recorder.steps):
        network.load_state_dict(states[step])
        probe.measure(network)
        way += probe.moved
        ways[step] = way
    assert [node.arc for node in path.nodes] == pytest.approx([0.0, *(ways[n.iteration] for n in path.nodes[1:])])
    # no way is shorter than the straight one
    assert all(node.arc >= node.mismatch - 1e-6 for node in path.nodes)
    assert path.distances == [node.arc for node in path.nodes]


def test_nodes_evenly_spaced_on_the_way_split_it_best(tmp_path, teacher, make_recording, fit):
    path, recorder = record(tmp_path, teacher, make_recording, fit, nodes=3, spacing="arc", iterations=20)
    ways = [candidate.arc for candidate in recorder.candidates.kept]
    assert len(ways) > 3
    assert path.distances[1:] == [ways[i] for i in select_by_distance(ways, 3)]


def test_a_path_recorded_before_the_way_was_measured_is_read_by_its_mismatches(folder):
    edit(folder, lambda manifest: [node.pop("arc") for node in manifest["nodes"]])
    assert DegradationPath(folder).distances == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_recording_of_another_length_is_not_continued(tmp_path, teacher, make_recording, fit, save_at):
    settings = {"run_dir": tmp_path, "teacher": teacher, "nodes": 3, "spacing": "steps", "probe_samples": 8}
    saver = save_at(tmp_path / "checkpoints", [7])
    fit(make_recording(iterations=12), PathRecorder(iterations=12, **settings), saver)
    with pytest.raises(UserError, match="started with iterations=12, now it is 24"):
        fit(
            make_recording(iterations=24),
            PathRecorder(iterations=24, **settings),
            checkpoint=saver.store.newest_whole(),
        )


def test_too_many_nodes_are_refused(tmp_path, teacher):
    settings = {"run_dir": tmp_path, "teacher": teacher, "probe_samples": 8}
    with pytest.raises(UserError, match=r"nodes=6 do not fit into iterations=5"):
        PathRecorder(nodes=6, spacing="steps", iterations=5, **settings)
    with pytest.raises(UserError, match="spacing=steps"):
        PathRecorder(nodes=50, spacing="distance", iterations=60, **settings)
