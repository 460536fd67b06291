"""A path from training snapshots of the teacher: what its own training left, in the order from its end to its start."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disback_cli.denoisers.descriptions import differences
from disback_cli.denoisers.folder import load_strictly, weights_hash
from disback_cli.denoisers.open_source import find_network, open_source, what_instead
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.denoisers.wrong_place import refuse_student
from disback_cli.distillation.path import Node, save_weights, write_manifest
from disback_cli.distillation.recording import MismatchProbe
from disback_cli.errors import UserError
from disback_cli.runtime.progress import tracked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The teacher's network with the weights of an earlier state of its training.

    Attributes:
        place: as the user named it.
        network: the teacher's, with the snapshot's weights.
        weights_hash: identity of the weights.
        iteration: of the training, where the snapshot says so.
    """

    place: str
    network: Denoiser
    weights_hash: str
    iteration: int | None


# Opens a file of weights alone as the teacher's own was opened.
Reopen = Callable[[str], Teacher]


def open_snapshot(place: str, teacher: Teacher, reopen: Reopen | None = None) -> Snapshot:
    """Read a snapshot, whatever its format, as the teacher's network.

    Args:
        place: a model folder, a run of `disback pretrain`, a pickle of NVIDIA's, or a folder of diffusers.
        teacher: whose network it must have.
        reopen: opens files that hold weights alone, for a teacher that was opened from one.

    Raises:
        UserError: there is no network, or another one than the teacher's.
    """
    found = find_network(place)
    network = teacher.copy().requires_grad_(False)
    if found is None:
        if reopen is None:
            raise UserError(f"snapshots: {what_instead(Path(place).expanduser())}")
        network.load_state_dict(reopen(place).denoiser.state_dict(), strict=True)
        return Snapshot(place, network, weights_hash(network.state_dict()), None)
    if found.format == "model-folder":
        refuse_student(found.path, place)
    source = open_source(found.path)
    changed = differences(teacher.spec, source.spec, "{key} is {before} there, {now} here")
    if changed:
        raise UserError(
            f"the snapshot {place} is of another network than teacher={teacher.name}: {'; '.join(changed[:4])}. "
            "A path needs states of one network: give snapshots of this teacher's training, or "
            "the teacher that they belong to"
        )
    load_strictly(network, source.weights, f"the snapshot {place}")
    document = source.facts.get("document")
    iteration = document.get("iterations") if isinstance(document, Mapping) else None
    known = iteration if isinstance(iteration, int) and not isinstance(iteration, bool) else None
    return Snapshot(place, network, weights_hash(network.state_dict()), known)


def assemble(
    folder: Path,
    teacher: Teacher,
    places: Sequence[str],
    probe: MismatchProbe,
    facts: Callable[[], dict[str, Any]],
    reopen: Reopen | None = None,
) -> list[Node]:
    """Make a path of snapshots, each measured against the teacher.

    The path is assembled beside its place and moved there whole; ``path.json`` is its last file.

    Args:
        folder: where the path goes.
        teacher: node 0.
        places: of nodes 1 .. N, see :func:`open_snapshot`; from the nearest to the teacher to the farthest.
        probe: measures the mismatch.
        facts: asked when all is measured; see :func:`disback_cli.distillation.path.write_manifest`. The snapshots'
            places, weights and iterations are added.
        reopen: see :func:`open_snapshot`.

    Returns:
        The nodes, node 0 first; their ``iteration`` and ``images`` are those of a recording: none.

    Raises:
        UserError: a place holds no snapshot of the teacher's network, or the same weights as another node.
    """
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        digest = save_weights(building / "node_00.safetensors", teacher.denoiser.state_dict())
        nodes = [Node(0, "node_00.safetensors", 0, 0, 0.0, digest, arc=0.0)]
        seen, told = {teacher.hash: f"teacher={teacher.name}"}, []
        for place in tracked(places, "snapshots", len(places)):
            snapshot = open_snapshot(place, teacher, reopen)
            _require_another(snapshot, seen)
            nodes.append(_node(building, snapshot, probe, nodes[-1]))
            told.append({"place": place, "weights": snapshot.weights_hash, "iteration": snapshot.iteration})
        write_manifest(building, nodes, {**facts(), "snapshots": told})
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    return nodes


def _require_another(snapshot: Snapshot, seen: dict[str, str]) -> None:
    """Refuse weights that are a node already: the student could not move on them."""
    if snapshot.weights_hash in seen:
        raise UserError(
            f"the snapshot {snapshot.place} has the same weights as {seen[snapshot.weights_hash]}, so it would be no "
            "target of its own: leave it out of snapshots=[...]"
        )
    seen[snapshot.weights_hash] = f"the snapshot {snapshot.place}"


def _node(folder: Path, snapshot: Snapshot, probe: MismatchProbe, before: Node) -> Node:
    """Measure a snapshot and write its file."""
    index = before.index + 1
    distance = probe.measure(snapshot.network.to(probe.noisy.device))
    if distance < before.mismatch:
        log.warning(
            "the snapshot %s is nearer to the teacher (mismatch %.4f) than the one before it (%.4f): the order is from "
            "the end of the teacher's training to its beginning",
            snapshot.place, distance, before.mismatch,
        )  # fmt: skip
    assert before.arc is not None
    name = f"node_{index:02d}.safetensors"
    digest = save_weights(folder / name, snapshot.network.state_dict())
    return Node(index, name, 0, 0, distance, digest, arc=before.arc + probe.moved)
