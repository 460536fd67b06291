"""The page that goes with a published model: where it comes from, what may be done with it, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from disback_cli.publishing.model import Model
from disback_cli.publishing.precision import precision_of

UNKNOWN_LICENCE = "unknown: ask the teacher's owner"


def folder_card(model: Model, weights: Mapping[str, Tensor]) -> str:
    """The card of our model folder.

    Args:
        model: a student or a teacher.
        weights: as stored.
    """
    if model.sigma_init is None:
        use = "    disback record teacher=folder teacher.folder=THIS_FOLDER"
        return _page(str(model.facts.get("name", "teacher")), _teacher_text(model), use, model, weights)
    use = "    disback sample student=THIS_FOLDER n=64"
    return _page(_student_name(model), _student_text(model), use, model, weights)


def pipeline_card(model: Model, weights: Mapping[str, Tensor], call: str) -> str:
    """The card of a diffusers folder.

    Args:
        model: the student.
        weights: as stored.
        call: Python code that samples from it.
    """
    use = "\n".join(f"    {line}".rstrip() for line in call.strip().splitlines())
    head = '---\nlibrary_name: diffusers\npipeline_tag: unconditional-image-generation\ntags: ["one-step"]\n---\n\n'
    return head + _page(_student_name(model), _student_text(model), use, model, weights)


def teacher_licence(facts: Mapping[str, Any]) -> str:
    """The licence of the teacher's weights: what the facts, those of their origin, or those of their teacher say."""
    for holder in (facts, facts.get("origin"), facts.get("teacher")):
        if isinstance(holder, Mapping):
            inner = holder.get("origin")
            found = holder.get("licence") or (isinstance(inner, Mapping) and inner.get("licence"))
            if found:
                return str(found)
    return UNKNOWN_LICENCE


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
    return f"One-step student of {_teacher_name(model.facts)}"


def _teacher_name(facts: Mapping[str, Any]) -> str:
    teacher = facts.get("teacher")
    return str(teacher.get("name", "its teacher")) if isinstance(teacher, Mapping) else "its teacher"


def _student_text(model: Model) -> str:
    return (
        f"A generator that makes a sample with one evaluation of its network, x = D(s z; s) with z ~ N(0, 1) and "
        f"s = {model.sigma_init:g},\ndistilled from the diffusion model {_teacher_name(model.facts)} "
        "by distribution backtracking with `disback`."
    )


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
    if model.sigma_init is None:
        return ""
    facts = model.facts
    rows = {"sigma_init": f"{model.sigma_init:g}"}
    rows |= {key: _short(facts[key]) for key in ("objective", "schedule", "cost") if facts.get(key)}
    # only whether there is one: where it lies is the business of the machine that it lies on
    rows["degradation path"] = "recorded beforehand" if facts.get("path") else "none"
    teacher = facts.get("teacher")
    if isinstance(teacher, Mapping) and teacher.get("hash"):
        rows["teacher's weights"] = f"sha256 {str(teacher['hash'])[:16]}"
    return "## Settings\n\n" + "\n".join(f"- {key}: {value}" for key, value in rows.items()) + "\n\n"


def _short(value: Any) -> str:
    """A value of the configuration in one line; classes without their modules."""
    if isinstance(value, Mapping):
        shown = {k: str(v).rsplit(".", 1)[-1] if k == "_target_" else _short(v) for k, v in value.items()}
        return ", ".join(f"{key.strip('_').replace('target', 'class')}={text}" for key, text in shown.items())
    return value if isinstance(value, str) else json.dumps(value)


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
    licence = teacher_licence(model.facts)
    if model.sigma_init is None:
        return f"- weights: {licence}\n- code of `disback`: Apache-2.0"
    return (
        f"- teacher's weights: {licence}\n"
        "- these weights are derived from the teacher's: its licence applies to them\n"
        "- code, `disback`'s and what is in this folder: Apache-2.0"
    )
