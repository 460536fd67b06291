"""The pipeline of an exported one-step generator whose network is none of diffusers' own classes."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt")


class OneStepPipeline(DiffusionPipeline):
    """Draws images from a one-step generator.

    Args:
        network: the generator.
    """

    model_cpu_offload_seq = "network"  # type: ignore[assignment]

    def __init__(self, network: ModelMixin) -> None:
        super().__init__()
        self.register_modules(network=network)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        num_inference_steps: int | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw images, with as many evaluations of the network as the generator takes.

        Args:
            batch_size: how many; None: as many as there are class labels or latents, else 1.
            class_labels: of a conditional network: one class for all, a class each, or weights of the classes
                [B, classes] (zeros: no class); None draws classes at random.
            generator: source of the latents and of random classes.
            latents: unit normal, [B, *shape]; drawn from ``generator`` if None.
            output_type: "pil", "np" ([B, H, W, C] in [0, 1]) or "pt" ([B, C, H, W] in [0, 1]).
            return_dict: False returns a tuple.
            num_inference_steps: None, or what it is: there is no other way to use this network.

        Returns:
            An object whose ``images`` are the images.

        Raises:
            ValueError: an argument makes no sense.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type={output_type!r}: choose one of {', '.join(OUTPUT_TYPES)}")
        steps = self._steps()
        if num_inference_steps not in (None, steps):
            raise ValueError(f"num_inference_steps={num_inference_steps}: this is a generator of {steps}, give {steps}")
        device = self._execution_device
        count = self._count(batch_size, class_labels, latents)
        shape = (count, *self.network.denoiser.shape)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents have shape {tuple(latents.shape)}: need {shape}")
        labels = self._labels(class_labels, count, generator, device)
        samples = self._samples(latents.to(device, torch.float32), labels, generator).float()
        self.maybe_free_model_hooks()
        images = self._images(samples, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _steps(self) -> int:
        """Evaluations of the network that an image takes."""
        return 1

    def _samples(self, latents: Tensor, labels: Tensor | None, generator: Any) -> Tensor:
        """Images in [-1, 1] from unit normal latents."""
        samples: Tensor = self.network(latents, labels)
        return samples

    def _count(self, batch_size: int | None, class_labels: Any, latents: Tensor | None) -> int:
        """How many images are asked for."""
        given = {} if batch_size is None else {"batch_size": int(batch_size)}
        if latents is not None:
            given["latents"] = len(latents)
        if isinstance(class_labels, (list, tuple)) or (torch.is_tensor(class_labels) and class_labels.dim() > 0):
            given["class_labels"] = len(class_labels)
        if len(set(given.values())) > 1:
            raise ValueError(
                f"{', '.join(f'{name} for {n}' for name, n in given.items())} images: give the same number"
            )
        return next(iter(given.values()), 1)

    def _labels(self, class_labels: Any, count: int, generator: Any, device: torch.device) -> Tensor | None:
        """One-hot labels [count, classes], or None for an unconditional network."""
        classes = self.network.denoiser.label_dim
        if classes == 0:
            if class_labels is not None:
                raise ValueError("class_labels given to an unconditional network: leave them out")
            return None
        if class_labels is None:
            source = generator[0] if isinstance(generator, (list, tuple)) else generator
            place = "cpu" if source is None else source.device
            class_labels = torch.randint(classes, (count,), generator=source, device=place)
        labels = torch.as_tensor(class_labels).to(device)
        if labels.dim() == 2 and labels.shape == (count, classes):
            return labels.float()
        if labels.dim() > 1 or labels.is_floating_point() or bool(((labels < 0) | (labels >= classes)).any()):
            raise ValueError(
                f"class_labels: give whole numbers from 0 to {classes - 1}, or weights [{count}, {classes}]"
            )
        return torch.nn.functional.one_hot(labels.long().expand(count), classes).float()

    def _images(self, samples: Tensor, output_type: str) -> Any:
        """Samples in [-1, 1] in the form that was asked for."""
        if output_type == "pil":
            if samples.shape[1] not in (1, 3):
                raise ValueError(f"pictures have 1 or 3 channels, not {samples.shape[1]}: use output_type='np' or 'pt'")
            # EDM's convention, by which the metrics were computed: 256 equal cells, no rounding
            pixels = (samples * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            return [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in pixels]
        scaled = (samples / 2 + 0.5).clamp(0, 1)
        return scaled if output_type == "pt" else scaled.permute(0, 2, 3, 1).cpu().numpy()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **options: Any) -> None:
        """Save the pipeline with the code of its classes, so that it can be loaded again.

        Args:
            save_directory: where to.
            args: as for any pipeline.
            options: likewise; ``push_to_hub`` is refused, the code would be missing.
        """
        if options.get("push_to_hub"):
            raise ValueError("save_pretrained first, then upload the folder with huggingface_hub.upload_folder")
        super().save_pretrained(save_directory, *args, **options)
        root = Path(save_directory)
        own = Path(inspect.getfile(type(self)))
        networks = Path(str(sys.modules[type(self.network).__module__].__file__))
        shutil.copyfile(own, root / own.name)
        shutil.copyfile(networks, root / "network" / networks.name)
        index = json.loads((root / "model_index.json").read_text())
        index["_class_name"] = [own.stem, type(self).__name__]
        index["network"] = [networks.stem, type(self.network).__name__]
        (root / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
