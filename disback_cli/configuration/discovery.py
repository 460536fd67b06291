"""What a command leaves to be found on disk: the run to continue, the newest path, the newest student.

All of it is written into the command line before Hydra composes anything, so that ``--cfg job`` shows what will run,
and every process that is started again with these words (ranks, jobs of a sweep) works with the same folders.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import yaml

from disback_cli.configuration import pairsource, pathsource, runfolder, trust
from disback_cli.configuration.arguments import (
    SEED,
    CommandLine,
    Override,
    absolute,
    assignment,
    names_a_place,
    places,
    shown,
    with_absolute_place,
)
from disback_cli.configuration.experiments import with_experiment
from disback_cli.configuration.noise_laws import with_noise
from disback_cli.configuration.option_files import require_options, without_groups
from disback_cli.configuration.run_id import launch_id, run_id, shared_launch_id
from disback_cli.configuration.runfolder import Run
from disback_cli.configuration.sweep_files import with_sweep_file
from disback_cli.errors import UserError

CONFIG_FILE = "config.yaml"
SWEEP_FILE = "sweep.json"
RUNS_VARIABLE = "DISBACK_RUNS"
RESUMABLE = ("pretrain", "record", "backtrack", "regress")
TAKES_STUDENT = ("sample", "evaluate")

_NOTES: list[str] = []
# they describe one invocation, not the run that is continued
_NEVER_STORED = ("resume", "runs")


def notes() -> list[str]:
    """What was found for this command, in sentences for the console; empty in ranks that Lightning started."""
    return list(_NOTES)


def prepare(verb: str, line: CommandLine) -> CommandLine:
    """The command line with everything found on disk written into it; doing it twice changes nothing."""
    _NOTES.clear()
    if line.informs or _started_by_lightning(line):
        return line
    line = with_noise(verb, with_experiment(verb, with_sweep_file(verb, line)))
    require_options(verb, line)
    line = without_groups(verb, line)
    if verb in TAKES_STUDENT:
        line = _with_students_folder(line)
    line = _with_seed_in_places(line)
    line = replace(line, overrides=tuple(with_absolute_place(override) for override in line.overrides))
    if line.multirun:
        line = _with_sweep(line)
    if verb in TAKES_STUDENT:
        line = _with_student(line)
    if verb in RESUMABLE and not line.multirun:
        line = _with_resumed_run(verb, line)
    if verb == "backtrack":
        line = pathsource.with_path(line, runs_root(line), _NOTES)
    if verb == "regress" or (verb == "backtrack" and pairsource.asks_for_pairs(line)):
        line = pairsource.with_pairs(line, runs_root(line), _NOTES)
    if shared_launch_id() is not None and line.find("hydra.run.dir") is None and not line.multirun:
        run_id()  # ranks that cannot agree on a folder must say so before anything is composed
    if verb == "evaluate" and line.find("images") is not None and line.find("hydra.run.dir") is None:
        # images are of no teacher: the one in the configuration only chooses what they are compared with
        line = line.with_front(["hydra.run.dir=${runs}/${verb}/images/${run_id:}"])
    return line


def runs_root(line: CommandLine) -> Path:
    """The folder that collects the runs: ``runs=DIR``, else $DISBACK_RUNS, else ``runs``."""
    given = line.find("runs")
    return Path((given.value if given else None) or os.environ.get(RUNS_VARIABLE) or "runs")


def _started_by_lightning(line: CommandLine) -> bool:
    """Ranks that Lightning starts get their parent's finished words, its folder, and a job name of their own."""
    name = line.find("hydra.job.name")
    return "LOCAL_RANK" in os.environ and name is not None and str(name.value).startswith("train_ddp_process_")


def named_value(line: CommandLine, key: str) -> str | None:
    """The one value the command gives ``key``; None when it gives none or several."""
    override = line.find(key)
    return None if override is None or override.several else override.value


