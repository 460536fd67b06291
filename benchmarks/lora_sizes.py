"""Sizes and costs of adapters on CIFAR-10's DDPM++ network, without weights: `python -m benchmarks.lora_sizes`."""

from __future__ import annotations

from safetensors.torch import save

from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.song_unet import SongUNet
from disback_cli.distillation.adapters import LoraSettings
from disback_cli.distillation.costs import measure_costs
from disback_cli.distillation.lora import adapted
from disback_cli.distillation.students import OneStepStudent
from disback_cli.reporting.table import table

HEADS = (
    "layers",
    "rank",
    "layers adapted",
    "numbers trained",
    "MB a node",
    "F forward",
    "F backward",
    "F a recording step",
)


def network() -> EDMDenoiser:
    """The network of teacher=edm_cifar, randomly initialised."""
    unet = SongUNet(
        32, 3, 3, augment_dim=9, model_channels=128, channel_mult=(2, 2, 2), num_blocks=4, attn_resolutions=(16,),
        dropout=0.13,
    )  # fmt: skip
    return EDMDenoiser(unet, (3, 32, 32)).trainable_().eval()


def main() -> None:
    """Print the table of docs/lora.md."""
    teacher = network()
    student = OneStepStudent(teacher, sigma_init=2.5)
    fakes = {("all of the network", "-"): teacher} | {
        (layers, rank): adapted(teacher, LoraSettings(rank, rank, layers), seed=0, group="fake")
        for layers in ("attention", "all")
        for rank in (4, 8, 16)
    }
    rows = []
    for (layers, rank), fake in fakes.items():
        state, costs = fake.state_dict(), measure_costs(teacher, student, fake)
        trained = sum(p.numel() for p in fake.parameters() if p.requires_grad)
        adapters = "-" if fake is teacher else len(state) // 2
        step = 1 + costs.fake + costs.fake_backward
        size = len(save(state)) / 1e6
        rows.append((
            layers, rank, adapters, f"{trained:,}", f"{size:.2f}",
            f"{costs.fake:.2f}", f"{costs.fake_backward:.2f}", f"{step:.2f}",
        ))  # fmt: skip
    print(table(HEADS, rows))


if __name__ == "__main__":
    main()
