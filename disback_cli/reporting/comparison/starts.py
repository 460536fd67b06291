"""Whether the path that a run walks was recorded for its student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.reporting.comparison.runs import RunRecord
from disback_cli.reporting.comparison.variants import flat, settings_in, text_of

_FACTORIES = "disback_cli.distillation."
# an untrained LoRA student is the one-step student, whatever its adapters
_LORA, _OF_ADAPTERS = "lora", ("rank", "alpha", "layers", "seed")
_NOT_SETTINGS = ("_target_", "_recursive_", "_convert_")


def apart(run: RunRecord) -> list[str]:
    """What a run's untrained student and the one of its path have different, in words.

    Nothing where they agree, where there is no path, and where it is not known.
    """
    own = run.config.get("student")
    recorded = run.recording.get("student") if run.recording else None
    if not isinstance(own, Mapping) or not isinstance(recorded, Mapping):
        return []
    kind, there = _factory(own), recorded.get("kind")
    here = "one_step" if kind == _LORA else kind
    if here is not None and there != here:
        return [f"{text_of(there)} there, {here} here"]
    # the manifest has the levels that were used, the recording's configuration those that were typed
    known = (flat(recorded), _typed(run))
    ignored = (*_NOT_SETTINGS, *(_OF_ADAPTERS if kind == _LORA else ()))
    found = []
    for key, value in flat(own).items():
        told = [] if key in ignored else [facts[key] for facts in known if key in facts]
        if told and value not in told:
            found.append(f"{key}={text_of(told[0])} there, {text_of(value)} here")
    return found


def _factory(student: Mapping[str, Any]) -> str | None:
    """Name of the factory that builds a student; None for one of the user's own."""
    target = str(student.get("_target_"))
    return target.rsplit(".", 1)[-1] if target.startswith(_FACTORIES) else None


def _typed(run: RunRecord) -> dict[str, Any]:
    """The student's options in the recording's configuration, where that is still there."""
    settings = settings_in(Path(str(run.config.get("path"))))
    return {key.removeprefix("student."): value for key, value in settings.items() if key.startswith("student.")}
