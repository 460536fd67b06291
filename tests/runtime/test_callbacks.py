"""What happens around the iterations, in a real Trainer."""

import os
import signal

import pytest
import torch

from disback_cli.evaluation.callback import Evaluation
from disback_cli.runtime.callbacks import Publish, Saving, Stopping, Telemetry, health_interval
from disback_cli.runtime.checkpoint import CheckpointStore
from disback_cli.runtime.csv_logger import CsvLogger, read_metrics
from disback_cli.runtime.signals import StopRequest


def run(fit, stage, folder, *, every=2, save_every=100, also_at=frozenset(), checkpoint=None, before=()):
    """A stage with the callbacks in the order of a run."""
    telemetry = Telemetry(every)
    store = CheckpointStore(folder / "checkpoints", keep=100)
    saving = Saving(store, save_every, also_at)
    stopping = Stopping(StopRequest(), saving)
    logger = CsvLogger(folder / "metrics.csv")
    fit(stage, telemetry, *before, Publish(telemetry), saving, stopping, loggers=(logger,), checkpoint=checkpoint)
    return store, stopping


def test_rows_hold_the_means_since_the_last_row_on_the_axis_of_our_counter(make_stage, fit, tmp_path):
    run(fit, make_stage(iterations=7), tmp_path, every=3)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["iteration"] for row in rows] == [3, 6, 7]
    assert [row["images"] for row in rows] == [12, 24, 28]
    assert [row["iteration_plus_one"] for row in rows] == [2, 5, 7]


def test_checkpoints_come_at_the_interval_at_the_extra_steps_and_at_the_end_once(make_stage, fit, tmp_path):
    store, _ = run(fit, make_stage(iterations=7), tmp_path, save_every=3, also_at=frozenset({1, 6, 7}))
    assert [entry["iteration"] for entry in store.entries()] == [1, 3, 6, 7]


@pytest.mark.parametrize("at", [1, 3, 4])
def test_resumed_run_writes_the_metrics_of_the_uninterrupted_one_to_the_digit(make_stage, fit, tmp_path, at):
    run(fit, make_stage(iterations=7), tmp_path / "whole", every=2)
    store, _ = run(fit, make_stage(iterations=7), tmp_path / "parts", every=2, also_at=frozenset({at}))
    run(fit, make_stage(iterations=7), tmp_path / "parts", every=2, checkpoint=store.path_for(at))
    parts, whole = (read_metrics(tmp_path / name / "metrics.csv") for name in ("parts", "whole"))
    for row in (*parts, *whole):
        del row["seconds"]
    assert parts == whole
    assert len(whole) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_the_iteration_it_came_in_and_the_rest_gives_the_same_result(make_stage, fit, tmp_path, number):
    def interrupt(iteration, loss):
        if iteration == 2:
            os.kill(os.getpid(), number)
        return loss

    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    stage, whole = make_stage(spoil=interrupt), make_stage()
    store, stopping = run(fit, stage, tmp_path)
    assert stopping.stopped_by == number
    assert stage.iteration == 3
    assert [entry["iteration"] for entry in store.entries()] == [3]
    assert {n: signal.getsignal(n) for n in handlers} == handlers
    fit(whole)
    rest = make_stage()
    _, stopping = run(fit, rest, tmp_path, checkpoint=store.newest_whole())
    assert stopping.stopped_by == 0
    assert torch.equal(rest.line.weight, whole.line.weight)
    assert [row["iteration"] for row in read_metrics(tmp_path / "metrics.csv")] == [2, 4, 6]


def test_signal_in_the_last_iteration_lets_the_run_finish(make_stage, fit, tmp_path):
    def interrupt(iteration, loss):
        if iteration == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    _, stopping = run(fit, make_stage(spoil=interrupt), tmp_path)
    assert stopping.stopped_by == 0


def test_error_inside_the_loop_gives_the_signals_back(make_stage, fit, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def fail(iteration, loss):
        assert signal.getsignal(signal.SIGTERM) != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fit, make_stage(spoil=fail), tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


class Diversity(Telemetry):
    """Stands for a stage that reports one."""

    def __init__(self, values) -> None:
        super().__init__(1, collapse_below=0.1)
        self.values = iter(values)

    def after_iteration(self, trainer, stage) -> None:
        self.row["sample_diversity"] = next(self.values)
        super().after_iteration(trainer, stage)


def test_collapse_is_warned_of_once(make_stage, fit, messages):
    fit(make_stage(), Diversity([0.5, 0.09, 0.05, 0.5, 0.05, 0.01]))
    assert messages().count("collapsed") == 1
    assert "iteration 2" in messages()


def test_diverse_samples_are_no_collapse(make_stage, fit, messages):
    fit(make_stage(), Diversity([0.5, 0.1, 0.2, 0.5, 0.3, 0.11]))
    assert "collapsed" not in messages()


def test_health_is_looked_at_every_iteration_where_that_is_free():
    assert health_interval(torch.device("cpu"), 50) == 1
    assert health_interval(torch.device("cuda"), 50) == 50


@pytest.mark.parametrize(("every", "drawn"), [(8, [0, 2, 4, 6, 7]), (0, [0, 7])])
def test_pictures_are_drawn_where_nothing_is_measured(make_stage, fit, tmp_path, every, drawn):
    asked = []

    def sampler(first, count):
        asked.append((first, count))
        return torch.zeros(count, 1, 8, 8)

    stage = make_stage(iterations=7)
    evaluation = Evaluation(
        sampler, None, every=every, batch_size=1, telemetry=Telemetry(1), folder=tmp_path, grid=40
    )  # fmt: skip
    fit(stage, evaluation)
    assert sorted(int(file.stem.split("_")[1]) for file in tmp_path.glob("*.png")) == drawn
    assert asked[:3] == [(0, 16), (16, 16), (32, 8)], "a picture is drawn few samples at a time"
    assert evaluation.latest is None
