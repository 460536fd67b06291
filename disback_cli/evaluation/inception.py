"""The Inception network of 2015-12-05 behind published FID and IS figures, as a plain torch module.

The graph is that of Szegedy et al. 2015 (arXiv 1512.00567) as TensorFlow released it, which differs from the usual
torch model in four places: the average pools of the mixed blocks leave the padding out of their mean, the last block
pools by maximum, the input is scaled by (x - 128) / 128, and the classifier has 1008 outputs. Names of the parameters
are those of the public conversion ``pt_inception-2015-12-05-6726825d.pth``, so that file loads as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_SIZE = 299
FEATURE_DIM = 2048
NUM_LOGITS = 1008


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch normalisation (epsilon 0.001), ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else (0, 0)
        self.conv = nn.Conv2d(channels_in, channels_out, (height, width), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


def _average_pool(x: Tensor) -> Tensor:
    """3x3 mean over the pixels that exist."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Mixed35(nn.Module):
    """Block of the 35x35 stage: 1x1, 5x5, double 3x3 and pooled branches; 224 + pool_channels channels out."""

    def __init__(self, channels: int, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormRelu(channels, 64, 1)
        self.branch5x5_1 = ConvNormRelu(channels, 48, 1)
        self.branch5x5_2 = ConvNormRelu(48, 64, 5)
        self.branch3x3dbl_1 = ConvNormRelu(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormRelu(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormRelu(96, 96, 3)
        self.branch_pool = ConvNormRelu(channels, pool_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average_pool(x))], dim=1)


class Reduce35(nn.Module):
    """From 35x35 to 17x17: strided 3x3, strided double 3x3 and maximum; 480 channels more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNormRelu(channels, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1 = ConvNormRelu(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormRelu(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormRelu(96, 96, 3, stride=2, same=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], dim=1)


class Mixed17(nn.Module):
    """Block of the 17x17 stage: 7x7 kernels factored into 1x7 and 7x1; 768 channels in and out."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormRelu(768, 192, 1)
        self.branch7x7_1 = ConvNormRelu(768, inner, 1)
        self.branch7x7_2 = ConvNormRelu(inner, inner, (1, 7))
        self.branch7x7_3 = ConvNormRelu(inner, 192, (7, 1))
        self.branch7x7dbl_1 = ConvNormRelu(768, inner, 1)
        self.branch7x7dbl_2 = ConvNormRelu(inner, inner, (7, 1))
        self.branch7x7dbl_3 = ConvNormRelu(inner, inner, (1, 7))
        self.branch7x7dbl_4 = ConvNormRelu(inner, inner, (7, 1))
        self.branch7x7dbl_5 = ConvNormRelu(inner, 192, (1, 7))
        self.branch_pool = ConvNormRelu(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average_pool(x))], dim=1)


class Reduce17(nn.Module):
    """From 17x17 to 8x8; 768 channels in, 1280 out."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormRelu(768, 192, 1)
        self.branch3x3_2 = ConvNormRelu(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1 = ConvNormRelu(768, 192, 1)
        self.branch7x7x3_2 = ConvNormRelu(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNormRelu(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNormRelu(192, 192, 3, stride=2, same=False)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, functional.max_pool2d(x, 3, stride=2)], dim=1)


class Mixed8(nn.Module):
    """Block of the 8x8 stage with branches split into 1x3 and 3x1; 2048 channels out. Its two uses pool differently."""

    def __init__(self, channels: int, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = ConvNormRelu(channels, 320, 1)
        self.branch3x3_1 = ConvNormRelu(channels, 384, 1)
        self.branch3x3_2a = ConvNormRelu(384, 384, (1, 3))
        self.branch3x3_2b = ConvNormRelu(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvNormRelu(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNormRelu(448, 384, 3)
        self.branch3x3dbl_3a = ConvNormRelu(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvNormRelu(384, 384, (3, 1))
        self.branch_pool = ConvNormRelu(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _average_pool(x)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, dim=1)


class Inception2015(nn.Module):
    """The whole network: resized images in, pool features and logits out. Use in evaluation mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormRelu(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3 = ConvNormRelu(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = ConvNormRelu(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNormRelu(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormRelu(80, 192, 3, same=False)
        self.Mixed_5b = Mixed35(192, 32)
        self.Mixed_5c = Mixed35(256, 64)
        self.Mixed_5d = Mixed35(288, 64)
        self.Mixed_6a = Reduce35(288)
        self.Mixed_6b = Mixed17(128)
        self.Mixed_6c = Mixed17(160)
        self.Mixed_6d = Mixed17(160)
        self.Mixed_6e = Mixed17(192)
        self.Mixed_7a = Reduce17()
        self.Mixed_7b = Mixed8(1280, maximum=False)
        self.Mixed_7c = Mixed8(2048, maximum=True)
        self.fc = nn.Linear(FEATURE_DIM, NUM_LOGITS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Floats 0..255 [B, 3, 299, 299] -> features [B, 2048] and logits [B, 1008] without the classifier's bias.

        The Inception Score of the literature is computed from the logits without bias (Salimans et al. 2016, as
        released).
        """
        x = (images - 128.0) / 128.0
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean(dim=(2, 3))
        return features, functional.linear(features, self.fc.weight)
