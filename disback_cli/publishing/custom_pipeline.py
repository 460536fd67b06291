"""A diffusers folder that brings its own code: for networks that diffusers has no class for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from disback_cli.denoisers.build import TARGET
from disback_cli.errors import UserError
from disback_cli.files import write_bytes, write_json
from disback_cli.publishing.cards import pipeline_card
from disback_cli.publishing.model import Model
from disback_cli.publishing.precision import differing, in_precision
from disback_cli.publishing.source_bundle import bundle

# Network and pipeline of students of one evaluation, and of several.
ONE_STEP = (
    ("disback_cli.publishing.one_step_network", "OneStepGenerator"),
    ("disback_cli.publishing.one_step_pipeline", "OneStepPipeline"),
)
FEW_STEP = (
    ("disback_cli.publishing.few_step_network", "FewStepGenerator"),
    ("disback_cli.publishing.few_step_pipeline", "FewStepPipeline"),
)
COMPONENT = "network"
PIPELINE_FILE = "pipeline"
WEIGHTS = "diffusion_pytorch_model.safetensors"

_HEADER = """{what}, exported by disback; needs torch and diffusers only.

The definitions are cut out of disback's modules, which are named above them.
Licence of this code: Apache-2.0."""
# One file, not two with an import between them: from the Hub, diffusers fetches only the one that the index names.
_FOOTER = """

# diffusers executes this file again for every pipeline that it loads. The classes of the first time stay: networks that
# exist already compare with them.
_FIRST = globals().setdefault("_FIRST", {})
for _name, _value in list(globals().items()):
    if isinstance(_value, type) and _value.__module__ == __name__:
        globals()[_name] = _FIRST.setdefault(_name, _value)
"""


def write_custom_pipeline(model: Model, root: Path, dtype: str | None, label_dim: int) -> dict[str, Tensor]:
    """Write a folder for ``DiffusionPipeline.from_pretrained(..., trust_remote_code=True)``.

    Args:
        model: a student.
        root: the folder to make.
        dtype: of the weights; None keeps theirs.
        label_dim: number of classes, 0 = unconditional.

    Returns:
        The weights as stored, by their names in the pipeline's network.

    Raises:
        UserError: the weights do not fit in ``dtype`` or did not arrive on the disk.
    """
    from diffusers import __version__ as version

    several = len(model.sigmas) > 1
    network_class, pipeline_class = FEW_STEP if several else ONE_STEP
    specs = {"denoiser": model.spec} | ({"decoder": model.decoder.spec} if model.decoder else {})
    weights = {f"denoiser.{name}": tensor for name, tensor in model.weights.items()}
    if model.decoder:
        weights |= {f"decoder.{name}": tensor for name, tensor in model.decoder.weights.items()}
    stored = in_precision(weights, dtype)
    roots = [network_class, *class_names(list(specs.values()))]
    code = (
        bundle(roots, _HEADER.format(what=f"The network of a {'few' if several else 'one'}-step generator")) + _FOOTER
    )
    # diffusers keeps the modules it loads by name: another export's code must have another name
    module = f"network_{hashlib.sha256(code.encode()).hexdigest()[:8]}"
    folder = root / COMPONENT
    write_bytes(folder / f"{module}.py", code.encode())
    write_json(
        folder / "config.json",
        {
            "_class_name": network_class[1],
            "_diffusers_version": version,
            **{f"{name}_spec": local_spec(spec) for name, spec in specs.items()},
            **({"sigmas": model.sigmas} if several else {"sigma_init": model.sigmas[0]}),
        },
    )
    write_bytes(folder / WEIGHTS, save(stored, metadata={"format": "pt"}))
    pipeline = bundle([pipeline_class], _HEADER.format(what="The pipeline"))
    write_bytes(root / f"{PIPELINE_FILE}.py", pipeline.encode())
    write_bytes(root / "README.md", pipeline_card(model, stored, call(label_dim)).encode())
    write_json(
        root / "model_index.json",
        {
            "_class_name": [PIPELINE_FILE, pipeline_class[1]],
            "_diffusers_version": version,
            COMPONENT: [module, network_class[1]],
        },
    )
    wrong = differing(load_file(folder / WEIGHTS), stored)
    if wrong:
        raise UserError(f"{len(wrong)} tensors changed on their way to the disk, {wrong[0]} first: check the disk")
    return stored


def call(label_dim: int) -> str:
    """Python code that draws images from the exported folder."""
    labels = f", class_labels={[index % label_dim for index in range(4)]}" if label_dim else ""
    return f"""\
import torch
from diffusers import DiffusionPipeline

# trust_remote_code: this folder holds the code of its network; read pipeline.py and network/*.py first
pipe = DiffusionPipeline.from_pretrained("THIS_FOLDER", trust_remote_code=True)
pipe(batch_size=4{labels}, generator=torch.Generator().manual_seed(0)).images[0].save("sample.png")"""


def class_names(node: Any) -> Iterator[tuple[str, str]]:
    """Module and name of every class that a specification names."""
    if isinstance(node, dict):
        if TARGET in node:
            module, _, name = str(node[TARGET]).rpartition(".")
            yield module, name
        for value in node.values():
            yield from class_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from class_names(value)


def local_spec(node: Any) -> Any:
    """The specification with bare class names."""
    if isinstance(node, dict):
        return {
            key: str(value).rsplit(".", 1)[-1] if key == TARGET else local_spec(value) for key, value in node.items()
        }
    return [local_spec(value) for value in node] if isinstance(node, list) else node
