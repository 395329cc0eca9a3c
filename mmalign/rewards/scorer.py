"""The rewards of a run: scoring, counting failures, composing.

Equal samples of a call are scored once, so a reward may depend on its own sample only: not on the other samples, not
on chance, not on time. A sample that cannot be scored is NaN and counted, never a zero. A reward with `dimensions`
gives several numbers a sample, each a column of its own.

By default no score is kept for the next call: what a model-based reward gives differs in the last bits with the batch,
and a resumed run must score as one that never stopped. `cache: true` keeps the scores of a reward that declares itself
`deterministic`; they are the same whether they come from the cache or not, so resumption stays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor

from mmalign.config.components import CompositionConfig, RewardComponent
from mmalign.contract.components import Reward
from mmalign.contract.values import Generated, Rollout, Sample
from mmalign.data.records import Record, Response
from mmalign.names import distinct_names
from mmalign.rewards.composition import Composition
from mmalign.rewards.failures import FailureCount, Outcome, Scores
from mmalign.rewards.global_state import preserved_state
from mmalign.rewards.keys import content_key
from mmalign.rewards.scoring import Key, ScoreCache, score_distinct


def build_samples(rollouts: Sequence[Rollout], decode: Callable[[Record, Response], Any]) -> list[Sample]:
    """Decodes what rewards see of every response of every rollout, unless sampling has done so."""
    return [
        Sample(rollout.record, item.response, decode_generated(rollout.record, item, decode), item.encoded.steps)
        for rollout in rollouts
        for item in rollout.responses
    ]


def decode_generated(record: Record, generated: Generated, decode: Callable[[Record, Response], Any]) -> Any:
    """Returns what rewards and people see of a sampled response; `decode` is that of the modality."""
    return decode(record, generated.response) if generated.output is None else generated.output


@dataclass(frozen=True)
class BoundReward:
    """A scorer, and what the configuration says of its scores."""

    component: RewardComponent
    reward: Reward


class RewardScorer:
    """Scores samples with rewards of K dimensions in all.

    Attributes:
        names: of the K columns: a reward's label or name, or `NAME/DIMENSION`; of rewards of one name the later get
            `_2`, ...
        composition: makes one reward of the columns.
        bound: the rewards in the order of the configuration.
    """

    def __init__(self, rewards: Sequence[BoundReward], form: CompositionConfig | None = None) -> None:
        self.bound = tuple(rewards)
        names = distinct_names([str(bound.component.label or bound.component.name) for bound in rewards])
        self._rewards = [NamedReward(name, bound) for name, bound in zip(names, rewards, strict=True)]
        self.names = tuple(column for reward in self._rewards for column in reward.columns)
        shapings = [bound.component.shaping(one) for bound in rewards for one in bound.reward.dimensions or ("",)]
        self.composition = Composition(self.names, shapings, form or CompositionConfig())

    @property
    def failures(self) -> dict[str, int]:
        """For every reward, how many samples lack a score so far; equal ones of a call count once."""
        return {reward.name: reward.failures.total for reward in self._rewards}

    @property
    def background(self) -> bool:
        """True if one of the rewards may score in the background."""
        return any(reward.background for reward in self._rewards)

    def begin(self) -> Scoring:
        """Opens a call whose samples come in parts."""
        return Scoring(self._rewards)

    def score(self, samples: Sequence[Sample]) -> Tensor:
        """Scores N samples.

        Returns:
            [N, K] float32 on the CPU; NaN where a scorer could not score.

        Raises:
            TrainingError: a reward failed on every sample, or did not return one finite number (or NaN) a sample and
                dimension.
        """
        scoring = self.begin()
        scoring.add(samples)
        return scoring.finish()


class NamedReward:
    """One reward of a run with what is kept of it between calls.

    Attributes:
        columns: names of its dimensions in [N, K].
        background: see `Reward`.
        failures: of the whole run.
    """

    def __init__(self, name: str, bound: BoundReward) -> None:
        dimensions = bound.reward.dimensions
        self.name = name
        self.columns = tuple(f"{name}/{one}" for one in dimensions) or (name,)
        self._reward = bound.reward
        self.background = bound.reward.background
        self._cache = ScoreCache() if bound.component.cache else None
        self.failures = FailureCount(name, dimensions)

    def score(self, samples: Mapping[Key, Sample], *, alone: bool = True) -> dict[Key, Outcome]:
        """Scores distinct samples; what the reward switches for the whole process is switched back.

        Args:
            alone: False if another thread of the run is at work, which may draw random numbers.
        """
        with preserved_state(generators=alone):
            return score_distinct(self.name, self._reward, samples, self._cache)


class Scoring:
    """One call of the rewards. Its samples may come in parts; equal ones of all parts are scored once.

    `add` and `finish` belong to one thread, `score_early` to another one or the same; `finish` comes last.
    """

    def __init__(self, rewards: Sequence[NamedReward]) -> None:
        self._rewards = rewards
        self._keys: list[Key] = []
        self._samples: dict[Key, Sample] = {}
        self._outcomes: list[dict[Key, Outcome]] = [{} for _ in rewards]

    def add(self, samples: Sequence[Sample]) -> dict[Key, Sample]:
        """Adds a part; returns those of its samples that differ from each other and from all before."""
        digests = [content_key(sample) for sample in samples]
        start = len(self._keys)
        keys: list[Key] = [start + place if digest is None else digest for place, digest in enumerate(digests)]
        new = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in self._samples}
        self._keys += keys
        self._samples |= new
        return new

    def score_early(self, samples: Mapping[Key, Sample]) -> None:
        """Scores samples that `add` returned with those rewards that may run in the background."""
        for reward, outcomes in zip(self._rewards, self._outcomes, strict=True):
            if reward.background:
                outcomes |= reward.score(samples, alone=False)

    def finish(self) -> Tensor:
        """Scores what is left and counts failures; returns [N, K] of all parts, see `RewardScorer.score`."""
        for reward, outcomes in zip(self._rewards, self._outcomes, strict=True):
            outcomes |= reward.score({key: sample for key, sample in self._samples.items() if key not in outcomes})
            reward.failures.add([outcomes[key] for key in self._samples])
        rows = [[number for scores in self._scores_of(key) for number in scores] for key in self._keys]
        return torch.tensor(rows, dtype=torch.float32).reshape(
            len(rows), sum(len(one.columns) for one in self._rewards)
        )

    def _scores_of(self, key: Key) -> Iterator[Scores]:
        for reward, outcomes in zip(self._rewards, self._outcomes, strict=True):
            outcome = outcomes[key]
            yield (nan,) * len(reward.columns) if isinstance(outcome, Exception) else outcome
