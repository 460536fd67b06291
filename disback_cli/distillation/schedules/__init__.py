"""Schedules: which node the fake score starts from, and which position of the path is the target when."""

from disback_cli.distillation.schedules.adaptive import AdaptiveSchedule
from disback_cli.distillation.schedules.base import Progress, Schedule
from disback_cli.distillation.schedules.controls import EndpointSchedule, WarmStartSchedule
from disback_cli.distillation.schedules.plateau import PlateauSchedule
from disback_cli.distillation.schedules.rerecord import RerecordSchedule
from disback_cli.distillation.schedules.walks import InterpolatedSchedule, PathSchedule, ProportionalSchedule

__all__ = [
    "AdaptiveSchedule",
    "EndpointSchedule",
    "InterpolatedSchedule",
    "PathSchedule",
    "PlateauSchedule",
    "Progress",
    "ProportionalSchedule",
    "RerecordSchedule",
    "Schedule",
    "WarmStartSchedule",
]
