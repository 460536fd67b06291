"""Reports about networks: NVIDIA's pickles, diffusers folders, our own model folders and single files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.denoisers.kinds import STUDENT, words_of_student
from disback_cli.denoisers.open_source import Place, open_source, usable_without_memory
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
    from disback_cli.denoisers.protocol import Denoiser

    network = usable_without_memory(source)
    count = sum(parameter.numel() for parameter in network.parameters())
    dtype = dtypes_in(entries_of(source.weights))
    report.add("parameters", count, f"{count:,} in {dtype}")
    report.add("dtype", dtype)
    report.texts["dtype"] = None
    asked = source.spec.get("network_dtype")
    if asked not in (None, "fp32"):
        report.add("activations", asked, f"{asked} inside the network, where the device can")
    if isinstance(network, Denoiser):
        _describe_samples(report, source, list(network.shape), network.label_dim)
        levels = {"sigma_min": network.sigma_min, "sigma_max": network.sigma_max, "sigma_data": network.sigma_data}
        text = f"{network.sigma_min:g} to {network.sigma_max:g}, sigma_data {network.sigma_data:g}"
        report.add("noise_levels", levels, text)
    if source.decoder is not None:
        numbers = sum(tensor.numel() for tensor in source.decoder.weights.values())
        report.add("decoder", numbers, f"{numbers:,} parameters, turns latents into images")


def _describe_samples(report: Report, source: NetworkSource, shape: list[int], classes: int) -> None:
    what = _kind_of_samples(source, shape)
    size = " x ".join(map(str, shape)) + " (channels x height x width)" * (len(shape) == 3)
    report.add("samples", {"kind": what, "shape": shape}, f"{what}, {size}")
    report.add("classes", classes, f"{classes}, one-hot" if classes else "none: unconditional")


def _kind_of_samples(source: NetworkSource, shape: list[int]) -> str:
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
        _describe_document(report, source, document)
    if facts.get("key") is not None:
        others = facts.get("others") or {}
        beside = f"; beside it: {', '.join(others)}" if others else ""
        report.add("entry", facts["key"], f"{facts['key']} of the file{beside}")
    report.add("licence", facts.get("licence"))


def _describe_document(report: Report, source: NetworkSource, document: Mapping[str, Any]) -> None:
    """What our own config.json says besides the network."""
    settings, teacher = document.get("student"), document.get("teacher")
    if document.get("kind") == STUDENT and isinstance(settings, Mapping):
        report.kind, report.title = "student", f"a {words_of_student(document)} of disback"
        _describe_student(report, source, settings)
    if isinstance(teacher, Mapping):
        report.add("teacher", dict(teacher), f"{teacher.get('name')} (weights {str(teacher.get('hash'))[:12]})")
    metrics = document.get("metrics")
    if isinstance(metrics, Mapping) and metrics:
        report.add("metrics", dict(metrics))
    report.add("weights_hash", document.get("weights_hash"))
    report.add("whole", True, "yes: the weights have the sha256 that config.json gives")


def _describe_student(report: Report, source: NetworkSource, settings: Mapping[str, Any]) -> None:
    """How a student's network makes samples."""
    levels = settings.get("sigmas")
    if isinstance(levels, list):
        said = ", ".join(map(_word, levels))
        report.add("asked_at", levels, f"noise levels {said}: {len(levels)} evaluations a sample")
    elif "sigma_init" in settings:
        report.add("asked_at", settings["sigma_init"], f"noise level {settings['sigma_init']}, one evaluation a sample")
    elif isinstance(settings.get("shape"), list):
        _describe_samples(report, source, settings["shape"], settings.get("label_dim") or 0)
        report.add("asked_at", None, "no noise level: the network turns noise into samples, one evaluation a sample")


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
            f"disback convert {typed(place.path)} OUT{' to=diffusers' if 'noise_levels' in report.facts else ''}",
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
