"""`disback sample`: draw samples from a student or a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from disback_cli.verbs.generators import Generator


def work(cfg: DictConfig) -> None:
    """Compose, sample, say where the samples are."""
    from hydra.utils import instantiate

    from disback_cli.runtime.session import shown_path
    from disback_cli.verbs.common import one_shot, refuse_typed
    from disback_cli.verbs.generators import build_generator

    launch = instantiate(cfg.trainer)
    with one_shot(cfg, "sample", cfg.out) as folder:
        refuse_typed(("trainer.max_batch",), "batch_size= is what `disback sample` takes at a time")
        generator = build_generator(cfg, launch.device, cfg.label)
        _draw(cfg, generator, folder)
        print(f"{cfg.n} samples of the {generator.name}, {generator.evaluations} network evaluations each")
        print(f"picture: {shown_path(folder)}/grid.png")
        print(f"samples: {shown_path(folder)}/samples.npz")
        if cfg.png and len(generator.shape) == 3:
            print(f"images:  {shown_path(folder)}/png")


def _draw(cfg: DictConfig, generator: Generator, folder: Path) -> None:
    import numpy as np
    import torch

    from disback_cli.data.pixels import to_uint8
    from disback_cli.files import write_atomically
    from disback_cli.reporting.pictures import grid_image, save_png, save_samples
    from disback_cli.runtime.progress import tracked

    parts, labels = [], []
    starts = range(cfg.first, cfg.first + cfg.n, cfg.batch_size)
    with torch.no_grad():
        for start in tracked(starts, "sampling", cfg.n, cfg.batch_size):
            count = min(cfg.batch_size, cfg.first + cfg.n - start)
            parts.append(generator.sampler(start, count).cpu())
            one_hot = generator.noise.labels(start, count)
            labels.append(torch.full((count,), -1) if one_hot is None else one_hot.argmax(1).cpu())
    x = torch.cat(parts)
    images = x.dim() == 4
    arrays = {"samples": to_uint8(x).permute(0, 2, 3, 1).numpy() if images else x.numpy()}
    if generator.classes:
        arrays["labels"] = torch.cat(labels).numpy()
    write_atomically(folder / "samples.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    save_samples(folder / "grid.png", x[:1024])
    if cfg.png and images:
        for index, sample in enumerate(x, start=cfg.first):
            save_png(folder / "png" / f"{index:06d}.png", grid_image(sample[None], enlarge=False))


if __name__ == "__main__":
    verb_main("sample", work)
