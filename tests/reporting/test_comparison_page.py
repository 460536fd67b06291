"""The comparison as a whole: numbers, page, pictures, files."""

import base64
import io
import json
import re

import pytest
from comparison_runs import BATCH, COST, RECORDING_PASSES, write_recording, write_run
from PIL import Image

from disback_cli.errors import UserError
from disback_cli.reporting.comparison import output
from disback_cli.reporting.comparison.charts import COLOURS, quality_chart, style
from disback_cli.reporting.comparison.comparison import Wishes, compare
from disback_cli.reporting.comparison.curve import Curve
from disback_cli.reporting.comparison.machine import as_json
from disback_cli.reporting.comparison.page import page
from disback_cli.reporting.comparison.wording import console, telling_level

PASSES = COST * BATCH
ALONG = {
    "mismatch": [1.0, 0.5, 0.2, 0.1],
    "mismatch_teacher": [2.0, 1.0, 0.5, 0.1],
    "target_node": [1.0, 0.0, 0.0, 0.0],
}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Two seeds of path, which reaches 5 at update 5 and 15, and of endpoint, whose seed 1 never does."""
    monkeypatch.chdir(tmp_path)
    job = 0
    for seed, (walked, straight) in enumerate([([10, 0.5, 1, 1], [10, 10, 1, 1]), ([10, 10, 0.5, 1], [10, 9, 9, 9])]):
        path = write_recording(tmp_path / f"record{seed}", seed)
        for schedule, quality in (("path", walked), ("endpoint", straight)):
            write_run(tmp_path / "sweep" / str(job), quality, seed=seed, schedule=schedule, path=path, grids=True,
                      extra=ALONG if schedule == "path" else None)  # fmt: skip
            job += 1
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    return tmp_path / "sweep"


def races(found, level, axis):
    (report,) = found.numbers
    return [report.races[level, axis, i] for i in range(len(found.variants))]


def test_time_to_quality_and_speed_up_with_a_run_that_never_arrives(sweep):
    found = compare([str(sweep)], Wishes(levels=((None, 5.25),)))
    assert [v.label for v in found.variants] == ["schedule=path", "schedule=endpoint"] and found.baselines == (1, 1)
    walked, straight = races(found, 5.25, "updates")
    assert walked.arrivals.times == (5.0, 15.0) and walked.arrivals.complete
    assert straight.arrivals.times == (pytest.approx(10 + 10 * 4.75 / 9), 30.0)
    assert straight.arrivals.reached == (True, False) and straight.speed_up is None
    assert walked.speed_up.kind == "at least" and walked.speed_up.high is None
    assert walked.speed_up.value == pytest.approx(straight.arrivals.mean / 10)
    by_passes = races(found, 5.25, "passes")[0].arrivals
    assert by_passes.times == (RECORDING_PASSES + 5 * PASSES, RECORDING_PASSES + 15 * PASSES)


def test_the_machine_form_says_the_same(sweep):
    found = compare([str(sweep)], Wishes(levels=(("fid_2k", 5.25),)))
    told = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert [v["label"] for v in told["variants"]] == ["schedule=path", "schedule=endpoint"]
    number = told["numbers"]["fid_2k"]
    assert 5.25 in number["levels"] and number["smaller_is_better"] is True
    (race,) = [r for r in number["time_to_quality"] if (r["level"], r["axis"]) == (5.25, "updates") and r["speed_up"]]
    assert race["times"] == [5.0, 15.0] and race["reached"] == [True, True] and race["mean_is_bound"] is False
    assert race["speed_up"]["kind"] == "at least" and race["speed_up"]["high"] is None
    assert {d["key"] for d in told["differences"]} == {"schedule._target_", "path"}
    assert told["bootstrap"] == {"resamples": 10000, "seed": 0, "confidence": 0.95}
    assert [end["collapsed"] for end in number["end"]] == [[], []]


def test_the_page_needs_nothing_but_itself_and_has_all_pictures(sweep):
    found = compare([str(sweep)], Wishes())
    pictures = output.pictures_of(found)
    # the endpoint's runs have no columns for the mismatch
    assert set(pictures) == {
        "fid_2k_updates.png", "fid_2k_passes.png", "fid_2k_seconds.png", "mismatch_1.png", "mismatch_teacher.png",
        "samples_updates_1.png", "samples_updates_2.png", "samples_passes_1.png", "samples_passes_2.png",
    }  # fmt: skip
    text = page(found, pictures)
    shown = re.findall(r'src="([^"]*)"', text)
    around = re.sub(r'src="[^"]*"', "", text)
    assert not re.search(r"https?:|//[a-z]|<script|<link|<iframe|@import|url\(|src", around, re.IGNORECASE)
    assert len(shown) == len(pictures) and all(source.startswith("data:image/png;base64,") for source in shown)
    assert {base64.b64decode(source.split(",", 1)[1]) for source in shown} == set(pictures.values())
    for content in pictures.values():
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
    assert "reached by 1 of 2" in text and "schedule=endpoint" in text
    assert "Not in metrics.csv of these runs, and so left out: teacher_loss_ratio" in text


def test_names_from_outside_are_text_on_the_page(sweep, tmp_path):
    write_run(tmp_path / "sweep" / "9", [10, 3, 2, 1], words=["objective=<b>&"], config={"x": "<i>"})
    text = page(compare([str(sweep)], Wishes()), {})
    assert "<b>&" not in text and "<i>" not in text and "&lt;b&gt;&amp;" in text


def test_grids_at_equal_budget(sweep):
    updates, passes = compare([str(sweep)], Wishes()).budgets
    assert (updates.budget, [grid.iteration for grid in updates.grids]) == (30.0, [30, 30])
    assert passes.budget == 30 * PASSES
    # the recording of 1000 passes costs path its last grid
    assert [(g.iteration, g.spent) for g in passes.grids] == [(20, RECORDING_PASSES + 20 * PASSES), (30, 30 * PASSES)]
    assert all(grid.seed == 0 and grid.picture.is_file() for grid in (*updates.grids, *passes.grids))


def test_a_recording_dearer_than_the_others_whole_run_has_no_samples_in_the_budget(tmp_path):
    path = write_recording(tmp_path / "record")
    write_run(tmp_path / "all" / "0", [10, 9, 8, 7], schedule="path", path=path, grids=True)
    write_run(tmp_path / "all" / "1", [10], schedule="endpoint", grids=True)
    _, passes = compare([str(tmp_path / "all")], Wishes()).budgets
    assert passes.budget == 0 and passes.without == (0,) and [grid.variant for grid in passes.grids] == [1]


def test_files_are_replaced_and_leftovers_removed(sweep, monkeypatch):
    drawn = {"fid_2k_passes.png": b"new", "mismatch_1.png": b"new"}
    monkeypatch.setattr(output, "pictures_of", lambda _: dict(drawn))
    found = compare([str(sweep)], Wishes())
    folder = output.default_folder(found)
    assert folder == sweep / "compare"
    assert output.write(found, folder) == folder / "index.html"
    assert {file.name for file in folder.iterdir()} == {*drawn, "index.html", "compare.json"}
    stored = json.loads((folder / "compare.json").read_text())
    assert stored == json.loads(json.dumps(as_json(found))) | {"pictures": sorted(drawn)}
    del drawn["mismatch_1.png"]
    output.write(compare([str(sweep / "1")], Wishes()), folder)
    assert {file.name for file in folder.iterdir()} == {*drawn, "index.html", "compare.json"}
    assert compare([str(sweep)], Wishes()).home == sweep  # the page's own folder is no run of the sweep


def test_folders_of_others_are_left_alone(sweep, tmp_path):
    found = compare([str(sweep / "0"), str(sweep / "1")], Wishes())
    assert re.fullmatch(r"compare/gmm_2d-2runs-[0-9a-f]{6}", str(output.default_folder(found)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    for place in ("mine", "mine/letter.txt"):
        with pytest.raises(UserError, match="name a folder"):
            output.write(found, tmp_path / place)


def test_numbers_that_grow_and_a_wished_number_first(tmp_path):
    extra = {"is_2k": [1.0, 5.0, 9.0], "is_std_2k": [0.1, 0.1, 0.1], "fake_loss": [1.0, 1.0, 1.0]}
    write_run(tmp_path / "run", [9, 3, 1], extra=extra)
    assert [r.name for r in compare([str(tmp_path / "run")], Wishes()).numbers] == ["fid_2k", "is_2k"]
    found = compare([str(tmp_path / "run")], Wishes(number="is_2k", levels=((None, 7.0), ("fid_2k", 2.0))))
    first, second = found.numbers
    assert (first.name, first.races[7.0, "updates", 0].arrivals.times) == ("is_2k", (15.0,))
    assert list(first.levels) == sorted(first.levels) and list(second.levels) == sorted(second.levels, reverse=True)
    assert 2.0 in second.levels and 2.0 not in first.levels
    with pytest.raises(UserError, match="--number kid_2k: measured were fid_2k, is_2k"):
        compare([str(tmp_path / "run")], Wishes(number="kid_2k"))


def test_notes_tell_what_is_missing(tmp_path):
    write_run(tmp_path / "all" / "0", [9, 3, 1])
    write_run(tmp_path / "all" / "1", [9, 3], seed=1, state="failed", config={"iterations": 20})
    write_run(tmp_path / "all" / "2", [9, 3, 1], seed=2, columns=False)
    write_run(tmp_path / "all" / "3", [9, 3, 1], seed=3, number="fake_loss", measured=None)
    write_run(tmp_path / "all" / "4", [], seed=4, state="running")
    found = compare([str(tmp_path / "all")], Wishes(levels=((None, 2.0),)))
    told = "\n".join(found.notes)
    for run, words in {
        1: "is not finished (failed, 10 of 20 updates)",
        2: "wall time left out",
        3: "no quality was measured in",
        4: "left out, nothing has been logged yet",
    }.items():
        assert words in told and f"{tmp_path / 'all' / str(run)}" in told
    assert "3, 1 failed" in console(found)
    (variant,) = found.variants
    assert [run.seed for run in variant.runs] == [0, 1, 2, 3]
    assert len(found.numbers[0].races[2.0, "seconds", 0].arrivals.times) == 2


def test_runs_without_numbers_still_have_a_page(tmp_path):
    write_run(tmp_path / "run", [9, 3, 1, 1], number="fake_loss", measured=None, extra={"mismatch": [3, 2, 1, 1]})
    found = compare([str(tmp_path / "run")], Wishes())
    assert found.numbers == () and "mismatch and samples only" in found.notes[0]
    pictures = output.pictures_of(found)
    assert list(pictures) == ["mismatch_1.png"] and "Mismatch along the run" in page(found, pictures)


def test_nothing_logged_yet_is_nothing_to_compare(tmp_path):
    write_run(tmp_path / "run", [], state="running")
    with pytest.raises(UserError, match="nothing to compare yet"):
        compare([str(tmp_path / "run")], Wishes())


def test_the_console_shows_the_hardest_level_that_all_reach(sweep):
    found = compare([str(sweep)], Wishes(levels=((None, 9.5),)))
    assert telling_level(found.numbers[0]) == 9.5
    table = console(found)
    assert "updates to 9.5" in table and "fid_2k at the end" in table and "schedule=endpoint" in table


def test_a_dozen_variants_look_different():
    variants = [(f"lr.student={i}", [Curve(f"{i}", 0, (0, 10), (0.0, 9.0), (9.0, 1.0 + i))]) for i in range(12)]
    with Image.open(io.BytesIO(quality_chart("fid_2k", "passes", variants, teacher=0.5))) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in COLOURS} <= colours
    assert len({str(style(i)) for i in range(28)}) == 28


def test_how_far_apart_measurements_are_is_told(sweep):
    found = compare([str(sweep)], Wishes())
    apart = "measurements are up to 10 updates apart"
    assert f"linear between measurements; {apart}" in console(found)
    assert f"linear between measurements ({apart}): mean" in page(found, {})
