"""What ``torch.save`` wrote, read without executing anything and without believing what the file says about its size.

``torch.load(weights_only=True)`` builds tensors and containers only, but unpacks whatever an archive claims to hold and
raises nearly every exception there is when a byte is wrong. Everything here that reads such a file does it this way.
"""

from __future__ import annotations

import mmap
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from disback_cli.denoisers.pickles.objects import Reading
from disback_cli.denoisers.pickles.zip_entries import SIGNATURE, stored_entries
from disback_cli.errors import UserError

SAVE_AGAIN = "Save the tensors alone where that code is installed: torch.save(network.state_dict(), FILE)"


def load_tensors(path: Path, advice: str = SAVE_AGAIN) -> Any:
    """The content of a file of ``torch.save``: tensors on the CPU in containers, as they were saved.

    Tensors of an archive stay on the disk until they are used, as those of a safetensors file do.

    Args:
        path: the file.
        advice: a sentence for a file that holds more than tensors.

    Raises:
        UserError: it is damaged, is no such file, or holds code that would have to be run.
    """
    try:
        with open(path, "rb") as file:
            archive = file.read(len(SIGNATURE)) == SIGNATURE
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        if archive:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the storage types of old files, which users cannot change
            # Unmapped, PyTorch believes the pickle about the length of an archive's entries and reads beyond their end.
            return torch.load(path, weights_only=True, mmap=archive, map_location="cpu")
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        text = str(error)
        named = text.split("GLOBAL ", 1)[1].split()[:1] if "GLOBAL " in text else []
        if named:
            raise UserError(
                f"{path} holds more than tensors: an object of the class {named[0]}, whose reading would run code, "
                f"which is never done. {advice}"
            ) from error
        raise UserError(
            f"{path} holds more than tensors, or is no whole file of torch.save; nothing in it was executed. {advice}"
        ) from error
    except Exception as error:  # a wrong byte can lead anywhere: IndexError, AssertionError, RecursionError, ...
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise UserError(f"{path} is not a whole file of torch.save ({why}): copy it again") from error


def _check_archive(path: Path) -> None:
    """Refuse programs, and archives that would take more memory than the file has bytes."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in f"/{name}" or name.endswith("constants.pkl") for name in names):
        raise UserError(f"{path} is a TorchScript program: to read it is to execute it, which is never done")
    with open(path, "rb") as file:
        # Not closed by hand: views of it may live on in the traceback of an error.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    reading = Reading(str(path), len(data))
    if sum(len(entry) for entry in stored_entries(data, reading).values()) > len(data):
        raise reading.error("the entries of its archive overlap, so it is damaged: copy it again")
