"""Reports about files of tensors: state dicts, checkpoints of ours and of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.configuration import runfolder
from disback_cli.denoisers.kinds import STUDENT, words_of_student
from disback_cli.denoisers.open_source import Place, find_network
from disback_cli.denoisers.tensor_files import (
    Entry,
    TensorFile,
    dtypes_in,
    guess_network,
    largest_prefixes,
    numbers_in,
    read_tensor_file,
)
from disback_cli.errors import UserError
from disback_cli.inspection.networks import describe_file, report_network, single_file_document
from disback_cli.inspection.report import Report, command, typed

_SHOWN_TENSORS = 6
_SHOWN_OTHERS = 12


def report_tensors(file: Path) -> Report:
    """Say what a ``.safetensors`` file or a file of ``torch.save`` holds."""
    around = _folder_of(file)
    if around is not None:
        report = report_network(around)
        report.notes.insert(0, f"{file.name} is a part of {around.path}, which is what is shown.")
        return report
    try:
        found = read_tensor_file(file)
    except UserError as error:
        report = Report(file, "weights", "a file of tensors that cannot be read")
        describe_file(report, file)
        report.refuse(str(error))
        return report
    document = single_file_document(found.metadata)
    if document is not None:
        return _single_file(file, found, document)
    if _is_ours(found):
        return _our_checkpoint(file, found)
    return _foreign(file, found)


def _folder_of(file: Path) -> Place | None:
    """The network whose folder has the file as its weights: a model folder, a model's of diffusers, or a pipeline's."""
    if not file.name.startswith(("model.safetensors", "diffusion_pytorch_model")):
        return None
    return next((place for place in map(find_network, (file.parent.absolute().parent, file.parent)) if place), None)


def _is_ours(found: TensorFile) -> bool:
    return (
        "pytorch-lightning_version" in found.others and {"stage.iteration", "stage.batch_size"} <= found.others.keys()
    )


def _our_checkpoint(file: Path, found: TensorFile) -> Report:
    report = Report(file, "checkpoint", "a checkpoint of a training verb of disback")
    iteration, batch = int(found.others["stage.iteration"]), int(found.others["stage.batch_size"])
    report.add("iteration", iteration)
    report.add("images", iteration * batch)
    _describe_tables(report, found)
    report.texts["other_entries"] = None
    describe_file(report, file)
    report.refuse("it holds the state of a run; a finished run leaves its network in teacher/ or student/")
    run = runfolder.read(file.parent.parent)
    if run is None:
        report.notes.append("its run folder is not around it: `resume=FILE` needs the checkpoint where it was written")
        return report
    report.add("run", str(run.folder), f"{run.folder} ({run.verb} of {run.teacher}, {run.state})")
    if run.finished:
        report.next.append(f"disback inspect {typed(run.folder)}")
    else:
        report.next.append(command(run.verb, ("resume", file)))
    return report


def _single_file(file: Path, found: TensorFile, document: Mapping[str, Any]) -> Report:
    what = words_of_student(document) if document.get("kind") == STUDENT else "network"
    title = f"a {what} of disback in one file, with its description"
    report = Report(file, "single-file", title)
    _describe_tables(report, found)
    describe_file(report, file)
    report.refuse("it is for passing on; convert it to a folder first")
    report.next.append(f"disback convert {typed(file)} FOLDER")
    return report


def _foreign(file: Path, found: TensorFile) -> Report:
    lightning = "pytorch-lightning_version" in found.others
    table = found.largest
    report = Report(
        file,
        "weights",
        "a Lightning checkpoint of another program"
        if lightning
        else "tensors without the description of their network",
    )
    if not table:
        report.title = "a file of torch.save without tensors"
    guess = guess_network(table)
    report.add("looks_like", guess, guess or "nothing that is known here, by the names of its tensors")
    _describe_tables(report, found)
    if found.metadata:
        report.add("metadata", found.metadata)
    describe_file(report, file)
    report.refuse(_why_not(table))
    report.columns = ("tensor", "shape", "type")
    report.rows = [[name, _shape(entry), entry.dtype] for name, entry in list(table.items())[:_SHOWN_TENSORS]]
    if len(table) > _SHOWN_TENSORS:
        report.rows.append([f"... {len(table) - _SHOWN_TENSORS} more", "", ""])
    if table and guess is None:
        report.notes.append(
            "A network of your own class can be a teacher: teacher=flow teacher.weights=FILE with your class in "
            "teacher.denoiser.network._target_; `disback record teacher=flow --help` shows the options."
        )
    return report


def _why_not(table: Mapping[str, Entry]) -> str:
    guess = guess_network(table) or ""
    if not table:
        return "there are no tensors in it"
    if guess.startswith("diffusers' UNet2DModel") or guess.startswith("diffusers' DiT"):
        return "the config.json and the scheduler_config.json that describe the network are missing: give their folder"
    if guess.startswith("EDM"):
        return (
            "the description of the network is missing: give what they were taken from, NVIDIA's .pkl or a model folder"
        )
    return "the description of the network is missing: names and shapes alone do not say how it computes"


def _describe_tables(report: Report, found: TensorFile) -> None:
    tables = {
        place or "the file": {"tensors": len(table), "numbers": numbers_in(table), "dtype": dtypes_in(table)}
        for place, table in found.tables.items()
    }
    lines = [
        f"{place}: {t['tensors']:,} tensors, {t['numbers']:,} numbers in {t['dtype']}" for place, t in tables.items()
    ]
    if len(lines) > _SHOWN_OTHERS:
        lines = [*lines[:_SHOWN_OTHERS], f"and {len(lines) - _SHOWN_OTHERS} more"]
    report.add("tensors", tables, "\n".join(lines) or "none")
    parts = dict(largest_prefixes(found.largest))
    if len(parts) > 1:
        report.add("largest_parts", parts, ", ".join(f"{name}.* {count:,}" for name, count in parts.items()))
    if found.others:
        shown = [f"{place}={value}" for place, value in list(found.others.items())[:_SHOWN_OTHERS]]
        more = f", and {len(found.others) - _SHOWN_OTHERS} more" if len(found.others) > _SHOWN_OTHERS else ""
        report.add("other_entries", found.others, ", ".join(shown) + more)


def _shape(entry: Entry) -> str:
    return "[" + ", ".join(map(str, entry.shape)) + "]"
