"""The page: one file that needs nothing else, neither the network nor the pictures beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

from disback_cli.evaluation.comparable import describe_measurement
from disback_cli.reporting.comparison.bands import COLLAPSE_RULE
from disback_cli.reporting.comparison.comparison import Comparison, NumberReport
from disback_cli.reporting.comparison.curve import AXES, Axis
from disback_cli.reporting.comparison.races import CONFIDENCE, RESAMPLES, RESAMPLING_SEED
from disback_cli.reporting.comparison.samples import EqualBudget
from disback_cli.reporting.comparison.variants import text_of
from disback_cli.reporting.comparison.wording import apart_text, end_text, runs_text, speed_up_text, time_text
from disback_cli.reporting.table import format_number

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: #fff; color: #1b1b1b;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: .3rem 0 .6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem;
  border-bottom: 1px solid #ddd; } h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
nav a { margin-right: 1rem; } a { color: #0059a0; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.charts.samples { grid-template-columns: repeat(auto-fill, minmax(min(46%, 15rem), 1fr)); }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; }
.charts figure { max-width: 48rem; } .charts.samples figure { max-width: 19rem; }
figcaption { font-size: .86rem; color: #444; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top;
  white-space: nowrap; }
td:first-child { white-space: normal; min-width: 8rem; }
th { background: #f5f5f3; font-weight: 600; } td small { color: #555; display: block; }
tr.baseline td:first-child { font-weight: 600; }
.notes { background: #faf6e8; border-left: 4px solid #d8b64a; padding: .5rem 1rem; overflow-wrap: anywhere; }
.notes ul { margin: 0; padding-left: 1.1rem; } .warn { color: #a33c00; font-weight: 600; }
p.explain { color: #444; max-width: 60rem; font-size: .92rem; }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0 .4rem; }
"""
_AXIS_HEADS = {
    "updates": "Generator updates",
    "passes": "Network passes, the recording's included (1 pass: one sample through the teacher's network once)",
    "seconds": "Seconds of wall time, the recording's included",
}


