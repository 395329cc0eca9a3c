"""The parameters of step objectives that the engine acts on: how step losses become one number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmalign import Parameters

Aggregation = Literal["step_mean", "sequence_mean", "sequence_sum", "constant"]


class StepParameters(Parameters):
    """Base of the configs of objectives with a loss per step."""

    aggregation: Aggregation = "step_mean"
    """Mean over all steps, mean over responses of their mean or of their sum, or sum over responses x horizon."""
    horizon: int | None = Field(default=None, ge=1)
    """Steps that the aggregation `constant` divides by, e.g. `decoding.max_steps`; the others ignore it."""

    @model_validator(mode="after")
    def _check_horizon(self) -> StepParameters:
        if self.aggregation == "constant" and self.horizon is None:
            raise ValueError("aggregation 'constant' needs `horizon`, a number of steps, e.g. decoding.max_steps")
        return self
