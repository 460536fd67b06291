"""``disback convert``: a teacher's file or a student in another format."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from disback_cli.configuration.plain_verb import UsageError, run_plain

if TYPE_CHECKING:
    from disback_cli.publishing.model import Model

FORMATS = ("folder", "diffusers", "state_dict", "safetensors")
PRECISIONS = ("fp32", "fp16", "bf16")
KEYS = ("to", "dtype", "overwrite")

HELP = """disback convert: turn a teacher's file or a student into another format

usage: disback convert IN OUT [to=...] [dtype=...] [overwrite=true]

  IN          a teacher: NVIDIA's pickle (EDM, EDM2), a diffusers folder, a model folder, a run of `disback pretrain`;
              a student: a run of `disback backtrack`, or its folder. Nothing in it is executed.
  OUT         the folder or file to make

  to=folder       a model folder: model.safetensors and config.json, for teacher=folder and student=
  to=diffusers    a folder for DiffusionPipeline.from_pretrained (students)
  to=state_dict   the weights alone, by name: a file for torch.load (OUT.pt), or safetensors (OUT.safetensors)
  to=safetensors  one file with weights and settings, which `disback convert` reads again
                  default: by OUT's ending, .pt state_dict, .safetensors safetensors, otherwise folder
  dtype=fp32|fp16|bf16
                  precision in which the weights are stored; default: theirs
  overwrite=true  replace OUT

What was written is read again and compared; a diffusers folder is loaded in a process without disback, and its images
are compared with the student's.

examples:
  disback convert edm-cifar10-32x32-uncond-vp.pkl teachers/cifar10
  disback convert runs/backtrack/edm_digits/RUN digits-one-step to=diffusers
  disback convert runs/backtrack/edm_digits/RUN student.pt dtype=fp16"""


@dataclass(frozen=True)
class _Request:
    source: str
    out: Path
    to: str
    dtype: str | None
    overwrite: bool


def _parse(words: Sequence[str]) -> _Request:
    """The request behind the words of the command line."""
    places: list[str] = []
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.isidentifier() and not Path(word).exists():
            if key not in KEYS:
                near = get_close_matches(key, KEYS, n=1, cutoff=0.4)
                meant = f"did you mean {near[0]}=? " if near else ""
                raise UsageError(f"there is no option {key}=; {meant}options: {', '.join(f'{k}=' for k in KEYS)}")
            options[key] = value
        elif word.startswith("-"):
            raise UsageError(f"there is no option {word}; options: {', '.join(f'{k}=' for k in KEYS)}")
        else:
            places.append(word)
    if len(places) != 2:
        given = f"got {' '.join(places)}" if places else "got none"
        raise UsageError(f"give two places, IN and OUT; {given}")
    out = Path(places[1]).expanduser()
    to = _choice("to", options.get("to", _format_of(out)), FORMATS)
    if to == "safetensors" and out.suffix != ".safetensors":
        raise UsageError(f"to=safetensors writes one file: OUT must end in .safetensors, not {out.name}")
    if to == "state_dict" and out.suffix not in (".pt", ".pth", ".safetensors"):
        raise UsageError(f"to=state_dict writes one file: OUT must end in .pt or .safetensors, not {out.name}")
    dtype = _choice("dtype", options["dtype"], PRECISIONS) if "dtype" in options else None
    overwrite = _choice("overwrite", options.get("overwrite", "false").lower(), ("true", "false")) == "true"
    return _Request(places[0], out, to, dtype, overwrite)


def _format_of(out: Path) -> str:
    return {".pt": "state_dict", ".pth": "state_dict", ".safetensors": "safetensors"}.get(out.suffix, "folder")


def _choice(key: str, value: str, valid: tuple[str, ...]) -> str:
    if value in valid:
        return value
    near = get_close_matches(value, valid, n=1, cutoff=0.4)
    meant = f"did you mean {key}={near[0]}? " if near else ""
    raise UsageError(f"{key}={value}: {meant}valid are {', '.join(valid)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _convert(request: _Request) -> None:
    """Do it, and say what was written."""
    from disback_cli.publishing.model import read_model
    from disback_cli.publishing.place import destination

    _say(f"reading {request.source} ...")
    model = read_model(request.source)
    with destination(request.out, model.place, request.overwrite) as temporary:
        _say(f"writing {request.out} ...")
        told = _write(model, request, temporary)
    print(f"{request.out}: {told}")


def _write(model: Model, request: _Request, place: Path) -> str:
    """Write one format; returns what there is to say about it."""
    from disback_cli.publishing import writers
    from disback_cli.publishing.precision import precision_of

    precision = request.dtype or precision_of(model.weights)
    same = f"{len(model.weights)} tensors in {precision}, read again: equal bit for bit"
    if request.to == "folder":
        writers.write_folder(model, place, request.dtype)
        verb = "disback record teacher=folder teacher.folder" if model.settings is None else "disback sample student"
        more = "" if model.settings is None else " n=64"
        return f"model folder, {same}\nnext: {verb}={request.out}{more}"
    if request.to == "safetensors":
        writers.write_safetensors(model, place, request.dtype)
        return f"weights and settings, {same}\nnext: disback convert {request.out} FOLDER"
    if request.to == "state_dict":
        pickled = request.out.suffix in writers.PICKLE_SUFFIXES
        writers.write_state_dict(model, place, request.dtype, pickled)
        load = 'torch.load("{}", weights_only=True)' if pickled else 'safetensors.torch.load_file("{}")'
        note = "\nits decoder is not in it" if model.decoder else ""
        return f"state dict, {same}{note}\nnext: {load.format(request.out)}"
    return _write_diffusers(model, request, place)


def _write_diffusers(model: Model, request: _Request, place: Path) -> str:
    from disback_cli.publishing.diffusers_export import CHECKED_IMAGES, write_diffusers

    exported = write_diffusers(model, place, request.dtype, _say)
    equal = "bit for bit" if exported.difference == 0 else f"to {exported.difference:.1g} of the pixels' range"
    code = "code of its own" if exported.custom else "diffusers' own classes"
    trust = ", trust_remote_code=True" if exported.custom else ""
    note = ""
    if exported.activations:
        note = f"\nthe student computes in {exported.activations} inside; the pipeline in the precision it is loaded in"
    return (
        f"diffusers pipeline with {code}; {CHECKED_IMAGES} images drawn in a process without disback equal the "
        f'student\'s {equal}{note}\nnext: DiffusionPipeline.from_pretrained("{request.out}"{trust}), see '
        f"{request.out}/README.md"
    )


def main(words: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    return run_plain("convert", HELP, lambda given: _convert(_parse(given)), words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