def page(found: Comparison, pictures: Mapping[str, bytes]) -> str:
    """The HTML of the whole comparison.

    Args:
        found: the comparison.
        pictures: PNG files by name, as :func:`disback_cli.reporting.comparison.output.pictures_of` draws them.
    """
    title = f"{', '.join(found.teachers)}: {len(found.variants)} variants, {len(found.runs)} runs"
    quality = [_number_section(found, report, pictures, i == 0) for i, report in enumerate(found.numbers)]
    sections = [
        ("quality", "Quality over cost", "\n".join(quality)),
        ("mismatch", "Mismatch along the run", _mismatch(found, pictures)),
        ("samples", "Samples at equal budget", "\n".join(_budget(found, budget, pictures) for budget in found.budgets)),
        ("settings", "What differs", _differences(found)),
        ("runs", "Runs", _runs(found)),
    ]
    sections = [section for section in sections if section[2]]
    links = " ".join(f'<a href="#{name}">{head}</a>' for name, head, _ in sections)
    body = "\n".join(f'<section id="{name}"><h2>{head}</h2>\n{content}</section>' for name, head, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>disback compare: {_text(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{_text(title)}</h1>\n{_measured_with(found)}<nav>{links}</nav>\n{_notes(found)}\n{body}\n</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _measured_with(found: Comparison) -> str:
    facts = found.measured_with
    if facts is None:
        return ""
    try:
        described = describe_measurement(facts)
    except KeyError:  # a provenance of another version: shown as it is
        described = "; ".join(f"{key}: {value}" for key, value in facts.items())
    return f'<p class="explain">Measured with: {_text(described)}</p>\n'


def _notes(found: Comparison) -> str:
    if not found.notes:
        return ""
    return '<div class="notes"><ul>' + "".join(f"<li>{_text(note)}</li>" for note in found.notes) + "</ul></div>"


def _image(pictures: Mapping[str, bytes], name: str, caption: str = "", alt: str = "") -> str:
    """A picture that is part of the page; nothing where it was not drawn."""
    if name not in pictures:
        return ""
    data = base64.b64encode(pictures[name]).decode()
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><img alt="{_text(alt or name)}" src="data:image/png;base64,{data}">{below}</figure>'


def _charts(images: Sequence[str], kind: str = "") -> str:
    shown = [image for image in images if image]
    return f'<div class="charts{kind}">{"".join(shown)}</div>\n' if shown else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    """A table of ready HTML; rows of baselines are set apart."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    lines = []
    for i, row in enumerate(rows):
        kind = ' class="baseline"' if i in marked else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>\n'


def _number_section(found: Comparison, report: NumberReport, pictures: Mapping[str, bytes], first: bool) -> str:
    charts = [_image(pictures, f"{report.name}_{axis}.png", alt=f"{report.name} over {axis}") for axis in AXES]
    races = "".join(_races(found, report, axis) for axis in report.axes)
    content = _charts(charts) + _ends(found, report) + races
    better = "smaller is better" if any(c.smaller_is_better for cs in report.curves for c in cs) else "larger is better"
    if first:
        explain = (
            "Lines are means over seeds, bands reach from the least to the greatest, faint lines are single runs; a "
            "dot marks where a variant starts: after its recording, where it used one."
        )
        return f'<h3>{_text(report.name)} ({better})</h3>\n<p class="explain">{explain}</p>\n{content}'
    return f"<details><summary>{_text(report.name)} ({better})</summary>\n{content}</details>\n"


def _ends(found: Comparison, report: NumberReport) -> str:
    rows = []
    for i, (variant, end) in enumerate(zip(found.variants, report.ends, strict=True)):
        if end is None:
            continue
        collapsed = ", ".join(map(str, end.collapsed))
        rows.append([
            _text(variant.label), runs_text(variant, report.name), end_text(end, len(report.curves[i])),
            format_number(end.unrest), format_number(end.best),
            f'<span class="warn">{len(end.collapsed)} (seed {collapsed})</span>' if end.collapsed else "0",
        ])  # fmt: skip
    heads = ["variant", "seeds", "end: mean (least – greatest)", "unrest in the last tenth", "best", "collapsed"]
    teacher = f" The teacher's own: {format_number(report.teacher)}." if report.teacher is not None else ""
    return (
        f"<h3>{_text(report.name)} at the end</h3>\n{_table(heads, rows, _marked(found))}"
        '<p class="explain">End: mean of the last tenth of a run’s measurements (at least one), then mean over seeds. '
        "Unrest: standard deviation within that tenth, mean over seeds; a dash where it is a single measurement. "
        f"{COLLAPSE_RULE[0].upper()}{COLLAPSE_RULE[1:]}.{teacher}</p>\n"
    )


def _marked(found: Comparison) -> list[int]:
    return sorted(set(found.baselines)) if len(found.variants) > 1 else []


def _races(found: Comparison, report: NumberReport, axis: Axis) -> str:
    if not report.levels:
        return ""
    several = len(set(found.baselines)) > 1
    rows = []
    for i, variant in enumerate(found.variants):
        against = found.baselines[i]
        base = f"<small>over {_text(found.variants[against].label)}</small>" if several and against != i else ""
        rows.append([_text(variant.label) + base, *(_race(report, level, axis, i) for level in report.levels)])
    heads = ["variant", *(f"to {level:.3g}" for level in report.levels)]
    explain = "" if axis != AXES[0] else _about_races(found, report)
    head = f"{_AXIS_HEADS[axis]}, to a level of {_text(report.name)}"
    return f"<h3>{head}</h3>\n{explain}{_table(heads, rows, _marked(found))}"


def _race(report: NumberReport, level: float, axis: Axis, variant: int) -> str:
    race = report.races.get((level, axis, variant))
    if race is None:
        return "-"
    faster = f"<small>{_text(speed_up_text(race.speed_up))}</small>" if race.speed_up else ""
    return f"{_text(time_text(race.arrivals))}{faster}"


def _about_races(found: Comparison, report: NumberReport) -> str:
    against = "the variant named in its row"
    if len(set(found.baselines)) == 1:
        against = found.variants[found.baselines[0]].label
    apart = apart_text(report)
    return (
        '<p class="explain">Where a run first was at the level or better, linear between measurements'
        f"{apart and f' ({apart})'}: mean over seeds (least – greatest). "
        "A run that never got there is right-censored at its last measurement: the mean is then a "
        f"lower bound (≥). Small print: speed-up over {_text(against)}, the ratio of mean times, with a "
        f"{CONFIDENCE:.0%} bootstrap percentile interval over seeds ({RESAMPLES:,} resamples, seed {RESAMPLING_SEED}); "
        "a bound (≥, ≤) where runs of one side are censored, nothing where both are, no interval for a single seed. "
        "With two or three seeds such an interval is narrower than the truth.</p>\n"
    )


def _mismatch(found: Comparison, pictures: Mapping[str, bytes]) -> str:
    each = [_image(pictures, f"mismatch_{i + 1}.png", alt=v.label) for i, v in enumerate(found.variants)]
    together = [_image(pictures, f"{column}.png", alt=column) for column in ("mismatch_teacher", "teacher_loss_ratio")]
    if not any([*each, *together]):
        return '<p class="explain">These runs have no column mismatch in metrics.csv.</p>'
    missing = [name for name in ("mismatch_teacher", "teacher_loss_ratio") if f"{name}.png" not in pictures]
    absent = f" Not in metrics.csv of these runs, and so left out: {', '.join(missing)}." if missing else ""
    return (
        '<p class="explain">Weighted distance between fake score and target on the student’s samples, a line a seed. '
        "Grey lines: the first seed’s target moves, to the node written at the top (0 is the teacher). Where all "
        f"variants are in one picture, first seeds are thick.{absent}</p>\n"
        + _charts(each, " small") + _charts(together)
    )  # fmt: skip


def _budget(found: Comparison, budget: EqualBudget, pictures: Mapping[str, bytes]) -> str:
    what = "updates" if budget.axis == "updates" else "network passes, the recording's included"
    images = [
        _image(
            pictures, f"samples_{budget.axis}_{grid.variant + 1}.png",
            f"<b>{_text(found.variants[grid.variant].label)}</b><br>seed {grid.seed}, update {grid.iteration:,}"
            + (f", {format_number(grid.spent)} passes" if budget.axis == "passes" else ""),
            alt=f"samples of {found.variants[grid.variant].label}",
        )
        for grid in budget.grids
    ]  # fmt: skip
    without = ", ".join(found.variants[i].label for i in budget.without)
    missing = f'<p class="explain">Nothing within this budget: {_text(without)}.</p>\n' if without else ""
    return f"<h3>Within {format_number(budget.budget)} {what}</h3>\n{_charts(images, ' samples')}{missing}"


def _differences(found: Comparison) -> str:
    if not found.differences:
        return '<p class="explain">One variant: its runs differ in nothing but their seed.</p>'
    heads = ["key", *(_text(variant.label) for variant in found.variants)]
    rows = [[_text(d.key), *(_text(text_of(value)) for value in d.values)] for d in found.differences]
    return (
        '<p class="explain">Keys that have one value everywhere are left out, and so are those that decide only where, '
        "how often or on what a run is watched. What follows <code>path.</code> is how the path was recorded.</p>\n"
        + _table(heads, rows)
    )


def _runs(found: Comparison) -> str:
    rows = []
    for variant in found.variants:
        for run in variant.runs:
            spent, seconds = (at([float(run.last_iteration)]) for at in (run.passes_at, run.seconds_at))
            rows.append([
                _text(variant.label), str(run.seed), _text(run.state), f"{run.last_iteration:,}",
                format_number(spent[0] if spent else None), format_number(run.recording_passes),
                format_number(seconds[0] if seconds else None), _text(run.name),
            ])  # fmt: skip
    heads = ["variant", "seed", "state", "updates", "network passes", "of which recording", "seconds", "folder"]
    return _table(heads, rows)
