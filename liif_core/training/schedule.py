"""Learning-rate schedules, as functions of the step, so that resuming is exact."""

import math

from liif_core.experiment.schema import Cosine, MultiStep, Schedule


def rate_factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The factor that the learning rate is multiplied by at ``step``, which counts optimizer steps from 0."""
    risen = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    start = schedule.warmup_from or 0.0
    warm = start + (1 - start) * risen
    if isinstance(schedule, MultiStep):
        epoch = step // steps_per_epoch
        return float(warm * schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones))
    if isinstance(schedule, Cosine):
        total = max(1, steps_per_epoch * epochs - schedule.warmup_steps)
        done = min(1.0, max(0, step - schedule.warmup_steps) / total)
        return warm * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2)
    return warm
