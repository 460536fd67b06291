"""Times, speed-ups and ends in words, and the table on the console."""

from __future__ import annotations

from disback_cli.reporting.comparison.bands import End
from disback_cli.reporting.comparison.comparison import Comparison, NumberReport
from disback_cli.reporting.comparison.races import Arrivals, SpeedUp
from disback_cli.reporting.comparison.variants import Variant
from disback_cli.reporting.table import format_number, table


def time_text(found: Arrivals) -> str:
    """Mean and spread over seeds; for censored runs a bound, and how many got there."""
    count, runs = found.count, len(found.times)
    if count == 0:
        return f"never within {format_number(max(found.times))} (0 of {runs})"
    if not found.complete:
        return f"≥ {_number(found.mean)}, reached by {count} of {runs}"
    if runs == 1:
        return _number(found.mean)
    return f"{_number(found.mean)} ({_number(min(found.times))} – {_number(max(found.times))})"


def speed_up_text(found: SpeedUp) -> str:
    """The ratio with its interval, or the bound that is known."""
    if found.kind == "exact":
        interval = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
        return f"{found.value:.2f}×{interval}"
    sign, edge = ("≥", found.low) if found.kind == "at least" else ("≤", found.high)
    return f"{sign} {found.value:.2f}×" + ("" if edge is None else f" [{sign} {edge:.2f}]")


def end_text(found: End, runs: int) -> str:
    """Mean of the last tenth, and its spread over seeds."""
    if runs == 1:
        return format_number(found.mean)
    return f"{format_number(found.mean)} ({format_number(found.low)} – {format_number(found.high)})"


def runs_text(variant: Variant, number: str) -> str:
    """How many runs a number is over, and how many of them have not come to their end."""
    measured = [run for run in variant.runs if number in run.numbers]
    states = [run.state for run in measured if run.state != "finished"]
    counts = (f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return ", ".join([str(len(measured)), *counts])


def apart_text(report: NumberReport) -> str:
    """How far apart measurements are, so how well a time to quality is known; nothing where there is one a run."""
    return "" if report.interval is None else f"measurements are up to {report.interval:,.0f} updates apart"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def telling_level(report: NumberReport) -> float | None:
    """The hardest level that all runs have reached in updates; else the hardest that any has."""
    racers = [(level, [race for (at, axis, _), race in report.races.items() if at == level and axis == "updates"])
              for level in report.levels]  # fmt: skip
    by_all = [level for level, races in racers if all(race.arrivals.complete for race in races)]
    by_any = [level for level, races in racers if any(race.arrivals.count for race in races)]
    found = by_all or by_any
    return found[-1] if found else None


def console(found: Comparison) -> str:
    """A short table of the first number, and the notes."""
    lines = []
    if found.numbers:
        report = found.numbers[0]
        lines += [_table(found, report), *_over(found)]
        if report.levels and (apart := apart_text(report)):
            lines.append(f"times are linear between measurements; {apart}")
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines)


def _over(found: Comparison) -> list[str]:
    """What the speed-ups are over."""
    if len(found.variants) == 1:
        return []
    labels = [found.variants[i].label for i in dict.fromkeys(found.baselines)]
    return [f"speed-up over {labels[0]}" if len(labels) == 1 else f"speed-up over the nearest of: {'; '.join(labels)}"]


def _table(found: Comparison, report: NumberReport) -> str:
    level = telling_level(report)
    axes = [axis for axis in report.axes if axis != "updates"] if level is not None else []
    heads = ["variant", "seeds", f"{report.name} at the end"]
    if level is not None:
        heads.append(f"updates to {level:.3g}")
        for axis in axes:
            heads += [f"{axis} to {level:.3g}", "speed-up"]
    rows = []
    for i, variant in enumerate(found.variants):
        end, runs = report.ends[i], len(report.curves[i])
        row = [variant.label, runs_text(variant, report.name), end_text(end, runs) if end is not None else "-"]
        if level is not None:
            race = report.races.get((level, "updates", i))
            row.append(time_text(race.arrivals) if race else "-")
            for axis in axes:
                race = report.races.get((level, axis, i))
                row += [time_text(race.arrivals) if race else "-", speed_up_text(race.speed_up)
                        if race and race.speed_up else "-"]  # fmt: skip
        rows.append(row)
    return table(heads, rows)
