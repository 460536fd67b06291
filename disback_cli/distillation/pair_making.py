"""Making pairs of a teacher: what is asked for, which shards are still to do, and the drawing of one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from disback_cli.configuration.runfolder import read_json
from disback_cli.denoisers.sampling import heun, network_evaluations
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.pairs import DTYPES, MANIFEST, Shard, write_manifest
from disback_cli.errors import UserError
from disback_cli.files import write_bytes, write_json
from disback_cli.runtime.byte_progress import sha256_with_progress
from disback_cli.runtime.randomness import CounterRandom

REQUEST = "request.json"
# entry of a teacher's description that makes no other denoiser of it, and no other pairs worth keeping apart
_PRECISION = "network_dtype"


@dataclass(frozen=True)
class PairsRequest:
    """What a folder of pairs holds, or is to hold.

    Attributes:
        teacher: ``name``, ``hash`` and ``denoiser`` (its description without the precision of its activations).
        sampler: ``steps``, ``sigma_min``, ``sigma_max``, ``rho`` of the deterministic sampler.
        seed: of the latents and labels.
        n: pairs.
        dtype: in which they are stored, a key of ``DTYPES``.
        shard_size: pairs a file.
    """

    teacher: dict[str, Any]
    sampler: dict[str, float]
    seed: int
    n: int
    dtype: str
    shard_size: int

    @classmethod
    def of(cls, teacher: Teacher, *, seed: int, n: int, dtype: str, shard_size: int) -> PairsRequest:
        """The request for ``n`` pairs of this teacher under its sampler.

        Raises:
            UserError: the sampler is a stochastic one.
        """
        spec = {key: value for key, value in teacher.spec.items() if key != _PRECISION}
        identity = {"name": teacher.name, "hash": teacher.hash, "denoiser": spec}
        return cls(identity, deterministic(teacher), seed, n, dtype, shard_size)

    @property
    def shards(self) -> list[tuple[str, int, int]]:
        """File name, first pair and number of pairs of every shard."""
        starts = range(0, self.n, self.shard_size)
        return [
            (f"pairs_{i:05d}.safetensors", first, min(self.shard_size, self.n - first))
            for i, first in enumerate(starts)
        ]

    @property
    def evaluations(self) -> int:
        """Network evaluations a pair costs."""
        return network_evaluations(int(self.sampler["steps"]))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def matches(self, stored: PairsRequest | None) -> bool:
        """Whether a stored request is for the same pairs, under whatever name and in files of whatever size."""
        return stored is not None and _identity(stored.as_json()) == _identity(self.as_json())


def _identity(request: dict[str, Any]) -> Any:
    teacher = request.get("teacher", {})
    kept = {key: request.get(key) for key in ("sampler", "seed", "n", "dtype")}
    # as JSON has them: tuples are lists
    return json.loads(json.dumps([kept, teacher.get("hash"), teacher.get("denoiser")]))


def deterministic(teacher: Teacher) -> dict[str, float]:
    """The teacher's sampler settings in full: steps, sigma_min, sigma_max, rho.

    Raises:
        UserError: it adds noise on the way, so that a latent would have no sample of its own.
    """
    given = teacher.sampler
    if given.get("s_churn", 0) > 0:
        raise UserError(
            f"the sampler of teacher={teacher.name} adds noise on the way (teacher.sampler.s_churn="
            f"{given['s_churn']:g}), so the sample of a latent would not be determined by it; give "
            "teacher.sampler.s_churn=0"
        )
    low, high = given.get("sigma_min"), given.get("sigma_max")
    return {
        "steps": int(given.get("steps", 18)),
        "sigma_min": float(teacher.denoiser.sigma_min if low is None else low),
        "sigma_max": float(teacher.denoiser.sigma_max if high is None else high),
        "rho": float(given.get("rho", 7)),
    }


def stored_request(folder: Path) -> PairsRequest | None:
    """What a folder of pairs holds, or an unfinished one is to hold; None where that is not known."""
    manifest = read_json(folder / MANIFEST)
    content = manifest.get("request") if isinstance(manifest, dict) else read_json(folder / REQUEST)
    if not isinstance(content, dict):
        return None
    try:
        request = PairsRequest(**content)
    except TypeError:
        return None
    return request if isinstance(request.teacher, dict) else None


def find(folders: Iterable[Path], request: PairsRequest) -> Path | None:
    """The one of the folders with the same pairs, complete or not: a complete one first, then the newest by name."""
    same = [folder for folder in folders if request.matches(stored_request(folder))]
    return max(same, key=lambda folder: ((folder / MANIFEST).is_file(), folder.name), default=None)


def begin(folder: Path, request: PairsRequest) -> None:
    """Note in the folder what it is to hold: the same request finds it again and goes on."""
    write_json(folder / REQUEST, request.as_json())


def missing(folder: Path, request: PairsRequest) -> list[int]:
    """Numbers of the shards that are still to be made; a file is whole or absent."""
    return [i for i, (name, _, _) in enumerate(request.shards) if not (folder / name).is_file()]


def make_shard(
    folder: Path, request: PairsRequest, number: int, teacher: Teacher, batch_size: int, device: torch.device
) -> Iterator[int]:
    """Draw one shard and write it; yields the pairs of each batch as they are done.

    Args:
        folder: where it goes.
        request: what is made.
        number: of the shard.
        teacher: on ``device``.
        batch_size: pairs at a time.
        device: where they are made.
    """
    name, first, count = request.shards[number]
    began = time.perf_counter()
    parts: list[dict[str, Tensor]] = []
    for start in range(first, first + count, batch_size):
        parts.append(_draw(request, teacher, start, min(batch_size, first + count - start), device))
        yield len(parts[-1]["z"])
    tensors = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    write_bytes(folder / name, save(tensors, {"seconds": f"{time.perf_counter() - began:.3f}"}))


def _draw(request: PairsRequest, teacher: Teacher, first: int, count: int, device: torch.device) -> dict[str, Tensor]:
    """Pairs ``first .. first + count - 1``: a function of their numbers, whatever the batch or the process."""
    random, dtype, denoiser = CounterRandom(request.seed), DTYPES[request.dtype], teacher.denoiser
    z = random.normal("pair z", 0, first, count, denoiser.shape, device).to(dtype)
    labels = random.one_hot_labels("pair labels", 0, first, count, denoiser.label_dim, device)
    settings: dict[str, Any] = dict(request.sampler)
    x = heun(denoiser, z.float(), labels, **settings).to(dtype)
    if not bool(torch.isfinite(x).all()):
        raise UserError(
            f"samples of teacher={teacher.name} are not finite in {request.dtype}; "
            + ("give dtype=fp32" if request.dtype != "fp32" else "look at the teacher with `disback sample` first")
        )
    made = {"z": z.cpu(), "x": x.cpu()}
    return made if labels is None else {**made, "labels": labels.argmax(1).cpu()}


def finish(folder: Path, request: PairsRequest, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder whose shards are all there; ``facts`` is what else it tells."""
    shards, seconds = [], 0.0
    for name, _, count in request.shards:
        file = folder / name
        shards.append(Shard(name, count, sha256_with_progress(file)))
        with safe_open(file, "pt") as opened:
            seconds += float((opened.metadata() or {}).get("seconds", 0))
    # the seconds of all processes together
    cost = {"network_passes": request.n * request.evaluations, "seconds": round(seconds, 1)}
    write_manifest(folder, shards, {**facts, "request": request.as_json(), "cost": cost})
    (folder / REQUEST).unlink(missing_ok=True)
