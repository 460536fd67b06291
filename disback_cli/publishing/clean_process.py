"""An exported pipeline, loaded as a stranger would: by diffusers, in a process that cannot import this package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from disback_cli.errors import UserError

_PROGRAM = '''
import sys


class Blocked:
    """Refuses to find disback_cli."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "disback_cli":
            raise ModuleNotFoundError("disback_cli must not be needed here")


sys.meta_path.insert(0, Blocked())
folder, out, count, seed, classes, threads, custom = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

torch.set_num_threads(threads)
options = {"trust_remote_code": True} if custom else {}
pipe = DiffusionPipeline.from_pretrained(folder, **options)
pipe.set_progress_bar_config(disable=True)
labels = {"class_labels": [i % classes for i in range(count)]} if classes else {}
generator = torch.Generator().manual_seed(seed)
images = pipe(batch_size=count, generator=generator, output_type="pt", **labels).images
save_file({"images": images.float().contiguous()}, out)
'''


def sampled_in_clean_process(folder: Path, count: int, seed: int, label_dim: int, custom: bool) -> Tensor:
    """Images of an exported pipeline, in [0, 1], drawn with stock diffusers in a process without this package.

    Args:
        folder: the exported pipeline.
        count: number of images; image i is of class ``i % label_dim`` if there are classes.
        seed: of the generator that draws the latents.
        label_dim: number of classes, 0 = unconditional.
        custom: allow the folder's own code.

    Returns:
        [count, C, H, W], fp32.

    Raises:
        UserError: diffusers could not load or run it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "images.safetensors"
        environment = os.environ | {"HF_MODULES_CACHE": scratch, "HF_HUB_OFFLINE": "1"}
        numbers = (count, seed, label_dim, torch.get_num_threads(), int(custom))
        words = [sys.executable, "-P", "-c", _PROGRAM, str(folder.absolute()), str(out), *map(str, numbers)]
        done = subprocess.run(words, env=environment, cwd=scratch, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the exported folder was written, but diffusers cannot use it ({last}); nothing was kept")
        return load_file(out)["images"]
