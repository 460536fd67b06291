"""The table of the small benchmarks: runs that never arrive are neither dropped nor called infinite."""

from benchmarks.compare import summarise
from disback_cli.reporting.comparison.curve import Curve


def curve(variant: str, seed: int, *quality: float) -> Curve:
    updates = tuple(100 * at for at in range(len(quality)))
    return Curve(variant, seed, updates, tuple(1000.0 * at for at in updates), quality)


def test_times_to_quality_are_bounds_where_a_run_never_arrives() -> None:
    curves = [
        curve("both", 0, 9.0, 1.0, 1.0), curve("both", 1, 9.0, 9.0, 1.0),
        curve("one", 0, 9.0, 1.0, 1.0), curve("one", 1, 9.0, 9.0, 9.0),
        curve("none", 0, 9.0, 9.0, 9.0), curve("none", 1, 9.0, 9.0, 9.0),
    ]  # fmt: skip
    table = [[cell.strip() for cell in line.strip("| ").split("|")] for line in summarise("gmm_2d", curves)[4:-1]]
    # 4 is met 5/8 of the way from 9 to 1, 1.5 at 7.5/8
    assert [row[:1] + row[2:] for row in table] == [
        ["both", "112 (62.5 – 162)", "144 (93.8 – 194)", "112 (62.5 – 162)", "144 (93.8 – 194)"],
        ["one", "≥ 131, reached by 1 of 2", "≥ 147, reached by 1 of 2"] + ["≥ 131, reached by 1 of 2"]
        + ["≥ 147, reached by 1 of 2"],
        ["none", "never within 200 (0 of 2)", "never within 200 (0 of 2)"] + 2 * ["never within 200 (0 of 2)"],
    ]  # fmt: skip
