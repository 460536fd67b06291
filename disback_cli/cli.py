"""The dispatcher: ``disback VERB [overrides]`` knows the verbs by name and imports nothing heavy.

Every verb is a module with a ``hydra.main`` of its own, run as ``__main__``. Programs that start this process again
(Lightning's strategies, the sweep launcher) read ``__main__.__spec__`` and so start
``python -m disback_cli.verbs.<verb>`` with the arguments they see in ``sys.argv``, which no longer hold the verb.
"""

from __future__ import annotations

import os
import runpy
import sys

VERBS: dict[str, str] = {
    "pretrain": "train a small diffusion teacher on a data set",
    "record": "stage 1: let a denoiser degrade from the teacher to the student's start, and keep the path",
    "assemble": "make a path of training snapshots of the teacher instead of recording one",
    "backtrack": "stage 2: distil the teacher into a one-step student along a recorded path, backwards",
    "pairs": "draw pairs of a teacher: latents and its samples of them",
    "regress": "train a student on a teacher's pairs by plain regression",
    "sample": "draw images from a student or a teacher",
    "evaluate": "measure FID and other metrics of a student, a teacher or a set of images",
    "stats": "compute the reference statistics of a data set for FID",
    "compare": "put runs side by side: curves, time to quality, speed-ups, samples, as one page",
    "inspect": "say what a file or folder is, and what to type next",
    "convert": "turn a teacher's file or a student into another format",
    "fetch": "download a teacher's official file",
}

_USAGE_ERROR = 2


def overview() -> str:
    """The text of ``disback --help``."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:<{width}}{line}" for name, line in VERBS.items())
    return f"""disback: distil a diffusion teacher into a one-step generator by distribution backtracking

usage: disback VERB [key=value ...]

verbs:
{verbs}

  disback VERB --help             what a verb does, its option groups and every option with its value
  disback VERB --cfg job          the configuration a command would run with, without running it
  disback VERB -m key=a,b         a sweep: one process for every combination
  disback --version

start here, on the digits teacher that ships with the program:
  disback record
  disback backtrack
  disback sample"""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("disback-cli")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, VERBS, n=1, cutoff=0.5)
    if near:
        return f"disback: there is no verb '{word}'; did you mean 'disback {near[0]}'?"
    if "=" in word:
        return f"disback: the verb comes first: disback VERB {word}\nverbs: {', '.join(VERBS)}"
    return f"disback: there is no verb '{word}'\nverbs: {', '.join(VERBS)}\n'disback --help' says what each one does"


def main() -> int:
    """Run one verb in this process, or print what there is; returns the exit code."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in ("-h", "--help", "help"):
        try:
            print(overview(), flush=True)
        except BrokenPipeError:  # `disback --help | head`: the interpreter must not try to flush what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if word in ("-V", "--version"):
        print(f"disback {_version()}")
        return 0
    if word not in VERBS:
        print(_unknown(word), file=sys.stderr)
        return _USAGE_ERROR
    # OpenMP reads these when torch is loaded: spinning threads would steal the core from other jobs and ranks.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.argv.pop(1)
    runpy.run_module(f"disback_cli.verbs.{word}", run_name="__main__", alter_sys=True)
    return 0
