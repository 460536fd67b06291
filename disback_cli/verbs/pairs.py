"""`disback pairs`: latents of a teacher with what its deterministic sampler makes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.pair_making import PairsRequest
    from disback_cli.runtime.launch import Launch

log = logging.getLogger("disback_cli.verbs.pairs")


def work(cfg: DictConfig) -> None:
    """Look for the same pairs, else make them with all processes; the first one completes the folder and tells."""
    from pathlib import Path

    import torch
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from disback_cli.configuration.entry import remove_if_empty
    from disback_cli.distillation import pair_making
    from disback_cli.distillation.pairs import MANIFEST
    from disback_cli.runtime.logs import set_up_logging
    from disback_cli.runtime.session import process_rank
    from disback_cli.runtime.workers import workers
    from disback_cli.verbs.common import build_teacher, refuse_typed

    run = Path(HydraConfig.get().runtime.output_dir).absolute()
    main = process_rank() == 0
    try:
        refuse_typed(("trainer.max_batch",), "batch_size= is what `disback pairs` takes at a time")
        launch: Launch = instantiate(cfg.trainer)
        torch.set_num_threads(launch.threads)
        set_up_logging(None, process_rank())
        teacher = build_teacher(cfg)
        request = pair_making.PairsRequest.of(
            teacher, seed=cfg.seed, n=cfg.n, dtype=cfg.dtype, shard_size=cfg.shard_size
        )
        found = pair_making.find([*Path(cfg.runs, "pairs", teacher.name).absolute().glob("*"), run], request)
        if found is not None and (found / MANIFEST).is_file():
            if main:
                _tell(teacher, launch, found, "already there: of the same teacher, sampler, seed and n")
            return
        with _entered(cfg, found or run, request, new=found is None) if main else nullcontext(), workers(launch):
            folder = _make(cfg, launch, teacher, found or run)
            if main:
                _complete(cfg, folder, teacher)
                _tell(teacher, launch, folder, "made")
    finally:
        if main:
            remove_if_empty(run)


@contextmanager
def _entered(cfg: DictConfig, folder: Path, request: PairsRequest, *, new: bool) -> Iterator[None]:
    """The folder, locked; its state says how far the work came. What is there is kept, whatever ends the work."""
    from disback_cli.configuration import runfolder
    from disback_cli.distillation import pair_making
    from disback_cli.runtime.session import shown_path
    from disback_cli.verbs.common import begin

    with runfolder.lock(folder):
        begin(cfg, "pairs", folder, as_run=new or runfolder.read(folder) is None)
        if new:
            pair_making.begin(folder, request)
        else:
            log.info("going on with the unfinished pairs in %s", shown_path(folder))
            for torn in folder.glob(".*.tmp"):
                torn.unlink()  # of a process that was killed while it wrote; the lock says that nobody is writing now
        runfolder.set_state(folder, "running")
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            runfolder.set_state(folder, "interrupted")
            log.info("stopped; the same command goes on from the last complete file in %s", shown_path(folder))
            raise
        except BaseException:
            runfolder.set_state(folder, "failed")
            raise
        runfolder.set_state(folder, "finished")


def _make(cfg: DictConfig, launch: Launch, teacher: Teacher, folder: Path) -> Path:
    """All shards that are still missing, shared out over the processes; returns the folder they are in."""
    from pathlib import Path
    from typing import Any

    import torch.distributed as dist

    from disback_cli.distillation import pair_making
    from disback_cli.runtime.processes import rank_and_world
    from disback_cli.runtime.progress import Progress

    rank, world = rank_and_world()
    agreed: list[Any] = [None]
    if rank == 0:
        stored = pair_making.stored_request(folder)
        assert stored is not None
        agreed = [(str(folder), stored, pair_making.missing(folder, stored))]
    if world > 1:
        dist.broadcast_object_list(agreed)
    place, request, todo = agreed[0]
    left = sum(request.shards[number][2] for number in todo)
    teacher.denoiser.to(launch.device)
    progress = Progress("pairs", request.n, request.n - left, quiet=rank > 0)
    try:
        for number in todo[rank::world]:
            for done in pair_making.make_shard(Path(place), request, number, teacher, cfg.batch_size, launch.device):
                progress.advance(min(done * world, progress.total - progress.count))
    finally:
        progress.close()
    if world > 1:
        dist.barrier()
    return Path(place)


def _complete(cfg: DictConfig, folder: Path, teacher: Teacher) -> None:
    """Write the manifest and ``summary.json``."""
    from datetime import UTC, datetime

    from hydra.core.hydra_config import HydraConfig

    from disback_cli.configuration.arguments import places, with_absolute_places
    from disback_cli.distillation import pair_making
    from disback_cli.distillation.pairs import Pairs
    from disback_cli.files import write_json
    from disback_cli.runtime.session import SUMMARY_FILE
    from disback_cli.verbs.common import plain

    hydra = HydraConfig.get()
    request = pair_making.stored_request(folder)
    assert request is not None
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "teacher": {**teacher.identity(), "denoiser": teacher.spec},
        "teacher_choice": hydra.runtime.choices["teacher"],
        "shape": list(teacher.denoiser.shape),
        "classes": teacher.denoiser.label_dim,
        "overrides": list(hydra.overrides.task),
        "places": places(with_absolute_places({"teacher": plain(cfg.teacher)})),
    }
    pair_making.finish(folder, request, facts)
    cost = Pairs(folder).facts["cost"]
    write_json(folder / SUMMARY_FILE, {"verb": "pairs", "teacher": teacher.name, "metrics": {}, "cost": cost})


def _tell(teacher: Teacher, launch: Launch, folder: Path, how: str) -> None:
    """Say what is there and what to type next; draw a picture if there is none yet."""
    import torch

    from disback_cli.distillation.pair_making import stored_request
    from disback_cli.distillation.pairs import Pairs
    from disback_cli.reporting.pictures import save_samples
    from disback_cli.runtime.session import shown_path
    from disback_cli.verbs.generators import decoded

    pairs, request = Pairs(folder), stored_request(folder)
    assert request is not None
    picture = folder / "grid.png"
    if not picture.is_file():
        samples = decoded(
            lambda first, count: pairs.at(torch.arange(first, first + count), launch.device)[2],
            teacher.decoder, launch.device,
        )  # fmt: skip
        with torch.no_grad():
            save_samples(picture, samples(0, min(64 if len(pairs.shape) == 3 else 2048, len(pairs))))
    print(f"\n{len(pairs)} pairs of {teacher.name}: {how}")
    print(
        f"each:    {request.evaluations} network evaluations, deterministic; shape {list(pairs.shape)}, {request.dtype}"
    )
    print(f"pairs:   {shown_path(folder)}")
    print(f"picture: {shown_path(picture)}")
    print(f"next:    disback regress pairs={shown_path(folder)}")


if __name__ == "__main__":
    verb_main("pairs", work)