def _with_seed_in_places(line: CommandLine) -> CommandLine:
    """``path=FOLDER/${seed}`` gives every seed of a sweep a recording of its own; a job's words name the one."""
    if line.multirun or not any(names_a_place(o.key) and SEED in o.word for o in line.overrides):
        return line
    seed = named_value(line, "seed")
    if seed is None:
        raise UserError(
            f"{SEED} stands for the seed that is given, and none is: add seed=0, or sweep it with -m seed=0,1"
        )
    return replace(
        line,
        overrides=tuple(Override(o.word.replace(SEED, seed)) if names_a_place(o.key) else o for o in line.overrides),
    )


def _with_resumed_run(verb: str, line: CommandLine) -> CommandLine:
    wish = named_value(line, "resume")
    if wish is None or wish.lower() in ("false", "null", "no", "off"):
        return line
    if wish.lower() in ("auto", "true", "yes", "on"):
        return _resume_newest(verb, line)
    return _continue(_run_at(Path(wish), verb), line)


def _resume_newest(verb: str, line: CommandLine) -> CommandLine:
    folder = named_value(line, "hydra.run.dir")
    if folder is not None:
        run = runfolder.read_named(Path(folder), f"hydra.run.dir={folder}")
        return line if run is None else _continue(run, line)
    run = newest_unfinished(runs_root(line), verb, named_value(line, "teacher"))
    if run is None:
        _NOTES.append(f"resume=auto: no unfinished {verb} run under {runs_root(line) / verb}, so this is a new one")
        return line
    return _continue(run, line)


def newest_unfinished(root: Path, verb: str, teacher: str | None) -> Run | None:
    """The newest run of ``verb`` (and of ``teacher``) that is not finished and not in use by another launch."""
    unfinished = [run for run in _runs(root / verb) if run.verb == verb and not run.finished]
    runs = [run for run in unfinished if _is_of_teacher(run, teacher)]
    for run in runs:
        # another rank of this launch was faster: it decides
        owner = runfolder.holder(run.folder)
        if owner is not None and owner.get("launch_id") == launch_id():
            return run
    return next((run for run in runs if not runfolder.is_busy(run.folder)), None)


def _runs(folder: Path) -> list[Run]:
    """The runs in ``<folder>/<teacher>/<run id>``, newest first."""
    found = (runfolder.read(file.parent) for file in folder.glob(f"*/*/{runfolder.RUN_FILE}"))
    runs = [run for run in found if run is not None]
    return sorted(runs, key=lambda run: (run.created, run.folder.name), reverse=True)


def _is_of_teacher(run: Run, teacher: str | None) -> bool:
    if teacher is None:
        return True
    choice = next((o.value for o in map(Override, run.overrides) if o.key == "teacher"), None)
    return teacher in (choice, run.teacher) if choice is not None else teacher == run.teacher


def _run_at(place: Path, verb: str) -> Run:
    """The run that ``resume=PATH`` names: a run folder, or a file in its checkpoints/ folder."""
    if not place.exists():
        raise UserError(f"resume={place}: there is no such file or folder; resume=auto takes the newest unfinished run")
    for folder in (place, *list(place.parents)[:3]):
        run = runfolder.read_named(folder, f"resume={place}")
        if run is not None:
            break
    else:
        raise UserError(f"resume={place}: neither a run folder (no {runfolder.RUN_FILE}) nor a checkpoint in one")
    if run.verb != verb:
        raise UserError(f"resume={place}: that is a run of '{run.verb}'; type 'disback {run.verb} resume={place}'")
    return run


def _continue(run: Run, line: CommandLine) -> CommandLine:
    """The words of ``run`` before the user's, its folder, and a note."""
    added = stored_words(run, line)
    known = {word.key for word in (*map(Override, added), *line.overrides)}
    given = {word.key.replace("/", ".") for word in line.overrides}
    added += [
        assignment(key, place)
        for key, place in _stored_places(run.folder).items()
        # another option of a group has other places
        if key not in known and not any(key.startswith(f"{group}.") for group in given)
    ]
    if line.find("hydra.run.dir") is None:
        added.append(assignment("hydra.run.dir", str(absolute(run.folder))))
    _NOTES.append(f"continuing {shown(run.folder)} ({run.state}, started {run.created})")
    return line.with_front(added)


