"""HYDRA_FULL_ERROR lets Hydra raise its exceptions instead of printing them: set for us, hidden from the work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "HYDRA_FULL_ERROR"
_user_value: str | None = os.environ.get(_VARIABLE)


def wanted_by_user() -> bool:
    """Whether the user set the variable himself: he wants to see traces."""
    return _user_value == "1"


@contextmanager
def raising() -> Iterator[None]:
    """Let Hydra raise inside the block."""
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        _restore(os.environ)


@contextmanager
def as_the_user_set_it() -> Iterator[None]:
    """Inside ``raising``: hide our setting again, so that processes started in the block do not inherit it."""
    _restore(os.environ)
    try:
        yield
    finally:
        os.environ[_VARIABLE] = "1"


def user_environment() -> dict[str, str]:
    """A copy of the environment with the user's own setting of the variable."""
    environment = dict(os.environ)
    _restore(environment)
    return environment


def _restore(environment: os._Environ[str] | dict[str, str]) -> None:
    if _user_value is None:
        environment.pop(_VARIABLE, None)
    else:
        environment[_VARIABLE] = _user_value
