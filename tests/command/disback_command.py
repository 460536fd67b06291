"""The installed ``disback`` as a process: in a folder of its own, held at an iteration when a test wants to step in."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

DISBACK = Path(sys.executable).parent / "disback"
PATIENCE = 240.0  # seconds; a job takes ten on an idle machine

Done = subprocess.CompletedProcess[str]
T = TypeVar("T")

BATCH = 32
ITERATIONS = 24
SAVE_EVERY = 8
RECORD = (
    "record", "teacher=gmm_2d", f"iterations={ITERATIONS}", f"batch_size={BATCH}", "nodes=3", "spacing=steps",
    f"checkpoint.every={SAVE_EVERY}", "log_every=3",
)  # fmt: skip
# what backtrack takes over from a recording is left out: teacher, student, noise
BACKTRACK = (
    "backtrack", f"iterations={ITERATIONS}", f"batch_size={BATCH}", "schedule.interval=5",
    f"checkpoint.every={SAVE_EVERY}", "log_every=3", f"evaluate.every={8 * BATCH}", "metrics.n=256",
)  # fmt: skip
TWO_PROCESSES = ("trainer=ddp", "trainer.devices=2")
# a noise law of the user's own, in a module beside which the command is typed, that waits where it is told to
HOLDS = "noise.fake._target_=own_classes.HoldingLogNormal"

OWN_CLASSES = '''\
"""Classes of a user's own, named by _target_."""

import os
import time
from pathlib import Path

import torch

from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.sigma_laws import LogNormal


