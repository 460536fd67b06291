"""The degradation path on disk: ordered, verified sets of denoiser weights, node 0 = the teacher.

``<run>/path/`` holds ``node_00.safetensors`` ... and ``path.json``, which is written last: a folder without it is
no path. A node holds the denoiser's weights alone (fp32), or those of the adapters that were trained beside the
teacher's (LoRA), so any run on the same teacher can use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from disback_cli.distillation.adapters import LoraSettings, merged
from disback_cli.distillation.belonging import require_same_teacher
from disback_cli.errors import UserError
from disback_cli.files import sha256_of, write_bytes, write_json

FORMAT = 1
MANIFEST = "path.json"


@dataclass(frozen=True)
class Node:
    """One set of weights.

    Attributes:
        index: place on the path, 0 is the teacher.
        file: its file's name.
        iteration: iterations of stage 1 behind it.
        images: samples of stage 1 behind it.
        mismatch: to the teacher, see :func:`disback_cli.distillation.losses.mismatch`.
        sha256: of the file.
        arc: way from the teacher to it, each measured state of the recording against the one before; None in paths
            that were recorded before it was measured.
    """

    index: int
    file: str
    iteration: int
    images: int
    mismatch: float
    sha256: str
    arc: float | None = None


def save_weights(path: Path, weights: dict[str, Tensor]) -> str:
    """Write weights as safetensors, atomically; returns the file's sha256."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    write_bytes(path, content)
    return sha256_of(path)


def write_manifest(folder: Path, nodes: Sequence[Node], facts: dict[str, Any]) -> None:
    """Complete a path folder: all nodes are there, now say so.

    Args:
        folder: where the node files are.
        nodes: in order, node 0 first.
        facts: everything else the manifest tells: teacher (name, hash), student, noise, cost, ...; ``adapter`` where
            the nodes are adapters, see :meth:`disback_cli.distillation.adapters.LoraSettings.document`.
    """
    write_json(folder / MANIFEST, {"format": FORMAT, **facts, "nodes": [asdict(node) for node in nodes]})


def find_manifest(location: str | Path) -> Path:
    """The ``path.json`` of a run folder, a path folder or the file itself.

    Raises:
        UserError: there is none.
    """
    place = Path(location)
    for candidate in (place, place / MANIFEST, place / "path" / MANIFEST):
        if candidate.is_file() and candidate.name == MANIFEST:
            return candidate
    raise UserError(
        f"no recorded path at {place}: neither {MANIFEST} nor path/{MANIFEST} is there. Record one with "
        "`disback record`, finish an interrupted one with `disback record resume=auto`, or give path=RUN."
    )


class DegradationPath:
    """A complete path, every node verified against its hash when opened.

    Attributes:
        adapter: settings of the adapters that the nodes hold; None where the nodes are whole networks.

    Args:
        location: a run folder, its ``path`` folder, or its ``path.json``.

    Raises:
        UserError: no path there, a manifest of another format, a node that is missing or damaged.
    """

    def __init__(self, location: str | Path) -> None:
        manifest = find_manifest(location)
        self.folder = manifest.parent
        try:
            self.facts: dict[str, Any] = json.loads(manifest.read_text())
            known = self.facts["format"]
            if known != FORMAT:
                raise UserError(f"{manifest} has format {known}; this version reads format {FORMAT}.")
            self.nodes = [Node(**node) for node in self.facts["nodes"]]
            self.teacher_name, self.teacher_hash = self.facts["teacher"]["name"], self.facts["teacher"]["hash"]
            adapter = self.facts.get("adapter")
            self.adapter = None if adapter is None else LoraSettings.of_document(adapter)
        except (ValueError, KeyError, TypeError) as error:  # ValueError: no JSON, or not even text
            raise UserError(f"{manifest} is damaged ({error!r}); record the path again.") from error
        if len(self.nodes) < 2 or [node.index for node in self.nodes] != list(range(len(self.nodes))):
            raise UserError(f"{manifest} must list nodes 0, 1, ... in order, at least two; record the path again.")
        self._verify()

    @property
    def identity(self) -> str:
        """Hash of the nodes in order: equal where all their weights are."""
        return hashlib.sha256("".join(node.sha256 for node in self.nodes).encode()).hexdigest()

    @property
    def last(self) -> int:
        """Number of the last node, N."""
        return len(self.nodes) - 1

    @property
    def distances(self) -> list[float]:
        """How far along the path each node lies: by the way between the nodes where it was measured."""
        arcs = [node.arc for node in self.nodes if node.arc is not None]
        return arcs if len(arcs) == len(self.nodes) else [node.mismatch for node in self.nodes]

    def _verify(self) -> None:
        for node in self.nodes:
            file = self.folder / str(node.file)
            if Path(str(node.file)).name != node.file:
                raise UserError(f"node {node.index} names a file outside its folder: {node.file!r}; refused.")
            if not file.is_file():
                raise UserError(f"node {node.index} of the path is missing: {file}. Record the path again.")
            if sha256_of(file) != node.sha256:
                raise UserError(
                    f"node {node.index} of the path is damaged: {file} does not have the hash that "
                    f"{MANIFEST} gives (truncated or changed). Restore it, or record the path again."
                )

    def weights(self, index: int) -> dict[str, Tensor]:
        """The tensors of node ``index`` as they lie in its file, on the CPU."""
        return load_file(self.folder / self.nodes[index].file)

    def full_weights(self, index: int, teacher_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the whole network at node ``index`` under the teacher's names.

        Args:
            index: number of the node.
            teacher_weights: the teacher's state dict, into which adapters are merged.

        Raises:
            UserError: the node's adapters do not fit these weights.
        """
        weights = self.weights(index)
        return weights if self.adapter is None else merged(teacher_weights, weights, self.adapter.scale)

    def require_teacher(self, name: str, weights_hash: str, spec: Mapping[str, Any] | None = None) -> None:
        """Check that the path belongs to this teacher, see :func:`require_same_teacher`.

        Args:
            name: of the teacher.
            weights_hash: of its weights.
            spec: description of its denoiser; None compares the weights only.

        Raises:
            UserError: it was recorded from other weights, or from another denoiser with the same weights.
        """
        instead = f"choose another path=RUN, or record one with this teacher: `disback record teacher={name} ...`"
        origin = f"the path {self.folder} was recorded from"
        require_same_teacher(self.facts["teacher"], name, weights_hash, spec, origin=origin, instead=instead)
