"""Pairs of a teacher on disk: latents, and what its deterministic sampler makes of them.

A folder of pairs holds ``pairs_00000.safetensors`` ... and ``pairs.json``, which is written last: without it the
folder is unfinished. A shard holds ``z`` and ``x``, [n, *shape], and for a conditional teacher ``labels``, int64 [n].
The latents are rounded to the precision they are stored in before the teacher sees them, so a pair belongs together
exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from disback_cli.data.sampler import indices
from disback_cli.distillation.belonging import require_same_teacher
from disback_cli.errors import UserError
from disback_cli.files import sha256_of, write_json

FORMAT = 1
MANIFEST = "pairs.json"
_AGAIN = "remove the folder and make the pairs again with `disback pairs`"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class Shard:
    """One file of pairs.

    Attributes:
        file: its name.
        n: pairs in it.
        sha256: of the file.
    """

    file: str
    n: int
    sha256: str


def write_manifest(folder: Path, shards: Sequence[Shard], facts: Mapping[str, Any]) -> None:
    """Complete a folder of pairs: all shards are there, now say so.

    Args:
        folder: where they are.
        shards: in order; all but the last of one size.
        facts: everything else the manifest tells: teacher, sampler, seed, shape, classes, cost, ...
    """
    write_json(folder / MANIFEST, {"format": FORMAT, **facts, "shards": [asdict(shard) for shard in shards]})


def find_manifest(location: str | Path) -> Path:
    """The ``pairs.json`` of a folder of pairs, or the file itself.

    Raises:
        UserError: there is none.
    """
    place = Path(location).expanduser()
    for candidate in (place, place / MANIFEST):
        if candidate.name == MANIFEST and candidate.is_file():
            return candidate
    raise UserError(
        f"pairs={place}: there are no complete pairs: no {MANIFEST} is there. `disback pairs` makes some, and goes on "
        "with unfinished ones when the same command is given again"
    )


class Pairs:
    """Complete pairs, every shard verified against its hash when opened; the shards stay on disk until they are used.

    Args:
        location: a run folder of `disback pairs`, or its ``pairs.json``.

    Attributes:
        folder: where the shards are.
        facts: what ``pairs.json`` says.
        shape: of one sample.
        label_dim: number of classes, 0 for pairs of an unconditional teacher.

    Raises:
        UserError: no complete pairs there, another format, a shard that is missing or damaged.
    """

    def __init__(self, location: str | Path) -> None:
        manifest = find_manifest(location)
        self.folder = manifest.parent
        try:
            self.facts: dict[str, Any] = json.loads(manifest.read_text())
            known = self.facts["format"]
            if known != FORMAT:
                raise UserError(f"{manifest} has format {known}; this version reads format {FORMAT}")
            self.shards = [Shard(**shard) for shard in self.facts["shards"]]
            self.shape = tuple(int(size) for size in self.facts["shape"])
            self.label_dim = int(self.facts["classes"])
            self.teacher_name = str(self.facts["teacher"]["name"])
            self.teacher_hash = str(self.facts["teacher"]["hash"])
            sizes = [int(shard.n) for shard in self.shards]
        except (ValueError, KeyError, TypeError) as error:  # ValueError: no JSON, or not even text
            raise UserError(f"{manifest} is damaged ({error!r}); {_AGAIN}") from error
        if not sizes or min(sizes) < 1 or any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
            raise UserError(f"{manifest} must list shards of one size, of which the last may be smaller; {_AGAIN}")
        self._n, self._each = sum(sizes), sizes[0]
        for shard in self.shards:
            self._verify(shard)
        self._tensors = [self._open(shard) for shard in self.shards]

    def __len__(self) -> int:
        return self._n

    def _verify(self, shard: Shard) -> None:
        file = self.folder / str(shard.file)
        if Path(str(shard.file)).name != shard.file:
            raise UserError(f"{self.folder / MANIFEST} names a file outside its folder: {shard.file!r}; refused")
        if not file.is_file():
            raise UserError(f"{file} is missing; restore it, or {_AGAIN}")
        if sha256_of(file) != shard.sha256:
            raise UserError(
                f"{file} is damaged: it does not have the hash that {MANIFEST} gives (truncated or changed). "
                f"Restore it, or {_AGAIN}"
            )

    def _open(self, shard: Shard) -> dict[str, Tensor]:
        file = self.folder / shard.file
        try:
            tensors = load_file(file)  # mapped into memory: nothing is read before it is asked for
        except SafetensorError as error:
            raise UserError(f"{file} is no file of pairs ({error}); {_AGAIN}") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted: dict[str, tuple[int, ...]] = {"z": (shard.n, *self.shape), "x": (shard.n, *self.shape)}
        if self.label_dim:
            wanted["labels"] = (shard.n,)
        if shapes != wanted:
            raise UserError(f"{file} holds {shapes}, {MANIFEST} says {wanted}; {_AGAIN}")
        return tensors

    def require_teacher(self, name: str, weights_hash: str, spec: Mapping[str, Any] | None = None) -> None:
        """Check that the pairs are of this teacher, see :func:`require_same_teacher`.

        Args:
            name: of the teacher.
            weights_hash: of its weights.
            spec: description of its denoiser; None compares the weights only.

        Raises:
            UserError: they were made with other weights, or by another denoiser with the same weights.
        """
        instead = f"choose other pairs=RUN, or make some with this teacher: `disback pairs teacher={name} ...`"
        origin = f"the pairs in {self.folder} are of"
        require_same_teacher(self.facts["teacher"], name, weights_hash, spec, origin=origin, instead=instead)

    def batch(self, seed: int, first: int, count: int, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
        """The pairs at positions ``first .. first + count - 1`` of an endless shuffled stream.

        What a position holds is a pure function of seed and position, see :mod:`disback_cli.data.sampler`.

        Args:
            seed: of the order.
            first: position in the stream, >= 0: pairs taken so far over all processes, plus this process's offset.
            count: how many.
            device: where they are wanted.

        Returns:
            Latents fp32 [count, *shape], unit normal; one-hot labels fp32 [count, label_dim] or None; the teacher's
            samples of them, fp32 [count, *shape].
        """
        return self.at(indices(seed, first, count, self._n), device)

    def at(self, chosen: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
        """The pairs with these numbers, int64 [B] in 0 .. len - 1; returns what :meth:`batch` returns."""
        z, x = self._gather("z", chosen).to(device).float(), self._gather("x", chosen).to(device).float()
        if not self.label_dim:
            return z, None, x
        labels = self._gather("labels", chosen).to(device)
        return z, torch.nn.functional.one_hot(labels, self.label_dim).float(), x

    def _gather(self, name: str, chosen: Tensor) -> Tensor:
        """The entries of one tensor, in the order of ``chosen``, as they are stored."""
        first = self._tensors[0][name]
        found = torch.empty((len(chosen), *first.shape[1:]), dtype=first.dtype)
        shard = chosen // self._each
        for number in shard.unique().tolist():
            here = (shard == number).nonzero().squeeze(1)
            found[here] = self._tensors[number][name][chosen[here] - number * self._each]
        return found
