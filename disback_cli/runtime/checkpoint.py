"""Checkpoints that are whole or absent: atomic writes, a manifest with hashes, fall-back to the newest whole one.

A checkpoint is written under a temporary name in its own folder, flushed to the disk and renamed; only then does
the manifest ``checkpoints.json`` name it. A reader trusts the manifest alone, so a torn file is never loaded.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO

from disback_cli.errors import UserError
from disback_cli.files import sha256_of, write_atomically, write_json

log = logging.getLogger(__name__)

MANIFEST = "checkpoints.json"


class CheckpointStore:
    """The checkpoints of one run and their manifest.

    Args:
        folder: ``<run>/checkpoints``.
        keep: how many of the newest are kept; older ones go only after the newer one is in the manifest.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def entries(self) -> list[dict[str, Any]]:
        """Manifest entries, oldest first: file, iteration, sha256."""
        try:
            return list(json.loads((self.folder / MANIFEST).read_text())["checkpoints"])
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, OSError) as error:  # ValueError: no JSON, or not even text
            raise UserError(
                f"{self.folder / MANIFEST} cannot be read ({error}); delete the folder {self.folder} to start "
                "the run over, or restore the file."
            ) from error

    def path_for(self, iteration: int) -> Path:
        """File name of the checkpoint after ``iteration`` iterations."""
        return self.folder / f"iteration_{iteration:08d}.ckpt"

    def register(self, path: Path, iteration: int) -> None:
        """Name a file that is on the disk in the manifest, then delete what the manifest no longer names.

        That is what exceeds ``keep``, and later checkpoints where a run went on from an older one.
        """
        before = self.entries()
        named = [e for e in before if e["iteration"] < iteration]
        named.append({"file": path.name, "iteration": iteration, "sha256": sha256_of(path)})
        named = named[-self.keep :]
        write_json(self.folder / MANIFEST, {"format": 1, "checkpoints": named})
        for file in {e["file"] for e in before} - {e["file"] for e in named}:
            (self.folder / file).unlink(missing_ok=True)

    def newest_whole(self) -> Path | None:
        """The newest checkpoint whose content matches its hash, saying what had to be passed over."""
        entries = self.entries()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            if path.is_file() and sha256_of(path) == entry["sha256"]:
                return path
            log.warning(
                "checkpoint %s is %s; falling back to the one before",
                path,
                "damaged (its hash does not match)" if path.is_file() else "missing",
            )
        if entries:
            raise UserError(
                f"none of the {len(entries)} checkpoints in {self.folder} is whole; start over with resume=false."
            )
        return None

    def verified(self, path: Path) -> Path:
        """A checkpoint the user named, checked against the manifest of its folder."""
        for entry in self.entries():
            if entry["file"] == path.name:
                if not path.is_file():
                    raise UserError(f"checkpoint {path} is missing, though {self.folder / MANIFEST} lists it.")
                if sha256_of(path) != entry["sha256"]:
                    raise UserError(f"checkpoint {path} is damaged: its hash does not match {self.folder / MANIFEST}.")
                return path
        raise UserError(f"checkpoint {path} is not listed in {self.folder / MANIFEST}; resume=RUN takes a run folder.")

    def last_good(self) -> str:
        """Where the newest listed checkpoint is, for messages."""
        entries = self.entries()
        return str(self.folder / entries[-1]["file"]) if entries else "none was saved yet"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's reader and writer of checkpoints, made atomic and free of pickled code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the checkpoint atomically (see :func:`write_atomically`)."""
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint to the CPU, tensors and plain containers only."""
        return torch.load(path, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint file."""
        Path(path).unlink(missing_ok=True)
