"""Callback of stage 1 that keeps candidates while the recording runs, and makes the path of them at its end."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.path import MANIFEST, DegradationPath, Node, save_weights, write_manifest
from disback_cli.distillation.recording import MismatchProbe, Recording
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

Spacing = Literal["distance", "steps", "geometric"]
# Candidates kept at a time, a multiple of the nodes asked for: bounds the disk that a recording needs.
CANDIDATES_PER_NODE = 4


@dataclass(frozen=True)
class Candidate:
    """A state of the recording that may become a node."""

    iteration: int
    mismatch: float
    file: str
    sha256: str


class PathRecorder(pl.Callback):
    """Keeps the recorded network's weights at the candidate steps and selects the nodes.

    Args:
        run_dir: candidates go to ``<run_dir>/candidates``, the finished path to ``<run_dir>/path``.
        teacher: node 0.
        nodes: how many nodes to record besides the teacher (N).
        spacing: ``distance``: evenly in mismatch to the teacher; ``steps``; ``geometric`` (in steps).
        iterations: length of the recording.
        probe_samples: size of the fixed set on which the mismatch is measured.
        at_once: most samples of it that a network is asked for at a time.
    """

    def __init__(
        self,
        *,
        run_dir: Path,
        teacher: Denoiser,
        nodes: int,
        spacing: Spacing,
        iterations: int,
        probe_samples: int,
        at_once: int | None = None,
    ) -> None:
        if nodes > iterations:
            raise UserError(f"nodes={nodes} do not fit into iterations={iterations} of recording")
        choose = {
            "steps": lambda: even_steps(nodes, iterations),
            "geometric": lambda: geometric_steps(nodes, iterations),
            "distance": lambda: candidate_steps(iterations),
        }
        self.steps = frozenset(choose[spacing]())
        if len(self.steps) < nodes:
            raise UserError(
                f"nodes={nodes} are more than the {len(self.steps)} candidates that {iterations} iterations give; "
                "raise iterations, lower nodes, or take spacing=steps"
            )
        self.folder, self.path_folder = run_dir / "candidates", run_dir / "path"
        self.teacher, self.nodes, self.spacing = teacher, nodes, spacing
        self.iterations = iterations
        self.most = max(CANDIDATES_PER_NODE * nodes, nodes + 2)
        self.probe_samples, self.at_once = probe_samples, at_once
        self.candidates: list[Candidate] = []
        self._probe: MismatchProbe | None = None
        self.measurements = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the measuring set on the run's device."""
        assert isinstance(pl_module, Recording)
        if trainer.is_global_zero:
            self._probe = MismatchProbe(pl_module, self.teacher.to(pl_module.device), self.probe_samples, self.at_once)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Measure and keep a candidate at its step; on the first process, where the path is written."""
        assert isinstance(pl_module, Recording)
        if pl_module.iteration not in self.steps or not trainer.is_global_zero:
            return
        assert self._probe is not None
        self.measurements += 1
        distance = self._probe.measure(pl_module.fake)
        file = f"step_{pl_module.iteration:08d}.safetensors"
        digest = save_weights(self.folder / file, pl_module.fake.state_dict())
        self.candidates.append(Candidate(pl_module.iteration, distance, file, digest))
        log.info("iteration %d: candidate kept, mismatch to the teacher %.4f", pl_module.iteration, distance)
        if self.spacing == "distance" and len(self.candidates) > self.most:
            dropped = self.candidates.pop(thin([c.mismatch for c in self.candidates]))
            (self.folder / dropped.file).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """The candidates so far; those of a resumed run are made again, bit for bit."""
        return {
            "iterations": self.iterations,
            "candidates": [asdict(c) for c in self.candidates],
            "measurements": self.measurements,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the candidates of the checkpoint.

        Raises:
            UserError: the length has changed, and with it the steps at which candidates are kept.
        """
        if state_dict["iterations"] != self.iterations:
            raise UserError(
                f"this recording was started with iterations={state_dict['iterations']}, now it is {self.iterations}; "
                "its nodes would not lie where they belong. Leave it as it was, or start a new one with resume=false."
            )
        self.candidates = [Candidate(**c) for c in state_dict["candidates"]]
        self.measurements = state_dict["measurements"]

    @property
    def probe_passes(self) -> int:
        """Network passes spent on measuring, in samples."""
        return self.probe_samples * (self.measurements + 2)

    def finish(self, teacher_weights: dict[str, Tensor], batch_size: int, facts: dict[str, Any]) -> list[Node]:
        """Select the nodes, write the path, and remove the candidates.

        The path is assembled beside its place and moved there whole; ``path.json`` is its last file.
        """
        chosen = self.candidates
        if self.spacing == "distance":
            distances = [c.mismatch for c in self.candidates]
            chosen = [self.candidates[i] for i in select_by_distance(distances, self.nodes)]
        nodes = self._completed_before(chosen)
        if nodes is None:
            nodes = self._build_path(chosen, teacher_weights, batch_size, facts)
        shutil.rmtree(self.folder, ignore_errors=True)
        return nodes

    def _completed_before(self, chosen: list[Candidate]) -> list[Node] | None:
        """The nodes of the path if this run has completed it already: it was interrupted later, or is resumed again."""
        if not (self.path_folder / MANIFEST).is_file():
            return None
        try:
            nodes = DegradationPath(self.path_folder).nodes
        except UserError as error:
            log.warning("%s", error)
            return None
        return nodes if [node.sha256 for node in nodes[1:]] == [c.sha256 for c in chosen] else None

    def _build_path(
        self, chosen: list[Candidate], teacher_weights: dict[str, Tensor], batch_size: int, facts: dict[str, Any]
    ) -> list[Node]:
        building = self.path_folder.with_name(".path.building")
        shutil.rmtree(building, ignore_errors=True)
        digest = save_weights(building / "node_00.safetensors", teacher_weights)
        nodes = [Node(0, "node_00.safetensors", 0, 0, 0.0, digest)]
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
            nodes.append(Node(index, name, c.iteration, c.iteration * batch_size, c.mismatch, c.sha256))
        write_manifest(building, nodes, facts)
        shutil.rmtree(self.path_folder, ignore_errors=True)
        building.rename(self.path_folder)
        return nodes
