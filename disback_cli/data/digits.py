"""The data set that is always there: 1,797 handwritten digits of 8x8 pixels, shipped inside scikit-learn.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998,
CC BY 4.0); scikit-learn distributes its test part. Nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch

from disback_cli.data.dataset import ImageDataset


def digits() -> ImageDataset:
    """All 1,797 digits as uint8 [1797, 1, 8, 8] (ink levels 0..16 spread over 0..255) with labels 0..9.

    The set is small, so it is not split: `split` is ``all``, and numbers measured against it say so.
    """
    # A second of import time, which only the digits should cost; scikit-learn has no type stubs.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(np.asarray(bunch.images) * (255.0 / 16.0)).astype(np.uint8)
    images = torch.from_numpy(pixels).unsqueeze(1).contiguous()
    labels = torch.from_numpy(np.asarray(bunch.target, dtype=np.int64))
    return ImageDataset(images, labels, name="digits", split="all", num_classes=10)
