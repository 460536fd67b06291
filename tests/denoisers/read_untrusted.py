"""Reads files that must not be trusted, in a process of its own with little memory; prints what happened as JSON.

Usage: python read_untrusted.py FOLDER MEGABYTES
"""

from __future__ import annotations

import json
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disback_cli.denoisers.pickles.numpy_objects import read_plain_pickle
from disback_cli.denoisers.pickles.nvidia import read_nvidia, read_object
from disback_cli.errors import UserError

SMALL = 10_000


def outcome(read: Callable[[], Any]) -> list[str]:
    """``["read", ...]``, ``["refused", message]``, or the name of any other exception."""
    try:
        value = read()
        return ["read", repr(value)[:200]]
    except UserError as error:
        return ["refused", str(error)]
    except BaseException as error:
        return [type(error).__name__, str(error)[:500]]


def limit_memory(megabytes: int) -> None:
    """Let allocations fail that go beyond what the process has now by more than this."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def mutilate(path: Path, flips: int, reader: Callable[[Path], Any]) -> dict[str, int]:
    """Count outcomes over random changes of one byte, and (if the file is small) every truncation."""
    original = path.read_bytes()
    draw = random.Random(0)
    victims = []
    for _ in range(flips):
        position = draw.randrange(len(original))
        changed = bytes([original[position] ^ draw.randrange(1, 256)])
        victims.append(original[:position] + changed + original[position + 1 :])
    if len(original) < SMALL:
        victims += [original[:length] for length in range(1, len(original))]
    counts: dict[str, int] = {}
    scratch = path.with_suffix(".mutilated")
    for victim in victims:
        scratch.write_bytes(victim)
        kind = outcome(lambda: reader(scratch))
        name = kind[0] if kind[0] in ("read", "refused") else ": ".join(kind)
        counts[name] = counts.get(name, 0) + 1
    return counts


def main() -> None:
    folder, megabytes = Path(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        limit_memory(megabytes)
    sys.path.insert(0, str(folder))
    loaded = set(sys.modules)
    results = {}
    for path in sorted(folder.glob("*.pkl")):
        print(path.name, file=sys.stderr, flush=True)
        results[path.stem] = {"network": outcome(lambda path=path: read_object(path))}
        if path.stat().st_size < SMALL:
            results[path.stem]["plain"] = outcome(lambda path=path: read_plain_pickle(path.read_bytes(), path.name))
    fuzz = {}
    for path in sorted(folder.glob("*.valid")):
        print(path.name, file=sys.stderr, flush=True)
        reader = read_nvidia if path.stem.startswith("network") else read_object
        flips = 100 if path.stem.startswith("network") else 1000
        fuzz[path.stem] = {
            "unchanged": outcome(lambda read=reader, path=path: read(path))[0],
            **mutilate(path, flips, reader),
        }
    print(json.dumps({"results": results, "fuzz": fuzz, "modules": sorted(set(sys.modules) - loaded)}))


if __name__ == "__main__":
    main()
