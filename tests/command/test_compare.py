"""`disback compare` as it is typed: the page and what is printed, without torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from disback_command import Workplace, refused, succeeded

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))
from comparison_runs import MEASURED, write_recording, write_run  # noqa: E402

# the dispatcher in an interpreter that tells which libraries it has loaded
WATCHED = """
import sys
from disback_cli import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {'torch', 'lightning', 'sklearn', 'scipy'} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_sweep_becomes_a_page(workplace: Workplace) -> None:
    sweep = workplace.folder / "sweep"
    for seed in (0, 1):
        path = write_recording(workplace.folder / f"record{seed}", seed)
        for i, schedule in enumerate(("path", "endpoint")):
            write_run(sweep / str(2 * seed + i), [9, 4 + i, 1], seed=seed, schedule=schedule, path=path)
    done = succeeded(workplace("compare", "sweep", program=(sys.executable, "-c", WATCHED)))
    assert "schedule=path" in done.stdout and done.stdout.endswith("page:  sweep/compare/index.html\n")
    assert "<title>disback compare: gmm_2d: 2 variants, 4 runs</title>" in (sweep / "compare/index.html").read_text()

    machine = succeeded(workplace("compare", "sweep", "--level=2", "--json"))
    assert machine.stderr == "" and 2.0 in json.loads(machine.stdout)["numbers"]["fid_2k"]["levels"]
    assert not (workplace.folder / "compare").exists()

    write_run(workplace.folder / "other", [9, 4, 1], measured=MEASURED | {"extractor": "inception"})
    refused(
        workplace("compare", "sweep", "other", "--out", "page"),
        "disback compare: these runs were measured differently", "extractor: points against inception", "other",
    )  # fmt: skip
    assert not (workplace.folder / "page").exists()