def _stored_places(folder: Path) -> dict[str, str]:
    """Where the defaults of a run lay: they may be named relative to the folder it was started from."""
    try:
        config = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return places(config) if isinstance(config, dict) else {}


def stored_words(run: Run, line: CommandLine) -> list[str]:
    """The overrides of ``run`` that the command does not give itself.

    With another option for a group, the stored values inside that group would be keys of the wrong thing: dropped too.
    """
    given = {override.key: override.value for override in line.overrides}
    words = [Override(word) for word in run.overrides]
    values = {"teacher": run.teacher} | {word.key: word.value for word in words}
    changed = {key for key, value in given.items() if "." not in key and values.get(key) != value}
    kept = []
    for word in words:
        head = word.key.split(".", 1)[0]
        if word.key in given or word.key in _NEVER_STORED or (head in changed and head != word.key):
            continue
        kept.append(word.word)
    return kept


def _with_sweep(line: CommandLine) -> CommandLine:
    """``-m hydra.sweep.dir=DIR`` of an earlier sweep: its words again in their order, which numbers the jobs."""
    folder = named_value(line, "hydra.sweep.dir")
    if folder is None or not (Path(folder) / SWEEP_FILE).is_file():
        return line
    stored = runfolder.read_json(Path(folder) / SWEEP_FILE)
    words = runfolder.texts(stored.get("overrides")) if isinstance(stored, dict) else None
    if words is None:
        raise UserError(f"hydra.sweep.dir={folder}: {Path(folder) / SWEEP_FILE} cannot be read: it is damaged")
    given = {override.key: override for override in line.overrides}
    own = runfolder.texts(stored.get("hydra", [])) or ()
    merged = [given.pop(word.key, word) for word in map(Override, (*words, *own))]
    _NOTES.append(f"continuing the sweep in {folder}")
    return replace(line, overrides=(*merged, *given.values()))


def _with_students_folder(line: CommandLine) -> CommandLine:
    """``student=RUN`` means the folder of a student here."""
    words = [
        Override(o.word.replace("student=", "student.folder=", 1)) if o.key == "student" and "=" in o.word else o
        for o in line.overrides
    ]
    return replace(line, overrides=tuple(words))


def _with_student(line: CommandLine) -> CommandLine:
    """The teacher of the student that was named; with neither student nor teacher the newest student is taken."""
    named = line.find("student.folder")
    if named is not None:
        if named.several or named.value in (None, "null"):
            return line
        return _with_teacher_of(_student_run(Path(str(named.value))), line)
    if any(o.key in ("teacher", "images") or o.key.startswith("teacher.") for o in line.overrides):
        return line
    finished = [run for run in _runs(runs_root(line) / "backtrack") if run.finished]
    run = next((run for run in finished if (run.folder / "student" / "config.json").is_file()), None)
    if run is None:
        _NOTES.append("no student has been distilled yet, so this is the teacher; `disback backtrack` makes a student")
        return line
    _NOTES.append(f"student: {shown(run.folder)} (the newest finished one)")
    return _with_teacher_of(run, line.with_front([assignment("student.folder", str(absolute(run.folder)))]))


def _student_run(folder: Path) -> Run | None:
    if not folder.exists():
        raise UserError(f"student={folder}: there is no such folder; name a finished 'disback backtrack' run")
    return runfolder.read_named(folder, f"student={shown(folder)}") or runfolder.read(folder.parent)


def _with_teacher_of(run: Run | None, line: CommandLine) -> CommandLine:
    """Take over the teacher a student was distilled from: its data and statistics are the comparison."""
    if run is None or line.find("teacher") is not None:
        return line
    words = [word for word in stored_words(run, line) if Override(word).key.split(".", 1)[0] == "teacher"]
    for word in words:
        trust.require_plain(word, run.folder / runfolder.RUN_FILE)
    return line.with_front(words)
