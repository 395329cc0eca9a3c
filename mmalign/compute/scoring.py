"""Forward passes without gradient: the policy, the reference and the teachers score and sample.

What the backend adds to it is batches and quantities. Every pass keeps to the micro-batch size, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmalign.compute.memory import MicroBatchSize
from mmalign.compute.passes import cut_rows, score_responses
from mmalign.contract.batch import Batch
from mmalign.contract.forward_plan import Output
from mmalign.contract.values import EncodedResponse, Generated
from mmalign.data.records import Record
from mmalign.errors import TrainingError
from mmalign.networks.augmentation import Networks, augment_responses, evaluated
from mmalign.networks.policy import Policy, evaluation_mode
from mmalign.planning.assembly import Assembly
from mmalign.references.reference import FrozenModel, MovingReference, Reference
from mmalign.references.reference_cache import ReferenceCache

Cut = Callable[[int, int | None], Iterable[Sequence[int]]]
"""Cuts rows into parts of at most so many responses and positions."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scores and samples with the networks of a run.

    Attributes:
        assembly: the parts and the plan of the run.
        policy: the module to score with; in a distributed run, the wrapped one.
        unwrapped: the same module without a wrapper.
        reference: the anchor, or None if the plan needs none.
        device: where scoring happens.
        autocast: the precision context of forward passes, for sampling; `policy` has it of its own.
        micro_batch_size: responses per forward pass; halves when memory runs out.
        reference_cache: keeps log-probs of stored responses under a reference that never changes; None to keep none.
        teachers: further models that the policy is compared with, by name.
        teacher_caches: likewise for the teachers, by name; without those of which nothing is kept.
    """

    assembly: Assembly
    policy: Callable[..., dict[str, Tensor]]
    unwrapped: Policy
    reference: Reference | None
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    micro_batch_size: MicroBatchSize
    reference_cache: ReferenceCache | None = None
    teachers: Mapping[str, FrozenModel] = field(default_factory=dict)
    teacher_caches: Mapping[str, ReferenceCache] = field(default_factory=dict)

    def augment(self, responses: Sequence[EncodedResponse]) -> tuple[list[EncodedResponse], dict[str, Tensor]]:
        """Adds to encoded responses what only networks can tell, and returns measurements [N]; see `Modality`."""
        anchors = {name: one.active for name, one in self.anchors.items()}
        current = {"policy": partial(evaluated, self.unwrapped)}
        networks = Networks(self.device, self.autocast, current | anchors)
        return self.micro_batch_size.run_with_retry(
            len(responses), lambda size: augment_responses(self.assembly.modality, networks, responses, size)
        )

    def reference_logps(self, batch: Batch) -> Tensor:
        """Computes `reference_logps` [N, T] of a batch, float32, whatever is kept of them."""
        return self.score_with_reference(batch.responses, stored=False)

    def score_with_reference(self, responses: Sequence[EncodedResponse], *, stored: bool) -> Tensor:
        """Computes log-probs [N, T] of encoded responses under the reference, float32.

        Args:
            stored: the responses come from a data set, so what was computed for them is kept and found again.
        """
        return self._score_with_anchor("reference", Output.LOGPS, responses, stored=stored)

    @property
    def anchors(self) -> dict[str, Reference]:
        """The reference, if there is one, and the teachers, by name."""
        return ({"reference": self.reference} if self.reference else {}) | dict(self.teachers)

    @property
    def caches(self) -> list[ReferenceCache]:
        """What keeps log-probs of the reference and of teachers: one place on the disk for all."""
        return [*([self.reference_cache] if self.reference_cache else []), *self.teacher_caches.values()]

    def _score_with_anchor(
        self, name: str, output: Output, responses: Sequence[EncodedResponse], *, stored: bool, cut: Cut | None = None
    ) -> Tensor:
        """Computes an output [N, T, ...] of the reference or of a teacher; what is kept of it is found again."""
        if name not in self.anchors:
            raise TrainingError(f"{name} log-probs were not planned; let the quantity need `{name}_logps`")

        def score(rows: Sequence[EncodedResponse]) -> Tensor:
            with self.anchors[name].active() as network:
                return self._score(network, rows, output, cut if len(rows) == len(responses) else None)

        cache = self.reference_cache if name == "reference" else self.teacher_caches.get(name)
        if cache is None or not stored or output is not Output.LOGPS:
            return score(responses)
        return cache.logps(responses, self.assembly.modality.temperature, score).to(self.device)

    def follow_policy(self, step: int) -> None:
        """Lets a moving reference follow the policy after optimiser step `step`."""
        if isinstance(self.reference, MovingReference):
            self.reference.update(step)

    def policy_logps(self, responses: Sequence[EncodedResponse]) -> Tensor:
        """Computes log-probs [N, T] of encoded responses under the current policy, without gradient or dropout."""
        with evaluation_mode(self.unwrapped):
            return self._score(self.policy, responses)

    def generate(self, records: Sequence[Record], count: int, network: str = "policy") -> list[list[Generated]]:
        """Samples `count` responses to every prompt with the run's engine and decoding, without gradient.

        Args:
            network: `policy` or `reference`.
        """
        return self.fill_in_logps(self.sample(records, count, network), network)

    def sample(self, records: Sequence[Record], count: int, network: str = "policy") -> list[list[Generated]]:
        """Samples as `generate` does, but leaves out behaviour log-probs that the engine could not tell."""
        generate = partial(self.assembly.engine.generate, self.assembly.modality)
        return self._sample(generate, records, count, network)

    def _sample(
        self,
        generate: Callable[..., list[list[Generated]]],
        records: Sequence[Record],
        count: int,
        network: str = "policy",
    ) -> list[list[Generated]]:
        active = evaluated(self.unwrapped) if network == "policy" else self.anchors[network].active()
        with active as sampled, self.autocast():
            return generate(sampled.network, records, self.assembly.decoding, count)

    def fill_in_logps(self, groups: Sequence[Sequence[Generated]], network: str = "policy") -> list[list[Generated]]:
        """Computes behaviour log-probs that an engine could not tell, at the sampling temperature."""
        missing = [one.encoded for group in groups for one in group if one.behaviour_logps is None]
        if not missing:
            return [list(group) for group in groups]
        missing, _ = self.augment(missing)
        with self._at_sampling_temperature():
            sampler = network != "policy"
            logps = self.score_with_reference(missing, stored=False) if sampler else self.policy_logps(missing)
            scored = zip(missing, logps.cpu(), strict=True)
        return [
            [_fill_in(one, *next(scored)) if one.behaviour_logps is None else one for one in group] for group in groups
        ]

    def generate_by_policy(self, records: Sequence[Record], count: int) -> list[list[Generated]]:
        """Samples as `sample` does, but surely with the current policy: for measuring it."""
        if self.assembly.engine.follows_policy:
            return self.sample(records, count)
        return self._sample(self.assembly.modality.generate, records, count)

    @contextmanager
    def _at_sampling_temperature(self) -> Iterator[None]:
        modality = self.assembly.modality
        before, modality.temperature = modality.temperature, self.assembly.decoding.temperature
        try:
            yield
        finally:
            modality.temperature = before

    def _score(
        self,
        network: Callable[..., Any],
        responses: Sequence[EncodedResponse],
        output: Output = Output.LOGPS,
        cut: Cut | None = None,
    ) -> Tensor:
        budget = self.assembly.config.train.micro_batch_tokens
        cut = cut or partial(cut_rows, responses)
        return self.micro_batch_size.run_with_retry(
            len(responses), lambda size: score_responses(network, responses, cut(size, budget), output)
        )


def _fill_in(one: Generated, encoded: EncodedResponse, logps: Tensor) -> Generated:
    return replace(one, encoded=encoded, behaviour_logps=logps[: encoded.steps], rescored=True)
