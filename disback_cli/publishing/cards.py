"""The page that goes with a published model: where it comes from, what may be done with it, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from disback_cli.denoisers.licences import identifier_of, licence_of, slug_of
from disback_cli.publishing.model import Model
from disback_cli.publishing.precision import precision_of

UNKNOWN_LICENCE = "unknown: ask the teacher's owner"
# Of a student's settings in its config.json: those that the card tells, and how it calls them.
_TRAINING = {
    "batch_size": "batch size",
    "iterations": "iterations",
    "lr": "learning rates",
    "noise": "noise laws",
    "optimizer": "optimizer",
    "ema": "average (EMA)",
    "share_draw": "both losses on one draw of noise",
    "seed": "seed",
}
_LONGEST = 200


def folder_card(model: Model, weights: Mapping[str, Tensor]) -> str:
    """The card of our model folder.

    Args:
        model: a student or a teacher.
        weights: as stored.
    """
    if model.settings is None:
        use = "    disback record teacher=folder teacher.folder=THIS_FOLDER"
        title = str(model.facts.get("name", "teacher"))
        return _header(model) + _page(title, _teacher_text(model), use, model, weights)
    use = "    disback sample student=THIS_FOLDER n=64"
    return _header(model) + _page(_student_name(model), _student_text(model), use, model, weights)


def pipeline_card(model: Model, weights: Mapping[str, Tensor], call: str) -> str:
    """The card of a diffusers folder.

    Args:
        model: the student.
        weights: as stored.
        call: Python code that samples from it.
    """
    use = "\n".join(f"    {line}".rstrip() for line in call.strip().splitlines())
    head = _header(model, "library_name: diffusers")
    return head + _page(_student_name(model), _student_text(model), use, model, weights)


def _header(model: Model, *lines: str) -> str:
    """What catalogues of models read: YAML, the licence and what the model does."""
    licence = licence_of(model.facts)
    identifier = identifier_of(licence)
    told = [f"license: {identifier or 'other'}"]
    if identifier is None:
        # quoted: a stranger's words must stay a text
        told.append(f"license_name: {json.dumps(slug_of(licence)) if licence else 'unknown'}")
    told += lines
    if model.settings is not None:
        shape = model.settings.get("shape") or model.spec.get("shape")
        makes_images = model.decoder is not None or (isinstance(shape, list) and len(shape) == 3)
        # class-conditional ones have no tag of their own
        if makes_images and not (model.settings.get("label_dim") or model.spec.get("label_dim")):
            told.append("pipeline_tag: unconditional-image-generation")
        told.append(f'tags: ["{"few" if len(model.sigmas) > 1 else "one"}-step"]')
    return "\n".join(("---", *told, "---", "", ""))


def _page(title: str, about: str, use: str, model: Model, weights: Mapping[str, Tensor]) -> str:
    count = sum(tensor.numel() for tensor in weights.values())
    return f"""# {title}

{about}
{count:,} weights, stored as {precision_of(weights)}.

## Use

{use}

{_settings(model)}## Measured

{_metrics(model.facts)}

## Licence

{_licences(model)}
"""


def _student_name(model: Model) -> str:
    kind = "Few-step" if len(model.sigmas) > 1 else "One-step"
    return f"{kind} student of {_teacher_file(model.facts) or _teacher_name(model.facts)}"


def _teacher_name(facts: Mapping[str, Any]) -> str:
    teacher = facts.get("teacher")
    return _line(teacher.get("name", "its teacher")) if isinstance(teacher, Mapping) else "its teacher"


def _teacher_file(facts: Mapping[str, Any]) -> str | None:
    """Name of the file or folder that the teacher came from, before it was converted; None if that is not known."""
    name = _teacher_origin(facts).get("name")
    return _line(name) if isinstance(name, str) and name else None


def _teacher_origin(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Which weights the teacher's are, the file first that they were converted from."""
    teacher = facts.get("teacher")
    source = teacher.get("source") if isinstance(teacher, Mapping) else None
    if not isinstance(source, Mapping):
        return {}
    origin = source.get("origin")
    return origin if isinstance(origin, Mapping) else source


def _teacher_words(facts: Mapping[str, Any]) -> str:
    """The teacher's name and that of its file, where they differ: ``edm: edm-cifar10-32x32-uncond-vp.pkl``."""
    name, file = _teacher_name(facts), _teacher_file(facts)
    return name if file in (None, name) else f"{name}: {file}"


