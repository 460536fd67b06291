"""Where a converted model goes: built beside its place, put there in one step when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disback_cli.errors import UserError

# What a folder must hold to be replaced: a mistyped OUT must not cost anything but models.
_SIGNS = ("model_index.json", "config.json")


@contextmanager
def destination(out: Path, source: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path beside ``out``; what the block writes there becomes ``out``, or nothing does.

    Args:
        out: the file or folder that shall exist at the end.
        source: what is converted; it may not lie in ``out``.
        overwrite: replace what is there.

    Raises:
        UserError: ``out`` exists and may not be replaced, or the disk refuses.
    """
    _check(out, source, overwrite)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(temporary, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
    except OSError as error:
        raise UserError(f"could not write {out}: {error}; nothing was changed") from error
    finally:
        _remove(temporary)
        if out.exists():
            _remove(old)


def _check(out: Path, source: Path, overwrite: bool) -> None:
    """Refuse an ``out`` that would cost the user something."""
    here, there = out.absolute().resolve(), source.absolute().resolve()
    if here == there or here in there.parents:
        raise UserError(f"{out} is or contains what shall be converted: give another OUT")
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise UserError(f"{out} exists: give another OUT, or add overwrite=true to replace it")
    if out.is_symlink():
        raise UserError(f"{out} is a link: overwrite=true replaces files and model folders only")
    if out.is_dir() and any(out.iterdir()) and not any((out / sign).is_file() for sign in _SIGNS):
        raise UserError(
            f"{out} is a folder that holds no model, so overwrite=true does not replace it; remove it first"
        )


def _flush(path: Path) -> None:
    """Bring files to the disk before they get their final name."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
