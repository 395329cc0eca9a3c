"""A run of mmalign as a reward: what its trained model computes of a response, e.g. the score of a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from mmalign import Parameters, Record, Reward, Sample, load_scorer

if TYPE_CHECKING:
    from mmalign import RunScorer

_WHERE = "rewards.run.path"


class TrainedRunConfig(Parameters):
    """A finished run."""

    path: str
    """Folder of the run, e.g. of one with the objective `reward_model`; its newest checkpoint scores."""
    quantity: str = "scores"
    """What it computes of a response: `scores` is what the trained head says."""


class TrainedRun(Reward):
    """Scores responses with the weights, the head and the configuration of a finished run.

    It is loaded at its first use, on this process's device, and gives what `mmalign score` gives.
    """

    costly = True

    def __init__(self, path: str, quantity: str = "scores") -> None:
        self.path = path
        self.quantity = quantity

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns one number a sample.

        Raises:
            ConfigError: the folder is no run, or its run does not compute the quantity.
        """
        groups = [list(group) for _, group in groupby(samples, key=lambda sample: id(sample.record))]
        rows = self._scorer.score([_join(group) for group in groups], self.quantity)
        return [score for row in rows for score in row]

    @cached_property
    def _scorer(self) -> RunScorer:
        return load_scorer(self.path, self.quantity, _WHERE)


def _join(samples: Sequence[Sample]) -> Record:
    """Puts the responses of samples of one record into it, under names of their own."""
    responses = [one.response.model_copy(update={"rid": f"r{place}"}) for place, one in enumerate(samples)]
    return samples[0].record.with_responses(responses)
