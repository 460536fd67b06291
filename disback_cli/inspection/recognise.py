"""From a path to a report: which of the many things a file or folder is."""

from __future__ import annotations

from pathlib import Path

from disback_cli.configuration import runfolder
from disback_cli.denoisers.folder import resolve_folder
from disback_cli.denoisers.open_source import SUPPORTED, Place, find_network, what_instead
from disback_cli.denoisers.sniff import content_of, not_a_model
from disback_cli.errors import UserError
from disback_cli.inspection import data, networks, runs, tensors
from disback_cli.inspection.report import Report

_TENSORS = ("safetensors", "torch-archive", "torch-legacy")
_OF_A_FOLDER = (
    runfolder.RUN_FILE,
    "path.json",
    "pairs.json",
    "config.json",
    "model_index.json",
    "scheduler_config.json",
    "sweep.json",
)
_DATA = "data sets (.zip, .npz, .tar, folders of images) and reference statistics (.npz)"


def inspect(location: str) -> Report:
    """Look at a file or folder; nothing in it is executed.

    Args:
        location: a path, or ``pkg://disback_cli/...``.

    Raises:
        UserError: there is nothing, it cannot be read, or it is nothing that is known here.
    """
    path = resolve_folder(location)
    if not path.exists():
        raise UserError(f"there is nothing at {path}: check the path")
    return _folder(path) if path.is_dir() else _file(path)


def _folder(path: Path) -> Report:
    reporter = runs.reporter_of(path)
    if reporter is not None:
        return reporter(path)
    found = find_network(path)
    if found is not None:
        return networks.report_network(found)
    option = data.data_option(path)
    if option is not None:
        return data.report_data(path, option)
    raise UserError(_unknown(path, what_instead(path)))


def _file(path: Path) -> Report:
    if path.name in _OF_A_FOLDER or (path.suffix == ".safetensors" and _is_of_collection(path.parent)):
        report = _folder(path.absolute().parent)
        report.notes.insert(0, f"{path.name} belongs to its folder, which is what is shown.")
        return report
    content = content_of(path)
    hopeless = not_a_model(path, content)
    if hopeless is not None:
        raise UserError(hopeless)
    if content == "npz":
        return data.report_npz(path)
    if find_network(path) is not None:
        return _pickle(path)
    if content in _TENSORS:
        return tensors.report_tensors(path)
    option = data.data_option(path)
    if option is not None:
        return data.report_data(path, option)
    raise UserError(_unknown(path, what_instead(path)))


def _is_of_collection(folder: Path) -> bool:
    """Whether the tensor files of a folder mean something together only."""
    return any((folder / manifest).is_file() for manifest in ("path.json", "pairs.json"))


def _pickle(path: Path) -> Report:
    report = networks.report_network(Place(path, "nvidia"))
    if not report.usable and path.name.startswith("inception"):
        report.notes.append(
            "By its name it is FID's Inception network: metrics=inception metrics.extractor.weights=FILE reads it."
        )
    if not report.usable and path.name.startswith(("data_batch", "test_batch", "batches.meta")):
        report.notes.append(
            "By its name it is a part of CIFAR-10: give its folder, with dataset=cifar10 dataset.path=DIR."
        )
    return report


def _unknown(path: Path, what: str) -> str:
    return f"{what.removesuffix(SUPPORTED).rstrip()}\n{SUPPORTED}; {_DATA}"
