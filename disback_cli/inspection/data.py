"""Reports about data: image sets in every format that is read, samples, reference statistics."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from disback_cli.data.dataset import Dataset
from disback_cli.denoisers.sniff import content_of
from disback_cli.errors import UserError
from disback_cli.inspection.networks import describe_file
from disback_cli.inspection.report import Report, command
from disback_cli.runtime.byte_progress import megabytes

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_IMAGES = {"images": "a data set", "samples": "samples", "arr_0": "samples of guided-diffusion"}
_TITLES = {
    "edm": "images in EDM's format",
    "cifar10": "CIFAR-10 as its authors publish it",
    "huggingface": "a data set written by Hugging Face's `datasets`",
    "webdataset": "shards of a WebDataset",
    "image_folder": "a folder of images",
    "npz": "images in one NumPy archive",
}
_PER_CLASS = 10


def report_npz(file: Path) -> Report:
    """Reference statistics, images or samples, told apart by the names of the arrays."""
    arrays = _headers(file)
    if {"mu", "sigma"} <= arrays.keys():
        return _statistics(file)
    key = next((key for key in _IMAGES if key in arrays), None)
    if key is not None and len(arrays[key][0]) in (3, 4):
        return _images_in_npz(file, key)
    report = Report(file, "arrays", "a NumPy archive")
    if key is not None and len(arrays[key][0]) == 2:
        report.kind, report.title = "samples", "samples: points"
    report.add("arrays", {name: list(shape) for name, (shape, _) in arrays.items()}, _told(arrays))
    describe_file(report, file)
    return report


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of the arrays without their content."""
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                with archive.open(member) as opened:
                    version = np.lib.format.read_magic(opened)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(opened)
                    found[member.removesuffix(".npy")] = (shape, str(dtype))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a readable .npz archive ({error}): copy it again") from error
    return found


def _told(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (shape, dtype) in arrays.items())


def _statistics(file: Path) -> Report:
    from disback_cli.evaluation.comparable import words_for_features
    from disback_cli.evaluation.features import InceptionFeatures
    from disback_cli.evaluation.inception import FEATURE_DIM
    from disback_cli.evaluation.reference import ReferenceStatistics

    statistics = ReferenceStatistics.load(file)
    report = Report(file, "reference-statistics", "reference statistics for FID (mu, sigma)")
    report.add("dimension", statistics.feature_dim)
    report.add("samples", statistics.n)
    known = {key: value for key, value in statistics.provenance.items() if value is not None}
    for name in ("dataset", "split", "shape", "extractor", "resize"):
        report.add(name, known.get(name))
    report.add("extractor_sha256", known.get("extractor_sha256"))
    describe_file(report, file)
    if statistics.n is None:
        report.notes.append("The file does not say of what it was made: compare only figures that were measured alike.")
    words = words_for_features(known.get("extractor"), known.get("resize"), "INCEPTION_FILE")
    if known.get("extractor") is None and statistics.feature_dim == FEATURE_DIM:
        words = words_for_features(InceptionFeatures.name, None, "INCEPTION_FILE")
    report.next.append(command("evaluate", "student=RUN", *words, ("metrics.reference", file)))
    return report


def _images_in_npz(file: Path, key: str) -> Report:
    from disback_cli.data.arrays import npz

    dataset = npz(path=str(file))
    report = Report(
        file, "samples" if key != "images" else "image-data", f"{_IMAGES[key]}: images in one NumPy archive"
    )
    _describe(report, dataset)
    describe_file(report, file)
    if key == "images":
        report.next.append(_stats("npz", file, dataset))
    report.next.append(_evaluate(file, dataset))
    return report


