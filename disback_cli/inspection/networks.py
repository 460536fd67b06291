"""Reports about networks: NVIDIA's pickles, diffusers folders, our own model folders and single files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.denoisers.kinds import STUDENT
from disback_cli.denoisers.open_source import Place, built_without_memory, open_source
from disback_cli.denoisers.source import NetworkSource
from disback_cli.denoisers.tensor_files import dtypes_in, entries_of
from disback_cli.errors import UserError
from disback_cli.inspection.report import Report, command, typed
from disback_cli.runtime.byte_progress import megabytes, sha256_with_progress

_TITLES = {
    "edm-pickle": "a network in NVIDIA's EDM format (a pickle; nothing in it was executed)",
    "edm2-pickle": "a network in NVIDIA's EDM2 format (a pickle; nothing in it was executed)",
    "diffusers": "a network in diffusers' format",
    "model-folder": "a model folder of disback",
}
_MOST_ARGUMENTS = 24


def report_network(place: Place) -> Report:
    """Read and build the network at a place; a network that cannot be used is reported with the reason."""
    try:
        source = open_source(place.path)
    except UserError as error:
        return _unusable(place, error)
    report = Report(place.path, source.format, _TITLES.get(source.format, source.format))
    report.add("network", source.facts.get("network"))
    report.add("arguments", source.facts.get("arguments"), _arguments(source.facts.get("arguments")))
    try:
        _describe_built(report, source)
        report.usable = True
    except UserError as error:
        report.refuse(str(error))
    _describe_origin(report, source)
    _describe_files(report, place, source.facts.get("document", {}).get("sha256"))
    report.notes += [str(note) for note in source.facts.get("notes", ())]
    if report.usable:
        _next(report, source, place)
    return report


def _unusable(place: Place, error: UserError) -> Report:
    titles = {
        "nvidia": "a pickle (nothing in it was executed)",
        "diffusers": "a folder in diffusers' format",
        "model-folder": "a model folder of disback",
    }
    report = Report(place.path, {"nvidia": "pickle"}.get(place.format, place.format), titles[place.format])
    _describe_files(report, place)
    report.refuse(str(error))
    return report


def _arguments(arguments: Any) -> str | None:
    if not isinstance(arguments, Mapping):
        return None
    told = {key: value for key, value in arguments.items() if value is not None}
    words = [f"{key}={_word(value)}" for key, value in told.items()]
    more = f", and {len(words) - _MOST_ARGUMENTS} more (--json shows all)" if len(words) > _MOST_ARGUMENTS else ""
    return ", ".join(words[:_MOST_ARGUMENTS]) + more


def _word(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_word, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _describe_built(report: Report, source: NetworkSource) -> None:
    """Facts that the network itself knows.

    Raises:
        UserError: it cannot be built, or the weights do not fit.
    """
    denoiser = built_without_memory(source)
    count = sum(parameter.numel() for parameter in denoiser.parameters())
    dtype = dtypes_in(entries_of(source.weights))
    report.add("parameters", count, f"{count:,} in {dtype}")
    report.add("dtype", dtype)
    report.texts["dtype"] = None
    asked = source.spec.get("network_dtype")
    if asked not in (None, "fp32"):
        report.add("activations", asked, f"{asked} inside the network, where the device can")
    shape, what = list(denoiser.shape), _kind_of_samples(source, denoiser.shape)
    size = f"{shape[0]} x {shape[1]} x {shape[2]}" if len(shape) == 3 else str(shape[0])
    report.add(
        "samples", {"kind": what, "shape": shape}, f"{what}, {size}{' (channels x height x width)' * (len(shape) == 3)}"
    )
    report.add(
        "classes", denoiser.label_dim, f"{denoiser.label_dim}, one-hot" if denoiser.label_dim else "none: unconditional"
    )
    levels = {"sigma_min": denoiser.sigma_min, "sigma_max": denoiser.sigma_max, "sigma_data": denoiser.sigma_data}
    text = f"{denoiser.sigma_min:g} to {denoiser.sigma_max:g}, sigma_data {denoiser.sigma_data:g}"
    report.add("noise_levels", levels, text)
    if source.decoder is not None:
        numbers = sum(tensor.numel() for tensor in source.decoder.weights.values())
        report.add("decoder", numbers, f"{numbers:,} parameters, turns latents into images")


def _kind_of_samples(source: NetworkSource, shape: tuple[int, ...]) -> str:
    if source.decoder is not None:
        return "latents"
    if len(shape) != 3:
        return "points"
    return "images" if shape[0] in (1, 3) else "no pictures"


def _describe_origin(report: Report, source: NetworkSource) -> None:
    facts = source.facts
    for name in ("prediction", "scheduler"):
        if facts.get(name) is not None:
            report.add(name, facts[name])
    document = facts.get("document")
    if isinstance(document, Mapping):
        _describe_document(report, document)
    if facts.get("key") is not None:
        others = facts.get("others") or {}
        beside = f"; beside it: {', '.join(others)}" if others else ""
        report.add("entry", facts["key"], f"{facts['key']} of the file{beside}")
    report.add("licence", facts.get("licence"))


def _describe_document(report: Report, document: Mapping[str, Any]) -> None:
    """What our own config.json says besides the network."""
    settings, teacher = document.get("student"), document.get("teacher")
    if document.get("kind") == STUDENT and isinstance(settings, Mapping):
        report.kind, report.title = "student", "a one-step student of disback"
        report.add(
            "asked_at", settings.get("sigma_init"), f"noise level {settings.get('sigma_init')}, one evaluation a sample"
        )
    if isinstance(teacher, Mapping):
        report.add("teacher", dict(teacher), f"{teacher.get('name')} (weights {str(teacher.get('hash'))[:12]})")
    metrics = document.get("metrics")
    if isinstance(metrics, Mapping) and metrics:
        report.add("metrics", dict(metrics))
    report.add("weights_hash", document.get("weights_hash"))
    report.add("whole", True, "yes: the weights have the sha256 that config.json gives")


def _describe_files(report: Report, place: Place, digest: str | None = None) -> None:
    file = place.path if place.path.is_file() else None
    if place.format == "model-folder":
        file = place.path / "model.safetensors"
    if file is not None and file.is_file():
        describe_file(report, file, digest)
        return
    files = [path for path in place.path.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    report.add("size", size, f"{megabytes(size)} in {len(files)} files")


def describe_file(report: Report, file: Path, digest: str | None = None) -> None:
    """Size and sha256 of a file; ``digest`` where it has been computed already."""
    size = file.stat().st_size
    report.add("bytes", size, f"{size:,} ({megabytes(size)})" if size >= 10_000 else f"{size:,}")
    report.add("sha256", digest or sha256_with_progress(file))


def _next(report: Report, source: NetworkSource, place: Place) -> None:
    if report.kind == "student":
        report.next += [
            command("sample", ("student", place.path)),
            command("evaluate", ("student", place.path)),
            f"disback convert {typed(place.path)} OUT to=diffusers",
        ]
        report.usable = None
    elif source.format == "diffusers":
        report.next.append(command("record", "teacher=diffusers", ("teacher.path", place.path)))
    elif source.format == "model-folder":
        report.next.append(command("record", "teacher=folder", ("teacher.folder", place.path)))
    else:
        report.next.append(command("record", "teacher=edm", ("teacher.path", place.path)))


def single_file_document(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What a single file of `disback convert to=safetensors` says about itself; None for other files."""
    try:
        document = json.loads(metadata.get("disback", ""))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "denoiser" in document else None
