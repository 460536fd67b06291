"""Which runs are repetitions of one another, what tells the others apart, and what to call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from disback_cli.configuration.arguments import Override
from disback_cli.configuration.noise_laws import shorthand
from disback_cli.errors import UserError
from disback_cli.reporting.comparison.runs import RunRecord

# They decide who watches a run, how often, where and on what, and which draws are made; not what is done.
NO_DIFFERENCE = (
    "verb", "runs", "resume", "seed", "log_every", "checkpoint", "logger", "evaluate", "collapse_below", "metrics",
    "probe_samples", "teacher.sampler", "trainer._target_", "trainer.accelerator", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.threads", "trainer.max_batch",
)  # fmt: skip
# A divergence's weights are normalised over what goes through the networks at a time.
_DIVERGENCE, _AT_ONCE = "objective.divergence", "trainer.max_batch"
# Folders of earlier runs. They follow the seed: what counts is how those were made, not where they lie.
EARLIER_RUNS = ("path", "pairs", "student.weights")
# a seed in these is part of what they are; elsewhere it may be the run's own (``student.seed: ${seed}``)
_SEEDS_OF_THEIR_OWN = ("teacher", "dataset")
# of a path's manifest, what says how it was recorded
_OF_A_PATH = ("recording", "noise", "adapter")
_STUDENT = "student"
# of the student there, what follows the seed
_WEIGHTS_HASH = "sha256"
# beside the manifest, in the recording's own configuration
_NODES = "nodes"
_BASELINE = "schedule=endpoint"


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: what tells it from the other variants.
        runs: ordered by seed, one a seed.
        settings: everything that could make a difference, by dotted key; earlier runs by how they were made.
    """

    label: str
    runs: tuple[RunRecord, ...]
    settings: Mapping[str, Any]

    def run_of(self, seed: int | None) -> RunRecord:
        """The run of this seed, or the first one where there is none."""
        return next((run for run in self.runs if run.seed == seed), self.runs[0])


@dataclass(frozen=True)
class Difference:
    """A key that has not the same value in all variants; ``values`` in their order, None where it is not there."""

    key: str
    values: tuple[Any, ...]


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested configuration by dotted keys; lists count as values."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _belongs_to(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def settings_of(run: RunRecord) -> dict[str, Any]:
    """Everything that could make a difference, by dotted key."""
    everything = flat(run.config)
    found = {key: value for key, value in everything.items() if not _belongs_to(key, NO_DIFFERENCE)}
    if _DIVERGENCE in everything:
        found[_AT_ONCE] = everything.get(_AT_ONCE)
    for name in EARLIER_RUNS:
        place = found.pop(name, None)
        if name == "path":
            place = place if run.uses_path else None
        if place is None:
            continue
        made = _how_the_path_was_recorded(run, place) if name == "path" else _how_it_was_made(Path(str(place)))
        found |= {name: "given"} | {f"{name}.{key}": value for key, value in made.items()}
    return found


def _how_the_path_was_recorded(run: RunRecord, place: Any) -> dict[str, Any]:
    facts = flat({name: run.recording.get(name, {}) for name in _OF_A_PATH}) if run.recording else {}
    facts = {key.removeprefix("recording."): value for key, value in facts.items() if value != {}}
    student = run.recording.get(_STUDENT) if run.recording else None
    if isinstance(student, Mapping):
        facts[_STUDENT] = _in_words(student)
    nodes = settings_in(Path(str(place))).get(_NODES)
    return {key: value for key, value in facts.items() if not _is_seed(key)} | (
        {} if nodes is None else {_NODES: nodes}
    )


def _in_words(student: Mapping[str, Any]) -> str:
    """A student by its settings, as one value: those of another kind are others."""
    settings = [f"{key}={text_of(value)}" for key, value in student.items() if key not in ("kind", _WEIGHTS_HASH)]
    return " ".join([str(student.get("kind")), *settings])


def _is_seed(key: str) -> bool:
    """Whether a key is a seed that may follow the run's."""
    return key.rsplit(".", 1)[-1] == "seed" and not _belongs_to(key, _SEEDS_OF_THEIR_OWN)


def _how_it_was_made(place: Path) -> dict[str, Any]:
    settings = settings_in(place)
    ignored = (*NO_DIFFERENCE, *EARLIER_RUNS)
    return {key: value for key, value in settings.items() if not _belongs_to(key, ignored) and not _is_seed(key)}


def settings_in(place: Path) -> dict[str, Any]:
    """The flat configuration of the run that a place names or lies in; nothing where it is not there any more."""
    for folder in (place, *list(place.parents)[:2]):
        try:
            content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
        return flat(content) if isinstance(content, Mapping) else {}
    return {}


def group(runs: Sequence[RunRecord], notes: list[str]) -> list[Variant]:
    """The variants, in the order of their first runs.

    Of several runs with the same seed the newest finished one is taken: they are one result, not two. How an earlier
    run was made is compared as far as all of them still tell it; `notes` gets what had to be left out.
    """
    settings = [settings_of(run) for run in runs]
    _keep_what_all_tell(runs, settings, notes)
    _forget_seeds_that_follow(runs, settings)
    grouped: list[tuple[dict[str, Any], list[RunRecord]]] = []
    for run, found in zip(runs, settings, strict=True):
        alike = next((members for known, members in grouped if known == found), None)
        if alike is None:
            grouped.append((found, [run]))
        else:
            alike.append(run)
    members = [tuple(_one_a_seed(found, notes)) for _, found in grouped]
    labels = _labels(members, [found for found, _ in grouped])
    return [Variant(label, found, known) for label, found, (known, _) in zip(labels, members, grouped, strict=True)]


