"""SIGTERM and SIGINT become a request; the second one acts at once."""

import os
import signal

import pytest
import torch

from disback_cli.runtime.signals import EXIT_CODES, StopRequest

NUMBERS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def caught():
    """Handlers that note what gets through, in place of those that would end the tests."""
    found: list[int] = []
    before = {number: signal.signal(number, lambda n, _: found.append(n)) for number in NUMBERS}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_first_signal_is_noted_and_goes_no_further(caught, number):
    request = StopRequest()
    request.install()
    assert request.agreed(torch.device("cpu")) == 0
    os.kill(os.getpid(), number)
    assert request.agreed(torch.device("cpu")) == number
    assert caught == []
    request.uninstall()


def test_second_signal_ends_the_process_at_once(caught):
    request = StopRequest()
    request.install()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGINT)
    assert ended.value.code == EXIT_CODES[signal.SIGINT]
    assert caught == []
    request.uninstall()


def test_signal_after_the_last_save_ends_the_process_at_once(caught):
    request = StopRequest()
    request.install()
    request.leave_at_once()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == EXIT_CODES[signal.SIGTERM]
    request.uninstall()


@pytest.mark.parametrize("number", NUMBERS)
def test_uninstalling_gives_the_signals_back(caught, number):
    request = StopRequest()
    request.install()
    request.uninstall()
    os.kill(os.getpid(), number)
    assert caught == [number]
    assert request.received == 0


def test_every_rank_learns_of_a_signal_to_any(monkeypatch):
    request = StopRequest()
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flag, op: flag.clamp_(min=int(signal.SIGTERM)))
    assert request.agreed(torch.device("cpu")) == signal.SIGTERM


def test_exit_codes_are_those_of_a_process_that_the_signal_ended():
    assert all(code == 128 + number for number, code in EXIT_CODES.items())
