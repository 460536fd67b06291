"""The noise levels of a few-step student, judged with and without its network. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

FEWEST, MOST = 2, 4


def typed(levels: Sequence[float]) -> str:
    """The levels as they are typed."""
    return f"student.sigmas=[{','.join(f'{level:g}' for level in levels)}]"


def require_count(levels: Sequence[float]) -> None:
    """Refuse too few or too many levels.

    Raises:
        ValueError: they are not 2 to 4.
    """
    if FEWEST <= len(levels) <= MOST:
        return
    mend = f"give {FEWEST} to {MOST}"
    if len(levels) == 1:
        mend = f"student=one_step student.sigma_init={levels[0]:g} is the student of one level"
    need = f"a few-step student has {FEWEST} to {MOST} noise levels, this has {len(levels)}"
    raise ValueError(f"{typed(levels)}: {need}; {mend}")


def require_falling(levels: Sequence[float], asked: Sequence[float]) -> None:
    """Refuse levels that do not fall strictly.

    Args:
        levels: as they were typed.
        asked: the levels nearest to them at which the network can be asked.

    Raises:
        ValueError: ``asked`` does not fall; the message says what to type.
    """
    if not any(later >= earlier for earlier, later in pairwise(asked)):
        return
    ordered = sorted(set(asked), reverse=True)
    if len(ordered) == len(levels):
        mend = f"type {typed(ordered)}"
    else:
        mend = "give levels that differ"
        if len(set(levels)) == len(levels):
            mend += f"; the network was trained at {', '.join(f'{level:g}' for level in ordered)} of these only"
    raise ValueError(f"{typed(levels)}: the noise levels must fall strictly from evaluation to evaluation; {mend}")