def data_option(path: Path) -> str | None:
    """The option of ``dataset=`` that reads a file or folder; None if it looks like no data."""
    from disback_cli.data import cifar10
    from disback_cli.data.edm import LABEL_FILE
    from disback_cli.data.huggingface import SAVED_MARKS

    if path.is_file():
        return _option_of_file(path)
    if (path / LABEL_FILE).is_file():
        return "edm"
    if any((place / cifar10.TRAIN_FILES[0]).is_file() for place in (path, path / cifar10.FOLDER)):
        return "cifar10"
    if any((path / mark).is_file() for mark in SAVED_MARKS):
        return "huggingface"
    if next(path.glob("*.tar"), None) is not None:
        return "webdataset"
    return "image_folder" if _holds_pictures(path) else None


def _option_of_file(file: Path) -> str | None:
    from disback_cli.data import cifar10

    content = content_of(file)
    if content == "npz":
        return "npz"
    if file.name == cifar10.ARCHIVE:
        return "cifar10"
    if content == "tar":
        return "webdataset"
    if content != "zip":
        return None
    with zipfile.ZipFile(file) as archive:
        return "edm" if any(name.lower().endswith(_PICTURES) for name in archive.namelist()) else None


def _holds_pictures(folder: Path) -> bool:
    """Whether there is a picture in the folder or in one of its folders."""
    for place in (folder, *(entry for entry in sorted(folder.iterdir()) if entry.is_dir())):
        if any(entry.suffix.lower() in _PICTURES for entry in place.iterdir() if entry.is_file()):
            return True
    return False


def report_data(path: Path, option: str) -> Report:
    """An image set that is not in one NumPy archive."""
    dataset = _readers()[option](path=str(path))
    report = Report(path, "image-data", _TITLES[option])
    _describe(report, dataset)
    if path.is_file():
        describe_file(report, path)
    report.next += [_stats(option, path, dataset), _evaluate(path, dataset)]
    return report


def _readers() -> dict[str, Callable[..., Dataset]]:
    from disback_cli.data.cifar10 import cifar10
    from disback_cli.data.edm import edm
    from disback_cli.data.huggingface import huggingface
    from disback_cli.data.image_folder import image_folder
    from disback_cli.data.webdataset import webdataset

    return {
        "edm": edm, "cifar10": cifar10, "huggingface": huggingface, "image_folder": image_folder,
        "webdataset": webdataset,
    }  # fmt: skip


def _describe(report: Report, dataset: Dataset) -> None:
    channels, height, width = dataset.shape
    report.add("images", len(dataset))
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    report.add("shape", list(dataset.shape), f"{height} x {width}, {colour}")
    classes = dataset.num_classes
    report.add("classes", classes, f"{classes}" if classes else "none: unlabelled")
    labels = getattr(dataset, "labels", None)
    if labels is not None and classes:
        counts: list[int] = labels.bincount(minlength=classes).tolist()
        report.add("images_of_each_class", counts, _counts(counts))
    memory = len(dataset) * channels * height * width
    report.add("bytes_decoded", memory, megabytes(memory))


def _counts(counts: list[int]) -> str:
    if len(set(counts)) == 1:
        return f"{counts[0]:,} each"
    shown: list[Any] = [f"{count:,}" for count in counts[:_PER_CLASS]]
    return ", ".join(shown) + (f", ... ({min(counts):,} to {max(counts):,})" if len(counts) > _PER_CLASS else "")


def _stats(option: str, path: Path, dataset: Dataset) -> str:
    """The command for reference statistics."""
    return command("stats", f"dataset={option}", ("dataset.path", path), *_features(dataset))


def _evaluate(path: Path, dataset: Dataset) -> str:
    """The command that measures the images."""
    words = _features(dataset)
    return command("evaluate", ("images", path), *words, *(["metrics.reference=REFERENCE.npz"] if words else []))


def _features(dataset: Dataset) -> list[str]:
    """The features that suit the images; what is in capitals is for the user to fill in."""
    digits = tuple(dataset.shape) == (1, 8, 8)
    return [] if digits else ["metrics=inception", "metrics.extractor.weights=INCEPTION_FILE"]