def _keep_what_all_tell(runs: Sequence[RunRecord], settings: Sequence[dict[str, Any]], notes: list[str]) -> None:
    for name in EARLIER_RUNS:
        users = [found for found in settings if name in found]
        told = [{key for key in found if key.startswith(f"{name}.")} for found in users]
        silent = [run.name for run, found in zip(runs, settings, strict=True) if name in found and not any(
            key.startswith(f"{name}.") for key in found)]  # fmt: skip
        if silent and any(told):
            notes.append(f"what {name}= named for {', '.join(silent)} is not there any more: {name} is not compared")
        shared = set.intersection(*told) if told else set()
        for found in users:
            for key in [key for key in found if key.startswith(f"{name}.") and key not in shared]:
                del found[key]


def _forget_seeds_that_follow(runs: Sequence[RunRecord], settings: Sequence[dict[str, Any]]) -> None:
    """A seed that is the run's own in all runs that have it makes no difference; one that was fixed stays."""
    for key in {key for found in settings for key in found if _is_seed(key)}:
        having = [(run, found) for run, found in zip(runs, settings, strict=True) if key in found]
        if all(found[key] == run.seed for run, found in having):
            for _, found in having:
                del found[key]


def _one_a_seed(runs: Sequence[RunRecord], notes: list[str]) -> list[RunRecord]:
    kept: dict[int, RunRecord] = {}
    for run in sorted(runs, key=lambda run: (run.state == "finished", run.last_iteration, run.created)):
        if run.seed in kept:
            notes.append(f"{kept[run.seed].name} repeats {run.name} (seed {run.seed}) and is left out")
        kept[run.seed] = run
    return [kept[seed] for seed in sorted(kept)]


def differences(settings: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The keys that have not the same value everywhere; how an earlier run was made counts where there is one."""
    found = []
    for key in dict.fromkeys(key for known in settings for key in known):
        values = tuple(known.get(key) for known in settings)
        owner = next((name for name in EARLIER_RUNS if key.startswith(f"{name}.")), None)
        compared = [known.get(key) for known in settings if owner is None or owner in known]
        if any(value != compared[0] for value in compared):
            found.append(Difference(key, values))
    return found


def _labels(members: Sequence[Sequence[RunRecord]], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The words that were typed, where they tell the variants apart; else the settings that do."""
    changed = [difference.key for difference in differences(settings)]
    telling = ([word for word in _typed(runs[0]) if _tells(word, settings, changed)] for runs in members)
    typed = [shorthand(words, equal=True) for words in telling]
    common = set(typed[0]).intersection(*typed[1:])
    labels = [" ".join(word for word in words if word not in common) or "defaults" for words in typed]
    if len(members) == 1:
        return [next((word for word in _typed(members[0][0]) if word.startswith("schedule=")), "all runs")]
    return labels if len(set(labels)) == len(labels) else _told_by_settings(settings)


def _typed(run: RunRecord) -> list[str]:
    words = {word.key: word.word.lstrip("+") for word in map(Override, shorthand(run.overrides))}
    return [word for key, word in words.items() if not _belongs_to(key, (*NO_DIFFERENCE, *EARLIER_RUNS))]


def _tells(word: str, settings: Sequence[Mapping[str, Any]], changed: Sequence[str]) -> bool:
    """Whether a word may make a difference: a setting that it names is not the same everywhere, or it names none."""
    key = Override(word).key.replace("/", ".")
    named = {setting for known in settings for setting in known if _belongs_to(setting, (key,))}
    return not named or not named.isdisjoint(changed)


def _told_by_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """As few of the differing settings as tell all variants apart, classes first."""
    found = sorted(differences(settings), key=lambda difference: not difference.key.endswith("_target_"))
    chosen: list[Difference] = []
    for difference in found:
        before, after = (len({tuple(map(str, values)) for values in zip(*(d.values for d in kept), strict=True)})
                         if kept else 1 for kept in (chosen, [*chosen, difference]))  # fmt: skip
        if after > before:
            chosen.append(difference)
    return [
        " ".join(f"{d.key.removesuffix('._target_')}={text_of(d.values[i])}" for d in chosen)
        for i in range(len(settings))
    ]


def text_of(value: Any) -> str:
    """A setting as it is read: a class by its name alone, a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, str) and value.count(".") > 1 and value.replace(".", "").replace("_", "").isalnum():
        return value.rsplit(".", 1)[1]
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def baselines(variants: Sequence[Variant], words: str | None) -> list[int]:
    """For every variant the number of the one it is compared with.

    It is chosen among those whose label, or typed words, hold all of `words` (without words: those with
    schedule=endpoint): the one that differs in the fewest settings. Where none or all have schedule=endpoint, or all
    hold the words, it is the first variant.

    Raises:
        UserError: no variant holds these words.
    """
    wanted = (words or _BASELINE).split()
    found = [i for i, variant in enumerate(variants) if _is_called(variant, wanted)]
    if not found and words is not None:
        labels = "; ".join(variant.label for variant in variants)
        raise UserError(f"--baseline {words}: no variant is called that; there are: {labels}")
    candidates = found if 0 < len(found) < len(variants) else [0]
    return [i if i in candidates else _nearest(variants, i, candidates) for i in range(len(variants))]


def _is_called(variant: Variant, wanted: Sequence[str]) -> bool:
    typed = _typed(variant.runs[0])
    names = {*variant.label.split(), *typed, *shorthand(typed, equal=True)}
    if _BASELINE in wanted and str(variant.settings.get("schedule._target_", "")).endswith(".EndpointSchedule"):
        names.add(_BASELINE)
    return set(wanted) <= names


def _nearest(variants: Sequence[Variant], i: int, candidates: Sequence[int]) -> int:
    return min(candidates, key=lambda c: len(differences([variants[i].settings, variants[c].settings])))
