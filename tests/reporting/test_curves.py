"""Curves drawn from a metrics file."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from disback_cli.reporting.curves import draw_curves
from disback_cli.runtime.csv_logger import CsvLogger

ROWS = [
    {"images": 16, "fid_2k": 30.0},
    {"images": 32, "fake_loss": 0.5, "mismatch": 0.9, "target_node": 1, "sample_diversity": 0.5},
    {"images": 48, "fake_loss": 0.4, "mismatch": 0.2, "target_node": 0, "sample_diversity": 0.4, "fid_2k": 3.0},
]


def write(file, rows=ROWS):
    logger = CsvLogger(file)
    for step, row in enumerate(rows, start=1):
        logger.log_metrics(row, step)
    return file


def picture(file, **options) -> Image.Image:
    draw_curves(file, file.with_suffix(".png"), **options)
    with Image.open(file.with_suffix(".png")) as image:
        return image.convert("RGB")


def test_picture_has_a_panel_a_metric_three_in_a_row(tmp_path):
    one = picture(write(tmp_path / "one.csv", [{"loss": 1.0}, {"loss": 0.5}]))
    four = picture(write(tmp_path / "four.csv"))
    assert four.width == pytest.approx(3 * one.width, abs=3)
    assert four.height == pytest.approx(2 * one.height, abs=3)
    assert one.getextrema() != ((255, 255),) * 3


def test_switches_and_the_teachers_level_are_marked(tmp_path):
    file = write(tmp_path / "x.csv", [{"fid_2k": 30.0}, {"fid_2k": 9.0}, {"fid_2k": 3.0}])
    plain = picture(file).tobytes()
    assert picture(file).tobytes() == plain
    assert picture(file, switches=[(2, 0)]).tobytes() != plain
    assert picture(file, switches=[(0, 2)]).tobytes() == plain
    assert picture(file, teacher={"fid_2k": 2.0}).tobytes() != plain
    assert picture(file, teacher={"swd_2k": 2.0}).tobytes() == plain


def test_single_rows_and_values_that_are_not_positive_are_drawn(tmp_path):
    rows = [{"loss": 0.0}, {"loss": -1.0, "is_2k": 1.0, "is_std_2k": 0.0, "swd_2k": 0.1}]
    three, one = picture(write(tmp_path / "x.csv", rows)), picture(write(tmp_path / "y.csv", rows[:1]))
    assert three.width > 2 * one.width


@pytest.mark.parametrize("rows", [[], [{"images": 16.0}]], ids=["no file", "no metric"])
def test_nothing_to_draw_is_no_picture(tmp_path, rows):
    file = write(tmp_path / "x.csv", rows)
    draw_curves(file, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_no_title_is_wider_than_its_panel(tmp_path, monkeypatch):
    widths = {}

    def measure(figure, *_, **__):
        renderer = figure.canvas.get_renderer()
        figure.draw(renderer)
        for axes in figure.axes:
            box = axes.title.get_window_extent(renderer)
            widths[axes.get_title()] = (box.x0, figure.bbox.width - box.x1)

    monkeypatch.setattr(Figure, "savefig", measure)
    for name in ("mismatch", "teacher_loss_ratio", "regression_loss", "adversarial_loss", "swd_50k"):
        values = [0.00121, 0.00122]  # wide tick labels push the panel to the right
        rows = [{name: v} | ({"mismatch_teacher": v} if name == "mismatch" else {}) for v in values]
        draw_curves(write(tmp_path / f"{name}.csv", rows), tmp_path / "x.png")
    assert "mismatch of the fake score (mismatch)" in widths and len(widths) == 5
    assert all(min(margins) >= 0 for margins in widths.values()), widths
