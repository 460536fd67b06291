"""``disback compare``: runs side by side, as one page that works offline."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from disback_cli.configuration.plain_verb import UsageError, run_plain

KEYS = ("out", "baseline", "level", "number", "json")

HELP = """disback compare: runs of `disback backtrack` side by side, as one page that works offline

usage: disback compare RUN...|SWEEP... [--out FOLDER] [--baseline WORDS] [--level X] [--number NAME] [--json]

  RUN, SWEEP        run folders, finished or not, and folders of sweeps. Runs that differ only in their seed are
                    repetitions of one variant: means, spreads and intervals are over them.

  --out FOLDER      where to: index.html, its pictures, compare.json
                    default: SWEEP/compare for one sweep, else compare/NAME
  --baseline WORDS  the variant that speed-ups are over, by words of its label: --baseline "schedule=endpoint lr=1e-4"
                    default: schedule=endpoint, else the first one. Of several the nearest in settings counts.
  --level X         race to this quality too, as often as wanted; NAME=X for another than the first number
  --number NAME     the number to select by, e.g. fid_2k; default: sliced Wasserstein, else FID, ...
  --json            print the machine form and nothing else; written are files only with --out

On the page: quality over generator updates, network passes and wall time, the recording's costs included; time to
quality and speed-ups; how the runs end; mismatch to target and teacher; samples at equal budget; what differs.
Numbers of another n, extractor or reference are refused. docs/comparing.md defines every word.

examples:
  disback compare multirun/backtrack/SWEEP
  disback compare runs/backtrack/edm_digits/*
  disback compare SWEEP1 SWEEP2 --baseline schedule=endpoint --level 2 --out comparison
  disback compare SWEEP --json"""


@dataclass
class _Request:
    places: list[str] = field(default_factory=list)
    out: Path | None = None
    baseline: str | None = None
    number: str | None = None
    levels: list[tuple[str | None, float]] = field(default_factory=list)
    wants_json: bool = False


def _parse(words: Sequence[str]) -> _Request:
    """The request behind the words of the command line; ``--key value``, ``--key=value`` and ``key=value`` are one."""
    request, rest = _Request(), iter(words)
    for word in rest:
        key, equals, value = word.removeprefix("--").partition("=")
        is_option = word.startswith("--") or (bool(equals) and key in KEYS and not Path(word).exists())
        if not is_option and not word.startswith("-"):
            request.places.append(word)
        elif key not in KEYS:
            near = get_close_matches(key, KEYS, n=1, cutoff=0.5)
            meant = f"; did you mean --{near[0]}?" if near else f"; options: {', '.join(f'--{k}' for k in KEYS)}"
            raise UsageError(f"there is no option {word.partition('=')[0]}{meant}")
        elif key == "json":
            request.wants_json = _truth(value) if equals else True
        else:
            _take(request, key, value if equals else _next(rest, key))
    if not request.places:
        raise UsageError("name at least one run or sweep")
    return request


def _next(rest: Iterator[str], key: str) -> str:
    value = next(rest, None)
    if value is None:
        raise UsageError(f"--{key} needs a value")
    return value


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"json={value}: must be true or false")
    return value.lower() == "true"


def _take(request: _Request, key: str, value: str) -> None:
    if not value.strip():
        raise UsageError(f"--{key} needs a value")
    if key == "out":
        request.out = Path(value).expanduser()
    elif key == "baseline":
        request.baseline = value
    elif key == "number":
        request.number = value
    else:
        name, _, level = value.rpartition("=")
        try:
            number = float(level)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"--level {value}: must be a number, or NAME=NUMBER")
        request.levels.append((name or None, number))


def _compare(words: Sequence[str]) -> None:
    request = _parse(words)
    from disback_cli.configuration.arguments import shown
    from disback_cli.reporting.comparison.comparison import Wishes, compare
    from disback_cli.reporting.comparison.machine import as_json

    found = compare(request.places, Wishes(request.baseline, request.number, tuple(request.levels)))
    if request.wants_json:
        print(json.dumps(as_json(found), indent=2))
        if request.out is None:
            return
    from disback_cli.reporting.comparison import output
    from disback_cli.reporting.comparison.wording import console

    page = output.write(found, request.out or output.default_folder(found))
    if not request.wants_json:
        print(f"{console(found)}\n\npage:  {shown(page.absolute())}")


def main(words: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    return run_plain("compare", HELP, _compare, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
