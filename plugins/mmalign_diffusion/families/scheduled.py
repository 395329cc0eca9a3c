"""Families whose schedule and kind of output are said by the settings of a diffusers scheduler."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from mmalign import ConfigError
from mmalign_diffusion.config import Prediction
from mmalign_diffusion.families.base import Family
from mmalign_diffusion.families.folders import read_prediction
from mmalign_diffusion.schedules import Schedule, read_schedule


class ScheduledFamily(Family):
    """A family with a scheduler.

    Attributes:
        scheduler: what its `scheduler_config.json` holds; a subclass sets it.
    """

    scheduler: dict[str, Any]

    @cached_property
    def schedule(self) -> Schedule:
        """That of the scheduler's settings."""
        try:
            return read_schedule(self.scheduler)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"modality.model: the scheduler's settings give no schedule: {error}") from None

    @property
    def prediction(self) -> Prediction:
        """That of the scheduler's settings."""
        return read_prediction(self.scheduler)
