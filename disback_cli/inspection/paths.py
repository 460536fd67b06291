"""Reports about recorded degradation paths: every node's file compared with its hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.configuration.runfolder import read_json
from disback_cli.errors import UserError
from disback_cli.inspection.report import Report, command
from disback_cli.runtime.byte_progress import sha256_with_progress

PATH_FILE = "path.json"
_FORMAT = 1
_NODE_KEYS = {"index", "file", "iteration", "images", "mismatch", "sha256"}


def report_path(folder: Path) -> Report:
    """A recorded path on its own: the folder of ``path.json``."""
    report = Report(folder, "path", "a recorded degradation path")
    if describe_path(report, folder):
        report.next.append(command("backtrack", ("path", folder)))
    return report


def describe_path(report: Report, folder: Path) -> bool:
    """The table of nodes, every file's hash compared; whether all are whole."""
    document = read_json(folder / PATH_FILE)
    nodes = document.get("nodes") if isinstance(document, dict) else None
    if (
        not isinstance(nodes, list)
        or not all(isinstance(n, dict) and n.keys() >= _NODE_KEYS for n in nodes)
        or not nodes
    ):
        raise UserError(f"{folder / PATH_FILE} is damaged: it lists no nodes; record the path again")
    if document.get("format") != _FORMAT:
        report.notes.append(f"The path has format {document.get('format')}; this version reads format {_FORMAT}.")
        return False
    teacher = document.get("teacher")
    if isinstance(teacher, Mapping) and "teacher" not in report.facts:
        report.add("teacher", teacher.get("name"), f"{teacher.get('name')} (weights {str(teacher.get('hash'))[:12]})")
    adapter = document.get("adapter")
    if isinstance(adapter, Mapping):
        report.add("adapter", dict(adapter), _words_of_adapter(adapter))
    report.columns = ("node", "iteration", "images", "mismatch to the teacher", "file")
    states = [_state_of_node(folder, node) for node in nodes]
    for node, state in zip(nodes, states, strict=True):
        report.rows.append([str(node["index"]), node["iteration"], node["images"], node["mismatch"], state])
    damaged = [str(node["index"]) for node, state in zip(nodes, states, strict=True) if state != "whole"]
    report.add("nodes", len(nodes) - 1, f"{len(nodes) - 1} besides the teacher (0)")
    report.add("whole", not damaged, f"no: nodes {', '.join(damaged)}" if damaged else "yes: every hash was verified")
    if damaged:
        report.notes.append("A damaged path is refused; restore the files, or record the path again.")
    return not damaged


def _words_of_adapter(adapter: Mapping[str, Any]) -> str:
    layers = adapter.get("layers")
    where = ", ".join(map(str, layers)) if isinstance(layers, list) else layers
    return f"nodes are LoRA of rank {adapter.get('rank')}, alpha {adapter.get('alpha')}, on layers: {where}"


def _state_of_node(folder: Path, node: Mapping[str, Any]) -> str:
    name = str(node["file"])
    if Path(name).name != name:
        return "outside the folder"
    if not (folder / name).is_file():
        return "missing"
    return "whole" if sha256_with_progress(folder / name) == node["sha256"] else "damaged"
