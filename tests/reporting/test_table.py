"""The table with which a verb ends."""

import pytest

from disback_cli.reporting.table import format_number, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (999.96, "1000"),
        (1234.5, "1,234"),
        (-98765.4, "-98,765"),
        (7, "7"),
        (50000, "50000"),
        (1e-7, "1e-07"),
        (0.0, "0"),
        (None, "-"),
        ("teacher", "teacher"),
    ],
)
def test_numbers_have_four_significant_digits(value, text):
    assert format_number(value) == text


def test_columns_are_aligned_names_left_numbers_right():
    text = table(["generator", "fid_2k"], [["teacher", 0.12], ["distilled student", 1234.0], ["x", None]])
    assert text.splitlines() == [
        "generator          fid_2k",
        "-----------------  ------",
        "teacher              0.12",
        "distilled student   1,234",
        "x                       -",
    ]


def test_all_lines_are_equally_long_whatever_is_longest():
    for rows in ([["a", 1.0, 2]], [["a much longer name", 123456.0, None], ["b", 1e-12, 4]], []):
        lines = table(["name", "a long heading", "n"], rows).splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len(lines) == len(rows) + 2


def test_ragged_rows_are_refused():
    with pytest.raises((ValueError, IndexError)):
        table(["a", "b"], [["x"]])
