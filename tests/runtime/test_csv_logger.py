"""The metrics file: growing columns, going back, surviving a torn line."""

import builtins
import math
import os

import pytest

from disback_cli.errors import UserError
from disback_cli.runtime import csv_logger
from disback_cli.runtime.csv_logger import CsvLogger, read_metrics


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "metrics.csv"


def test_rows_come_back_as_they_were_to_the_last_bit(file):
    logger = CsvLogger(file)
    rows = [{"loss": 0.1 + 0.2, "images": 16}, {"loss": 1e-300, "images": 2**40}, {"loss": math.inf, "images": 48}]
    for step, row in enumerate(rows, start=1):
        logger.log_metrics(row, step)
    assert read_metrics(file) == [{"iteration": step, **row} for step, row in enumerate(rows, start=1)]


def test_whole_numbers_are_written_without_a_point(file):
    CsvLogger(file).log_metrics({"images": 160.0, "loss": 0.5}, 10)
    assert file.read_text().splitlines() == ["iteration,images,loss", "10,160,0.5"]


def test_columns_grow_and_earlier_rows_keep_empty_cells(file):
    logger = CsvLogger(file)
    logger.log_metrics({"loss": 1.5}, 1)
    logger.log_metrics({"loss": 0.5, "fid": 30.25}, 2)
    logger.log_metrics({"fid": 20.5}, 3)
    assert file.read_text().splitlines() == ["iteration,loss,fid", "1,1.5,", "2,0.5,30.25", "3,,20.5"]
    assert read_metrics(file)[0] == {"iteration": 1, "loss": 1.5}


def test_rewinding_drops_later_rows_and_new_rows_follow(file):
    logger = CsvLogger(file)
    for step in range(1, 6):
        logger.log_metrics({"loss": float(step)}, step)
    resumed = CsvLogger(file)
    resumed.rewind(3)
    assert [row["iteration"] for row in read_metrics(file)] == [1, 2, 3]
    resumed.log_metrics({"loss": -4.0}, 4)
    assert [row["loss"] for row in read_metrics(file)] == [1, 2, 3, -4]
    resumed.rewind(-1)
    assert read_metrics(file) == []


def test_rewinding_forgets_columns_that_only_later_rows_had(file):
    logger = CsvLogger(file)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"loss": 1.0, "fid": 3.0}, 2)
    resumed = CsvLogger(file)
    resumed.rewind(1)
    resumed.log_metrics({"loss": 1.0, "fid": 3.0}, 2)
    assert file.read_text().splitlines() == ["iteration,loss,fid", "1,1,", "2,1,3"]


def test_absent_file_has_no_rows_and_rewinding_makes_none(file):
    CsvLogger(file).rewind(5)
    assert read_metrics(file) == []
    assert not file.exists()


@pytest.mark.parametrize("torn", ["3,0.", "3,1e-", "3"])
def test_torn_last_line_is_no_row(file, torn):
    logger = CsvLogger(file)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"loss": 0.5}, 2)
    with open(file, "a") as stream:
        stream.write(torn)
    assert [row["iteration"] for row in read_metrics(file)] == [1, 2]
    resumed = CsvLogger(file)
    resumed.rewind(2)
    resumed.log_metrics({"loss": 0.25}, 3)
    assert read_metrics(file)[-1] == {"iteration": 3, "loss": 0.25}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk_is_a_message(file, monkeypatch):
    logger = CsvLogger(file)
    logger.log_metrics({"loss": 1.0}, 1)
    real = builtins.open
    monkeypatch.setattr(csv_logger, "open", lambda _, *rest, **more: real("/dev/full", *rest, **more), raising=False)
    with pytest.raises(UserError, match="could not write .*No space left on device"):
        logger.log_metrics({"loss": 1.0}, 2)
