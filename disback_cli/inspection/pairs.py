"""Reports about pairs of a teacher: what they are of, and every file compared with its hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.configuration.pairsource import PAIRS_FILE
from disback_cli.configuration.runfolder import read_json
from disback_cli.errors import UserError
from disback_cli.inspection.report import Report, command
from disback_cli.runtime.byte_progress import sha256_with_progress

_FORMAT = 1
_SHARD_KEYS = {"file", "n", "sha256"}


def report_pairs(folder: Path) -> Report:
    """Pairs on their own: a folder with ``pairs.json``, copied without the rest of its run."""
    report = Report(folder, "pairs", "pairs of a teacher: latents and its samples of them")
    if describe_pairs(report, folder):
        report.next.append(command("regress", ("pairs", folder)))
    return report


def describe_pairs(report: Report, folder: Path) -> bool:
    """What the pairs are, and whether every file is whole.

    Raises:
        UserError: the manifest is damaged.
    """
    document = read_json(folder / PAIRS_FILE)
    shards = document.get("shards") if isinstance(document, dict) else None
    if not isinstance(shards, list) or not all(isinstance(s, dict) and s.keys() >= _SHARD_KEYS for s in shards):
        raise UserError(
            f"{folder / PAIRS_FILE} is damaged: it lists no files; remove the folder and make the pairs again"
        )
    if document.get("format") != _FORMAT:
        report.notes.append(f"The pairs have format {document.get('format')}; this version reads format {_FORMAT}.")
        return False
    teacher, request = document.get("teacher"), document.get("request")
    if isinstance(teacher, Mapping) and "teacher" not in report.facts:
        report.add("teacher", teacher.get("name"), f"{teacher.get('name')} (weights {str(teacher.get('hash'))[:12]})")
    report.add("pairs", sum(shard["n"] for shard in shards if isinstance(shard["n"], int)))
    report.add("shape", document.get("shape"))
    report.add("classes", document.get("classes"))
    if isinstance(request, Mapping):
        for name in ("dtype", "seed", "sampler"):
            report.add(name, request.get(name))
    damaged = [str(shard["file"]) for shard in shards if not _is_whole(folder, shard)]
    report.add("whole", not damaged, f"no: {', '.join(damaged)}" if damaged else "yes: every hash was verified")
    if damaged:
        report.notes.append("Damaged pairs are refused; restore the files, or remove the folder and make them again.")
    return not damaged


def _is_whole(folder: Path, shard: Mapping[str, Any]) -> bool:
    name = str(shard["file"])
    inside = Path(name).name == name and (folder / name).is_file()
    return inside and sha256_with_progress(folder / name) == shard["sha256"]