def _student_text(model: Model) -> str:
    sigmas = model.sigmas
    if len(sigmas) > 1:
        made = (
            f"{len(sigmas)} evaluations of its network, x = D(s_1 z; s_1) and then x <- D(x + s_k n; s_k) with z, n ~ "
            f"N(0, 1) and s = {_levels(sigmas)}"
        )
    elif sigmas:
        made = f"one evaluation of its network, x = D(s z; s) with z ~ N(0, 1) and s = {sigmas[0]:g}"
    else:
        made = "one evaluation of its network, x = G(z) with z ~ N(0, 1)"
    return (
        f"A generator that makes a sample with {made},\ndistilled from the diffusion model "
        f"{_teacher_words(model.facts)} by distribution backtracking with `disback`."
    )


def _levels(sigmas: list[float]) -> str:
    return ", ".join(f"{level:g}" for level in sigmas)


def _teacher_text(model: Model) -> str:
    origin = model.facts.get("origin")
    text = "A denoiser D(x; sigma) of a diffusion model, a teacher for `disback`."
    if isinstance(origin, Mapping):
        text += f"\nConverted bit for bit from {origin.get('file')} ({origin.get('format')}"
        text += f", sha256 {str(origin['sha256'])[:16]})." if "sha256" in origin else ")."
        text += "".join(f"\n{note}" for note in origin.get("notes") or [])
    return text


def _settings(model: Model) -> str:
    """How the student was made, as its config.json tells."""
    if model.settings is None:
        return ""
    facts, asked = model.facts, "sigmas" if len(model.sigmas) > 1 else "sigma_init"
    rows = {"teacher": _teacher_words(facts), **_weights_of_teacher(facts)}
    rows |= {asked: _levels(model.sigmas)} if model.sigmas else {}
    rows |= {key: _short(facts[key]) for key in ("objective", "schedule") if facts.get(key)}
    training = facts.get("training")
    if isinstance(training, Mapping):
        rows |= {words: _short(training[key]) for key, words in _TRAINING.items() if key in training}
    if facts.get("cost"):
        rows["cost"] = _short(facts["cost"])
    # only whether there is one: where it lies is the business of the machine that it lies on
    rows["degradation path"] = "recorded beforehand" if facts.get("path") else "none"
    return "## Settings\n\n" + "\n".join(f"- {key}: {value}" for key, value in rows.items()) + "\n\n"


def _weights_of_teacher(facts: Mapping[str, Any]) -> dict[str, str]:
    """How the teacher's weights are recognised: its network, its file's hash and that of the weights alone."""
    origin, teacher = _teacher_origin(facts), facts.get("teacher")
    rows = {}
    if origin.get("network"):
        rows["teacher's network"] = f"{_line(origin['network'])} ({_line(origin.get('format'))})"
    if origin.get("sha256"):
        rows["teacher's file"] = f"sha256 {_line(origin['sha256'])}"
    if isinstance(teacher, Mapping) and teacher.get("hash"):
        rows["teacher's weights"] = f"sha256 {_line(teacher['hash'])[:16]}"
    return rows


def _line(value: Any) -> str:
    """A stranger's text in one line."""
    return " ".join(str(value).split())[:_LONGEST]


def _short(value: Any) -> str:
    """A value of the configuration in one line; classes without their modules."""
    if isinstance(value, Mapping):
        shown = {k: str(v).rsplit(".", 1)[-1] if k == "_target_" else _nested(v) for k, v in value.items()}
        words = (f"{key.strip('_').replace('target', 'class')}={text}" for key, text in shown.items() if text)
        return ", ".join(words)
    return value if isinstance(value, str) else json.dumps(value)


def _nested(value: Any) -> str:
    return f"({_short(value)})" if isinstance(value, Mapping) else _short(value)


def _metrics(facts: Mapping[str, Any]) -> str:
    metrics = facts.get("metrics")
    if not isinstance(metrics, Mapping) or not metrics:
        return "Nothing was measured."
    lines = [f"- {name}: {value:.4g}" for name, value in metrics.items()]
    how = facts.get("measured_with")
    if isinstance(how, Mapping):
        labels = {
            "n": "n", "extractor": "features", "extractor_sha256": "sha256 of their network",
            "resize": "resizing",
            "reference_dataset": "reference", "reference_split": "split", "reference_n": "images in it",
            "reference_sha256": "its sha256",
        }  # fmt: skip
        told = [f"{label} {str(how[key])[:40]}" for key, label in labels.items() if how.get(key) is not None]
        lines.append(f"\nMeasured with: {', '.join(told)}.")
        lines.append("Numbers with another n, feature network, reference or resizing cannot be compared with these.")
    return "\n".join(lines)


def _licences(model: Model) -> str:
    licence = licence_of(model.facts) or UNKNOWN_LICENCE
    if model.settings is None:
        return f"- weights: {licence}\n- code of `disback`: Apache-2.0"
    return (
        f"- teacher's weights: {licence}\n"
        "- these weights are derived from the teacher's: its licence applies to them\n"
        "- code, `disback`'s and what is in this folder: Apache-2.0"
    )
