"""Pictures of samples: grids of images, scatter plots of points."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from disback_cli.data.pixels import to_uint8
from disback_cli.files import write_atomically

MARGIN = 2
SMALLEST_TILE = 32


def grid_image(samples: Tensor, columns: int | None = None, enlarge: bool = True) -> Image.Image:
    """A grid of images ``[N, C, H, W]`` (model's range), small ones enlarged without blur.

    Of samples that are no grey or RGB images (latents without a decoder) the first channels are shown as if they were.
    A single image that is not to be enlarged comes as it is, without margins.
    """
    pixels = to_uint8(samples.detach().float().cpu())
    count, channels, height, width = pixels.shape
    if channels not in (1, 3):
        pixels = pixels[:, : 3 if channels > 3 else 1]
    if count == 1 and not enlarge:
        return Image.fromarray(pixels[0].permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())
    scale = max(1, -(-SMALLEST_TILE // min(height, width))) if enlarge else 1
    columns = columns or max(1, round(count**0.5))
    rows = -(-count // columns)
    step_x, step_y = width * scale + MARGIN, height * scale + MARGIN
    picture = Image.new("RGB", (columns * step_x + MARGIN, rows * step_y + MARGIN), (255, 255, 255))
    for index, tile in enumerate(pixels):
        array = tile.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
        image = Image.fromarray(array).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        picture.paste(image, (MARGIN + index % columns * step_x, MARGIN + index // columns * step_y))
    return picture


def scatter_image(points: Tensor, extent: float | None = None) -> Image.Image:
    """A scatter plot of points ``[N, 2]`` over the square [-extent, extent]^2."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = points.detach().float().cpu()
    extent = extent or 1.15 * float(points.abs().quantile(0.99))
    figure = Figure(figsize=(4, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=3, alpha=0.5, linewidths=0)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def picture_of(samples: Tensor, extent: float | None = None) -> Image.Image:
    """The picture that suits the samples: a grid for images, a scatter plot for points."""
    if samples.dim() == 4:
        return grid_image(samples)
    if samples.dim() == 2 and samples.shape[1] == 2:
        return scatter_image(samples, extent)
    raise ValueError(
        f"no picture of samples of shape {tuple(samples.shape)}; images [N,C,H,W] or points [N,2] have one"
    )


def side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures next to each other, each under its title."""
    font = ImageFont.load_default(14)
    gap, head = 16, 26
    width = sum(image.width for _, image in panels) + gap * (len(panels) + 1)
    height = max(image.height for _, image in panels) + head + gap
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    x = gap
    for title, image in panels:
        draw.text((x, 5), title, fill=(0, 0, 0), font=font)
        sheet.paste(image, (x, head))
        x += image.width + gap
    return sheet


def save_png(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically."""
    write_atomically(path, lambda file: image.save(file, format="PNG"))


@torch.no_grad()
def save_samples(path: Path, samples: Tensor, extent: float | None = None) -> None:
    """Write the picture of some samples; for samples that have none (points in more than 2-D) do nothing."""
    if samples.dim() == 4 or samples.shape[1:] == (2,):
        save_png(path, picture_of(samples, extent))
