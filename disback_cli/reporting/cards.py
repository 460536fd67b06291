"""Cards: the page that goes with published weights."""

from __future__ import annotations

from typing import Any

_OPEN = (
    'for their trainer to choose, as far as the data allow it; written as "licence" into config.json,\n'
    "it goes on to the students that are distilled from them"
)


def teacher_card(facts: dict[str, Any], parameters: int, stored_as: str, sampler: dict[str, Any]) -> str:
    """The card of a teacher trained by `disback pretrain`.

    Args:
        facts: what its config.json holds.
        parameters: of the network.
        stored_as: ``fp16`` or ``fp32``.
        sampler: settings of the Heun sampler under which it was measured.
    """
    data, steps = facts["dataset"], sampler.get("steps")
    numbers = "\n".join(f"- {name}: {value:.4g}" for name, value in facts["metrics"].items()) or "- not measured"
    measured = facts["measured_with"] or {}
    return f"""# {facts["name"]}

A denoiser D(x; sigma) trained with EDM's loss; {parameters:,} parameters, stored as {stored_as}.

How it was trained:

    {facts["command"]}

{facts["iterations"]:,} iterations of {facts["batch_size"]} images ({facts["cost"]["images"]:,} images) of the data set
{data["name"]}, {data["split"]} ({data["n"]:,} images, sha256 {data["sha256"][:16]}); the weights are the average (EMA).

Measured with EDM's Heun sampler, {steps} steps ({2 * int(steps) - 1 if steps else "?"} network evaluations), before the
weights were rounded to {stored_as}:

{numbers}

n = {measured.get("n")}, features {measured.get("extractor")} (sha256 {str(measured.get("extractor_sha256"))[:16]}),
reference {measured.get("reference_dataset")} {measured.get("reference_split")}, {measured.get("reference_n")} images.

Licence of the weights: {facts.get("licence") or _OPEN}.
"""
