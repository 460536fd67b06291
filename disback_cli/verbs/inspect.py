"""``disback inspect``: what a file or folder is, whether it can be a teacher, and what to type next."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from disback_cli.configuration.plain_verb import UsageError, run_plain

HELP = """disback inspect: say what a file or folder is, whether it can be a teacher, and what to type next

usage: disback inspect PATH [--json]

  PATH     a teacher: NVIDIA's pickle (EDM, EDM2, SiD, Diff-Instruct), a diffusers folder, a model folder
           weights: .safetensors, .pt, .pth, .ckpt (listed, with a guess at what they belong to)
           what disback wrote: runs, recorded paths and pairs (hashes are verified), students, checkpoints, sweeps
           data: EDM's zip, folders of images, .npz, CIFAR-10, tar shards; reference statistics, samples
  --json   the same for programs (also json=true)

Nothing in the file is executed or changed. Whether `disback record` can use a network is found out by building it
without memory for its weights and comparing every name and shape.

examples:
  disback inspect edm-cifar10-32x32-uncond-vp.pkl
  disback inspect ddpm-cifar10-32
  disback inspect runs/record/edm_digits/RUN
  disback inspect student.safetensors --json"""


def _parse(words: Sequence[str]) -> tuple[str, bool]:
    """The path, and whether JSON is wanted."""
    places, wants_json = [], False
    for word in words:
        key, equals, value = word.partition("=")
        if word == "--json":
            wants_json = True
        elif key == "json" and equals:
            if value.lower() not in ("true", "false"):
                raise UsageError(f"json={value}: must be true or false")
            wants_json = value.lower() == "true"
        elif word.startswith("-") and word != "-":
            near = get_close_matches(word, ("--json", "--help"), n=1, cutoff=0.5)
            raise UsageError(f"there is no option {word}{f'; did you mean {near[0]}?' if near else ''}")
        else:
            places.append(word)
    if len(places) != 1:
        raise UsageError(f"give one file or folder{f', not {len(places)}: ' + ' '.join(places) if places else ''}")
    return places[0], wants_json


def _inspect(words: Sequence[str]) -> None:
    location, wants_json = _parse(words)
    from disback_cli.inspection.recognise import inspect

    report = inspect(location)
    print(json.dumps(report.as_json(), indent=2, default=str) if wants_json else report.as_text())


def main(words: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    return run_plain("inspect", HELP, _inspect, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