class HoldingLogNormal(LogNormal):
    """Waits before its HOLD_AT-th draw for a training batch for as long as the file HOLD_FILE is there."""

    def __init__(self, *, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__(mean=mean, std=std)
        self.draws = 0

    def quantile(self, u):
        self.draws += len(u) <= 32  # the recording's probe draws more
        if self.draws == int(os.environ.get("HOLD_AT", "-1")):
            hold = Path(os.environ["HOLD_FILE"])
            hold.with_name(f"held.{os.environ.get('LOCAL_RANK', '0')}").touch()
            while hold.exists():
                time.sleep(0.02)
        return super().quantile(u)


class Spoilt(DiffInstruct):
    """Not a number from iteration ``at`` on."""

    def __init__(self, *, at: int) -> None:
        self.at, self.calls = at, 0

    def direction(self, x, noisy, sigma, fake, target):
        self.calls += 1
        found = super().direction(x, noisy, sigma, fake, target)
        return found * torch.nan if self.calls > self.at else found
'''

# A module that Python imports at its start: dies in the middle of saving, or lacks a package.
SITECUSTOMIZE = """\
import os
import signal

if "DIE_BEFORE_RENAMING" in os.environ:
    rename = os.replace

    def replace(source, target, **options):
        if str(target).endswith(os.environ["DIE_BEFORE_RENAMING"]):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **options)

    os.replace = replace

if "NOT_INSTALLED" in os.environ:
    import importlib.util

    find = importlib.util.find_spec

    def find_spec(name, package=None):
        return None if name == os.environ["NOT_INSTALLED"] else find(name, package)

    importlib.util.find_spec = find_spec
"""


@dataclass
class Held:
    """A command that waits before an iteration, until :meth:`release` or a signal that cannot be handled."""

    process: subprocess.Popen[str]
    hold: Path

    def release(self) -> Done:
        """Let it go on, and wait for its end."""
        self.hold.unlink(missing_ok=True)
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return Done(self.process.args, self.process.returncode, out, err)

    def end_by(self, number: int, whole_group: bool = False) -> Done:
        """Send a signal to the command, or as a terminal does to all its processes, and wait for its end."""
        os.killpg(self.process.pid, number) if whole_group else self.process.send_signal(number)
        return self.release()


@dataclass
class Workplace:
    """A folder in which ``disback`` is typed."""

    folder: Path
    environment: dict[str, str]
    held: int = field(default=0)

    def prepare(self) -> Workplace:
        """Put the user's own classes there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "own_classes.py").write_text(OWN_CLASSES)
        (self.folder / "site").mkdir(exist_ok=True)
        (self.folder / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
        return self

    def start(self, *words: str, program: tuple[str, ...] = (), **variables: str) -> subprocess.Popen[str]:
        """Start ``disback <words>`` in a process group of its own."""
        return subprocess.Popen(
            [*(program or (str(DISBACK),)), *words],
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str, program: tuple[str, ...] = (), **variables: str) -> Done:
        """Run ``disback <words>`` to its end."""
        return Held(self.start(*words, program=program, **variables), Path("/nonexistent")).release()

    def hold(self, *words: str, before_draw: int, processes: int = 1, **variables: str) -> Held:
        """Start a command and wait until all its processes stand before a draw of their law (see HOLDS)."""
        self.held += 1
        place = self.folder / f"hold{self.held}"
        place.mkdir()
        (place / "hold").touch()
        process = self.start(*words, HOLD_AT=str(before_draw), HOLD_FILE=str(place / "hold"), **variables)
        held = Held(process, place / "hold")
        deadline = time.monotonic() + PATIENCE
        while len(list(place.glob("held.*"))) < processes:
            if process.poll() is not None or time.monotonic() > deadline:
                done = held.release()
                raise AssertionError(f"never came to iteration {before_draw}:\n{done.stdout}\n{done.stderr}")
            time.sleep(0.02)
        return held

    def with_site(self, **variables: str) -> dict[str, str]:
        """Variables for a command that imports our ``sitecustomize``."""
        return {"PYTHONPATH": str(self.folder / "site")} | variables

    def runs(self, verb: str, root: str = "runs") -> list[Path]:
        """The run folders of a verb, oldest first."""
        return sorted(
            (file.parent for file in (self.folder / root / verb).glob("*/*/run.json")),
            key=lambda run: str(json.loads((run / "run.json").read_text())["created"]),
        )

    def run_of(self, verb: str, root: str = "runs") -> Path:
        """The only run folder of a verb."""
        (run,) = self.runs(verb, root)
        return run


def together(*calls: Callable[[], T]) -> list[T]:
    """Results of the calls, two at a time: the jobs are processes, and there are two cores."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def living(group: int) -> list[int]:
    """The processes of a group that still run; one that has ended may wait for ever to be asked how."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def succeeded(done: Done) -> Done:
    """The finished command, if it ended well."""
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def refused(done: Done, *texts: str, code: int = 2) -> None:
    """A message for people: these texts in it, an exit code, no traceback."""
    assert done.returncode == code, (done.args, done.returncode, done.stderr)
    for text in texts:
        assert text in done.stderr, (done.args, text, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "Logging error" not in done.stderr, done.stderr


def state_of(run: Path) -> str:
    """The state in ``run.json``."""
    return str(json.loads((run / "run.json").read_text())["state"])


def load(file: Path) -> Any:
    """A JSON file."""
    return json.loads(file.read_text())


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv``."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(run: Path, iteration: int = ITERATIONS) -> Any:
    """A checkpoint's content."""
    return torch.load(run / "checkpoints" / f"iteration_{iteration:08d}.ckpt", weights_only=True)


# wall times: the only numbers that two runs of the same thing do not share
_TIMES = ("seconds", "samples_per_second")


def difference(a: Any, b: Any, rtol: float = 0.0, place: str = "") -> str | None:
    """Where two checkpoints differ, None where they do not; ``rtol=0`` compares bits."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"{place}: keys {sorted(map(str, a.keys() ^ b.keys()))}"
        return _first(difference(a[key], b[key], rtol, f"{place}/{key}") for key in a if key not in _TIMES)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{place}: {len(a)} and {len(b)} items"
        return _first(difference(x, y, rtol, f"{place}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        if same and rtol and a.is_floating_point():
            same = torch.allclose(a, b, rtol=rtol, atol=rtol * float(a.abs().mean() if a.numel() else 0.0))
        elif same:
            same = torch.equal(a, b)
        return None if same else f"{place}: tensors differ"
    if isinstance(a, float) and isinstance(b, float) and rtol:
        return None if math.isclose(a, b, rel_tol=rtol) else f"{place}: {a} and {b}"
    return None if type(a) is type(b) and a == b else f"{place}: {a!r} and {b!r}"


def _first(found: Any) -> str | None:
    return next((item for item in found if item is not None), None)


def node_hashes(run: Path) -> list[str]:
    """The hashes of a recording's nodes."""
    return [node["sha256"] for node in load(run / "path" / "path.json")["nodes"]]


def rows_without_times(run: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` as written, wall times left out."""
    return [{name: cell for name, cell in row.items() if name not in _TIMES} for row in rows(run)]


def assert_same_result(run: Path, reference: Path) -> None:
    """Everything two runs leave is the same, bit for bit."""
    assert difference(checkpoint(run), checkpoint(reference)) is None
    assert rows_without_times(run) == rows_without_times(reference)
    if (reference / "path").is_dir():
        assert node_hashes(run) == node_hashes(reference)
        for file in (reference / "path").glob("*.safetensors"):
            assert (run / "path" / file.name).read_bytes() == file.read_bytes()
    if (reference / "student").is_dir():
        name = "student/model.safetensors"
        assert (run / name).read_bytes() == (reference / name).read_bytes()
        assert load(run / "summary.json")["metrics"] == load(reference / "summary.json")["metrics"]
    assert state_of(run) == "finished"
    assert leftovers(run) == []


def leftovers(folder: Path) -> list[Path]:
    """Temporary files of an interrupted write."""
    return [file for file in folder.rglob(".*") if file.is_file()]
