"""Train the shipped digits classifier: ``python -m disback_cli.evaluation.train_digits_classifier --out FOLDER``.

A deterministic run of well under a minute on one thread. The same seed gives the same file on the same build of
torch; another build may differ in the last bits, and then its numbers belong to another extractor, as the sha256
says.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from disback_cli.data.digits import digits
from disback_cli.evaluation.digits_classifier import ARCHITECTURE, FEATURE_DIM, NUM_CLASSES, DigitsClassifier
from disback_cli.files import write_bytes, write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides the weights, beside the seed."""

    train_images: int = 1500
    steps: int = 3000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    max_shift: int = 1
    noise_std: float = 0.1


def augment(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shift each digit of x [B, 1, 8, 8] by up to `max_shift` pixels (background fills in) and add Gaussian noise."""
    reach = recipe.max_shift
    padded = nn.functional.pad(x, (reach, reach, reach, reach), value=-1.0)
    offsets = torch.randint(0, 2 * reach + 1, (len(x), 2), generator=generator)
    rows = offsets[:, 0, None] + torch.arange(x.shape[2])
    columns = offsets[:, 1, None] + torch.arange(x.shape[3])
    shifted = padded[torch.arange(len(x))[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    return shifted + recipe.noise_std * torch.randn(x.shape, generator=generator)


def train(seed: int, recipe: Recipe) -> tuple[DigitsClassifier, float, float]:
    """Train from `seed`; return the classifier and its accuracy (0..1) on the training and on the held-out digits."""
    torch.manual_seed(seed)  # the initial weights
    model = DigitsClassifier()
    generator = torch.Generator().manual_seed(seed)
    data = digits()
    order = torch.randperm(len(data), generator=generator)
    seen, held_out = order[: recipe.train_images], order[recipe.train_images :]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    for _ in range(recipe.steps):
        chosen = seen[torch.randint(0, len(seen), (recipe.batch,), generator=generator)]
        x, one_hot = data.batch(chosen)
        _, logits = model(augment(x, recipe, generator))
        assert one_hot is not None
        loss = nn.functional.cross_entropy(logits, one_hot, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        cosine.step()
    return model, accuracy(model, seen), accuracy(model, held_out)


@torch.no_grad()
def accuracy(model: DigitsClassifier, chosen: Tensor) -> float:
    """Fraction of the digits at indices `chosen` [B] that the classifier names rightly."""
    data = digits()
    assert data.labels is not None
    x, _ = data.batch(chosen)
    _, logits = model.eval()(x)
    return float((logits.argmax(1) == data.labels[chosen]).float().mean())


CARD = """---
license: apache-2.0
---
# Digits classifier

A convolutional classifier of 8x8 handwritten digits with {parameters:,} parameters. Its 64 hidden units are the
features behind `fid_*`, and its ten logits the probabilities behind `is_*`, wherever `disback` evaluates digits. It
plays the part that Inception plays for photographs: the numbers compare runs on the digits with one another, and with
nothing else.

- **Weights**: `model.safetensors`, float32, sha256 `{sha256}`; verified at every load. Licence: Apache-2.0.
- **Data**: Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository, CC BY
  4.0), the 1,797 images that scikit-learn ships; {train_images:,} for training, {held_out} held out.
- **Training**: `{command}`: {steps:,} AdamW steps of {batch} digits, shifted by up to {max_shift} pixel, with
  Gaussian noise of {noise_std} (range -1..1), label smoothing {label_smoothing}.
- **Accuracy**: {test_accuracy:.2%} on the {held_out} held-out digits, {train_accuracy:.2%} on the training digits.
- **Limits**: for 8x8 digits only. It has seen most of the data set it judges, so a distance below the data floor (the
  distance of a fresh draw of as many digits) says nothing about quality.
"""


def write(
    folder: Path, model: DigitsClassifier, seed: int, recipe: Recipe, train_accuracy: float, test_accuracy: float
) -> str:
    """Write model.safetensors, config.json and the card README.md into `folder`; return the sha256 of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    blob = save({key: value.detach().contiguous() for key, value in model.state_dict().items()})
    facts = {
        "format": 1,
        "architecture": ARCHITECTURE,
        "feature_dim": FEATURE_DIM,
        "num_classes": NUM_CLASSES,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": hashlib.sha256(blob).hexdigest(),
        "command": f"python -m disback_cli.evaluation.train_digits_classifier --out FOLDER --seed {seed}",
        "seed": seed,
        "recipe": asdict(recipe),
        "train_accuracy": round(train_accuracy, 4),
        "test_accuracy": round(test_accuracy, 4),
        "held_out": len(digits()) - recipe.train_images,
        "license": "Apache-2.0",
    }
    (folder / "model.safetensors").write_bytes(blob)
    write_json(folder / "config.json", facts)
    write_bytes(folder / "README.md", CARD.format(**facts, **asdict(recipe)).encode())
    return str(facts["sha256"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train, write, and say what came out."""
    parser = argparse.ArgumentParser(description="Train the digits classifier that disback ships.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights, config.json and README.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="optimiser steps")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the order of a parallel sum would depend on the number of cores
    recipe = Recipe(steps=options.steps)
    model, train_accuracy, test_accuracy = train(options.seed, recipe)
    sha256 = write(options.out, model, options.seed, recipe, train_accuracy, test_accuracy)
    print(f"accuracy {test_accuracy:.2%} held out, {train_accuracy:.2%} training; {options.out}: sha256 {sha256[:12]}")


if __name__ == "__main__":
    main()
