"""Candidates of a recording: weights that may become nodes, kept on disk while it runs, and the path made of them."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from disback_cli.distillation.path import MANIFEST, DegradationPath, Node, save_weights, write_manifest
from disback_cli.distillation.spacing import (
    candidate_steps,
    even_steps,
    geometric_steps,
    select_by_distance,
    thin,
)
from disback_cli.errors import UserError
from disback_cli.files import sha256_of, write_bytes

log = logging.getLogger(__name__)

Spacing = Literal["distance", "arc", "steps", "geometric"]
# Candidates kept at a time, a multiple of the nodes asked for: bounds the disk that a recording needs.
CANDIDATES_PER_NODE = 4


@dataclass(frozen=True)
class Candidate:
    """A state of the recording that may become a node.

    Attributes:
        iteration: of the recording.
        mismatch: to the teacher.
        arc: way from the teacher through all candidates before, dropped ones included.
        file: its file's name.
        sha256: of the file.
    """

    iteration: int
    mismatch: float
    arc: float
    file: str
    sha256: str


class Candidates:
    """Keeps weights at the steps that may become nodes, and selects the nodes.

    Args:
        folder: of the candidates' files.
        nodes: how many nodes to record besides the teacher (N).
        spacing: where they lie. ``distance``: evenly in mismatch to the teacher; ``arc``: evenly in the way through
            the candidates, each measured against the one before; ``steps``; ``geometric`` (in steps).
        iterations: length of the recording.

    Raises:
        UserError: more nodes than the recording gives.
    """

    def __init__(self, folder: Path, *, nodes: int, spacing: Spacing, iterations: int) -> None:
        if nodes > iterations:
            raise UserError(f"nodes={nodes} do not fit into iterations={iterations} of recording")
        self.by_place = spacing in ("distance", "arc")
        steps = {"steps": even_steps, "geometric": geometric_steps}
        chosen = candidate_steps(iterations) if self.by_place else steps[spacing](nodes, iterations)
        self.steps = frozenset(chosen)
        if len(self.steps) < nodes:
            raise UserError(
                f"nodes={nodes} are more than the {len(self.steps)} candidates that {iterations} iterations give; "
                "raise iterations, lower nodes, or take spacing=steps"
            )
        self.folder, self.nodes, self.spacing = folder, nodes, spacing
        self.most = max(CANDIDATES_PER_NODE * nodes, nodes + 2)
        self.kept: list[Candidate] = []

    def keep(self, iteration: int, mismatch: float, moved: float, weights: dict[str, Tensor]) -> None:
        """Keep a candidate, and give up another one if there are too many.

        Args:
            iteration: of the recording.
            mismatch: to the teacher.
            moved: mismatch to the candidate before, dropped or not; to the teacher for the first.
            weights: what a node holds.
        """
        file = f"step_{iteration:08d}.safetensors"
        digest = save_weights(self.folder / file, weights)
        arc = moved + (self.kept[-1].arc if self.kept else 0.0)
        self.kept.append(Candidate(iteration, mismatch, arc, file, digest))
        if self.by_place and len(self.kept) > self.most:
            dropped = self.kept.pop(thin(self._places()))
            (self.folder / dropped.file).unlink(missing_ok=True)

    def _places(self) -> list[float]:
        return [c.arc if self.spacing == "arc" else c.mismatch for c in self.kept]

    def selected(self) -> list[Candidate]:
        """The candidates that become nodes 1 .. N."""
        if not self.by_place:
            return self.kept
        return [self.kept[i] for i in select_by_distance(self._places(), self.nodes)]

    def state(self) -> list[dict[str, Any]]:
        """The candidates so far, plain values."""
        return [asdict(c) for c in self.kept]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Take up the candidates of :meth:`state`; their files lie in the folder."""
        self.kept = [Candidate(**c) for c in state]

    def make_path(
        self, path_folder: Path, teacher_weights: dict[str, Tensor], batch_size: int, facts: dict[str, Any]
    ) -> list[Node]:
        """Select the nodes, write the path, and remove the candidates.

        The path is assembled beside its place and moved there whole; ``path.json`` is its last file.

        Args:
            path_folder: where the path goes.
            teacher_weights: node 0.
            batch_size: samples an iteration of the recording.
            facts: see :func:`disback_cli.distillation.path.write_manifest`.

        Raises:
            UserError: a candidate's file is missing or damaged.
        """
        chosen = self.selected()
        nodes = _completed_before(path_folder, chosen)
        if nodes is None:
            nodes = self._build(path_folder, chosen, teacher_weights, batch_size, facts)
        shutil.rmtree(self.folder, ignore_errors=True)
        return nodes

    def _build(
        self,
        path_folder: Path,
        chosen: list[Candidate],
        teacher_weights: dict[str, Tensor],
        batch_size: int,
        facts: dict[str, Any],
    ) -> list[Node]:
        building = path_folder.with_name(f".{path_folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        digest = save_weights(building / "node_00.safetensors", teacher_weights)
        nodes = [Node(0, "node_00.safetensors", 0, 0, 0.0, digest, arc=0.0)]
        for index, c in enumerate(chosen, start=1):
            name = f"node_{index:02d}.safetensors"
            source = self.folder / c.file
            if not source.is_file() or sha256_of(source) != c.sha256:
                shutil.rmtree(building, ignore_errors=True)
                raise UserError(
                    f"the recorded candidate {source} is missing or damaged, so the path cannot be made of it; record "
                    "it again: the same command with resume=false"
                )
            write_bytes(building / name, source.read_bytes())
            nodes.append(Node(index, name, c.iteration, c.iteration * batch_size, c.mismatch, c.sha256, arc=c.arc))
        write_manifest(building, nodes, facts)
        shutil.rmtree(path_folder, ignore_errors=True)
        building.rename(path_folder)
        return nodes


def _completed_before(path_folder: Path, chosen: list[Candidate]) -> list[Node] | None:
    """The nodes of the path if it has been completed already: the run was interrupted later, or is resumed again."""
    if not (path_folder / MANIFEST).is_file():
        return None
    try:
        nodes = DegradationPath(path_folder).nodes
    except UserError as error:
        log.warning("%s", error)
        return None
    return nodes if [node.sha256 for node in nodes[1:]] == [c.sha256 for c in chosen] else None
