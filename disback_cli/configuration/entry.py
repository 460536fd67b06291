"""``verb_main``: how every verb module hands its command line to Hydra and its mistakes back to the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from disback_cli.configuration import check, discovery, full_error, sweepreport
from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.complaints import explain
from disback_cli.configuration.help import register_help
from disback_cli.configuration.jobs import SweepFailed
from disback_cli.configuration.run_id import register_run_id
from disback_cli.errors import UserError

CONFIG_PACKAGE = "disback_cli.conf"
_FAILURE, _MISTAKE = 1, 2

Work = Callable[[DictConfig], None]


class _Task:
    """The task function given to Hydra: checks the configuration, then works.

    A failure of a single run is kept here and not raised through Hydra, which would write a line of its own about it.
    In a sweep it is raised: the task may run in a process of the launcher, where nobody would look at ``failure``.
    """

    def __init__(self, verb: str, work: Work) -> None:
        self.verb = verb
        self.work = work
        self.failure: Exception | None = None

    def __call__(self, cfg: DictConfig) -> None:
        try:
            self._check(cfg)
            with full_error.as_the_user_set_it():
                self.work(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            self.failure = error

    def _check(self, cfg: DictConfig) -> None:
        try:
            check.check(cfg, self.verb)
        except (UserError, OmegaConfBaseException) as error:
            remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
            if isinstance(error, OmegaConfBaseException):
                raise UserError(explain(error, self.verb, CommandLine.parse(sys.argv[1:]))) from error
            raise


def verb_main(verb: str, work: Work) -> None:
    """Compose the configuration of ``verb`` from ``sys.argv``, check it and call ``work(cfg)``.

    Mistakes of the user end with a short message and exit code 2, failed sweeps and exceptions with 1, Ctrl-C with 130.
    """
    task = _Task(verb, work)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a user's own classes named by _target_ live beside where the command is typed
    try:
        line = CommandLine.parse(sys.argv[1:])
        if line.multirun and {"--cfg", "-c", "--info", "-i"} & set(line.flags):
            raise UserError("-m runs a sweep, --cfg and --info only show a configuration: give one of them")
        line = discovery.prepare(verb, line)
        # written back: Lightning starts the other ranks of a DDP run with these words
        sys.argv[1:] = line.words()
        register_run_id()
        register_help()
        run = hydra.main(config_path=f"pkg://{CONFIG_PACKAGE}", config_name=verb, version_base="1.3")(task)
        with full_error.raising(), sweepreport.told_at_the_end():
            run()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except SweepFailed as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # `disback record --help | head`: nobody reads on, and the interpreter must not try to flush what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_FAILURE)
    except Exception as error:
        sys.exit(_report(error, verb, from_work=False))
    if task.failure is not None:
        sys.exit(_report(task.failure, verb, from_work=True))


def _report(error: Exception, verb: str, from_work: bool) -> int:
    """Print what went wrong in the form its cause deserves; returns the exit code."""
    mistake = user_error_behind(error)
    of_configuration = isinstance(error, (HydraException, OmegaConfBaseException)) and not from_work
    code = _MISTAKE if mistake is not None or of_configuration else _FAILURE
    if code == _FAILURE or full_error.wanted_by_user():
        sys.excepthook(type(error), error, error.__traceback__)
    elif mistake is not None:
        print(f"disback {verb}: {mistake}", file=sys.stderr)
    else:
        print(f"disback {verb}: {explain(error, verb, CommandLine.parse(sys.argv[1:]))}", file=sys.stderr)
    return code


def user_error_behind(error: BaseException | None) -> UserError | None:
    """The user's mistake that an exception stands for; None if it is something else.

    That is a ``UserError``, wrapped by OmegaConf or Hydra or not, or a constructor's ``ValueError``: an option's value
    that is of the right type and still makes no sense.
    """
    instantiating = False
    while isinstance(error, (HydraException, OmegaConfBaseException)):
        instantiating = isinstance(error, InstantiationException)
        error = error.__cause__ or error.__context__
    if instantiating and isinstance(error, ValueError):
        return UserError(str(error))
    return error if isinstance(error, UserError) else None


def remove_if_empty(folder: Path) -> None:
    """Take back the run folder Hydra made for a configuration that turned out wrong, and parents that are empty now."""
    for candidate in (folder, *list(folder.parents)[:3]):
        if candidate == Path.cwd():
            return
        try:
            candidate.rmdir()
        except FileNotFoundError:
            continue  # removed with its content before
        except OSError:
            return
