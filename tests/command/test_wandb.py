"""``logger=wandb`` without a key and without a network."""

from __future__ import annotations

import signal
from pathlib import Path

from disback_command import BACKTRACK, HOLDS, Workplace, load, rows, succeeded


def test_an_offline_run_that_is_continued(workplace: Workplace, recorded: Path) -> None:
    words = (*BACKTRACK, f"path={recorded}", "logger=wandb", HOLDS)
    done = workplace.hold(*words, before_draw=10).end_by(signal.SIGTERM)
    assert done.returncode == 143, done.stderr
    assert "W&B: no key found" in done.stderr and "wandb sync" in done.stderr
    run = workplace.run_of("backtrack")
    identity = load(run / "wandb_id.json")["id"]
    assert len(list((run / "wandb").glob(f"offline-run-*-{identity}"))) == 1

    succeeded(workplace("backtrack", "resume=auto"))
    assert load(run / "wandb_id.json")["id"] == identity
    parts = sorted((run / "wandb").glob("offline-run-*"))
    assert parts and all(part.name.endswith(identity) for part in parts), "one run"
    assert not (workplace.folder / "wandb").exists(), "everything is in the run's folder"
    content = b"".join(file.read_bytes() for part in parts for file in part.glob(f"run-{identity}.wandb"))
    assert len(content) > 5000
    for name in (b"generator_loss", b"fid_256", b"swd_256", b"images", b"schedule", b"sigma_init", b"backtrack"):
        assert name in content, name
    pictures = [file for part in parts for file in part.rglob("*.png")]
    assert len(pictures) >= len([row for row in rows(run) if row["fid_256"]])
