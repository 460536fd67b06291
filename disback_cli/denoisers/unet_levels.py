"""The walk over the resolution levels that EDM's U-Nets share: which layers stand where, under which names."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from torch import nn

# block(in_channels, out_channels, up=, down=, attention=), each of the three False if it is not given
Block = Callable[..., nn.Module]


def fill_encoder(
    enc: nn.ModuleDict,
    resolution: int,
    stem: nn.Module,
    channels: int,
    widths: Sequence[int],
    num_blocks: int,
    attention: Set[int],
    block: Block,
    after_down: Callable[[int, int], None] | None = None,
) -> list[int]:
    """Fill an encoder, level by level from the full resolution down.

    Args:
        enc: receives the layers.
        resolution: height and width of the images.
        stem: the first layer.
        channels: of the stem's output.
        widths: channels of each level.
        num_blocks: blocks of a level.
        attention: resolutions with self-attention.
        block: makes a block.
        after_down: called with resolution and channels behind each block that halves the resolution.

    Returns:
        The channels of the skip connections, in the order they are made.
    """
    enc[f"{resolution}x{resolution}_conv"] = stem
    skips = [channels]
    for level, width in enumerate(widths):
        size = resolution >> level
        if level:
            enc[f"{size}x{size}_down"] = block(channels, channels, down=True)
            skips.append(channels)
            if after_down is not None:
                after_down(size, channels)
        for index in range(num_blocks):
            enc[f"{size}x{size}_block{index}"] = block(channels, width, attention=size in attention)
            channels = width
            skips.append(channels)
    return skips


def fill_decoder(
    dec: nn.ModuleDict,
    resolution: int,
    widths: Sequence[int],
    num_blocks: int,
    attention: Set[int],
    skips: list[int],
    block: Block,
    attend_last_only: bool = False,
) -> None:
    """Fill a decoder, level by level from the deepest up; consumes ``skips`` from its end.

    Args:
        dec: receives the layers.
        resolution: height and width of the images.
        widths: channels of each level, the full resolution first.
        num_blocks: blocks of a level of the encoder; the decoder has one more.
        attention: resolutions with self-attention.
        skips: what :func:`fill_encoder` returned.
        block: makes a block.
        attend_last_only: attention in the last block of such a level only (SongUNet), instead of in all.
    """
    channels = widths[-1]
    deepest = len(widths) - 1
    for level in range(deepest, -1, -1):
        size = resolution >> level
        if level == deepest:
            dec[f"{size}x{size}_in0"] = block(channels, channels, attention=True)
            dec[f"{size}x{size}_in1"] = block(channels, channels)
        else:
            dec[f"{size}x{size}_up"] = block(channels, channels, up=True)
        for index in range(num_blocks + 1):
            attend = size in attention and (index == num_blocks or not attend_last_only)
            dec[f"{size}x{size}_block{index}"] = block(channels + skips.pop(), widths[level], attention=attend)
            channels = widths[level]
