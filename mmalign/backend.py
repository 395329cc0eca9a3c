"""The backend: turns records and rollouts into batches with all the quantities that were planned.

`encode` and `collect` build batches, `prepare` adds what is computed once a round, `prepare_step` what a batch-coupled
loss needs of the global batch, `policy_values` what carries gradient. The same calls serve training and evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from mmalign.assembly import Assembly
from mmalign.batch import ROLLOUT_AXES, Batch, build_batch
from mmalign.companions import add_record_quantities
from mmalign.distribution import SumOverProcesses
from mmalign.errors import TrainingError
from mmalign.media_checks import MediaSkips
from mmalign.memory import MicroBatchSize
from mmalign.metrics import compute_means
from mmalign.networks import Networks, complete_responses, evaluated
from mmalign.passes import cut_rows, score_responses
from mmalign.policy import Policy, evaluation_mode, name_outputs
from mmalign.quantities import ANCHOR_OUTPUTS, DERIVED, Plan, Provider
from mmalign.records import Record
from mmalign.reference import FrozenModel, MovingReference, Reference
from mmalign.reference_cache import ReferenceCache
from mmalign.rewards import RewardScorer, build_samples
from mmalign.rollout_values import encode_rollout, rollout_values
from mmalign.step_context import StepContext
from mmalign.values import Anchor, EncodedResponse, Generated, Rollout

Cut = Callable[[int, int | None], Iterable[Sequence[int]]]
"""Cuts rows into parts of at most so many responses and positions."""


@dataclass(frozen=True)
class Backend:
    """Computes quantities.

    Attributes:
        assembly: the parts and the plan of the run.
        policy: the module to score with; in a distributed run, the wrapped one.
        reference: the anchor, or None if the plan needs none.
        reference_cache: keeps log-probs of stored responses under a reference that never changes; None to keep none.
        teachers: further models that the policy is compared with, by name.
        teacher_caches: likewise for the teachers, by name; without those of which nothing is kept.
        device: where scoring happens.
        autocast: the precision context of forward passes, for sampling; `policy` has it of its own.
        micro_batch_size: responses per forward pass; halves when memory runs out.
        sum_over_processes: adds a tensor up over all processes.
        process_index: which of the `processes` this is.
        running_sums: sum and count behind every `StepContext.running_mean`; part of a checkpoint.
    """

    assembly: Assembly
    policy: Callable[..., dict[str, Tensor]]
    unwrapped: Policy
    reference: Reference | None
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    micro_batch_size: MicroBatchSize
    sum_over_processes: SumOverProcesses
    reference_cache: ReferenceCache | None = None
    teachers: Mapping[str, FrozenModel] = field(default_factory=dict)
    teacher_caches: Mapping[str, ReferenceCache] = field(default_factory=dict)
    process_index: int = 0
    processes: int = 1
    running_sums: dict[str, list[float]] = field(default_factory=dict)

    # -- building batches

    def encode(
        self, records: Sequence[Record], *, targets_only: bool | None = None, skips: MediaSkips | None = None
    ) -> Batch:
        """Encodes records with their stored responses and feedback.

        Args:
            targets_only: leave out responses that no supervised objective would train on; None does so where the run
                has no other objective.
            skips: leaves out records whose images cannot be read, where the configuration says so; None stops.
        """
        skips = skips or MediaSkips(quarantine=False)
        kept = skips.apply(records, self.assembly.modality.encode)
        only = self.assembly.targets_only if targets_only is None else targets_only
        return self._build_batch([record for record, _ in kept], [rows for _, rows in kept], targets_only=only)

    def collect(self, rollouts: Sequence[Rollout]) -> Batch:
        """Builds a batch of rollouts; the behaviour log-probs of stored responses are NaN, and none of them `sampled`.

        Beside stored responses no sampled one is a supervised target.
        """
        groups = self.fill_in_logps([rollout.responses for rollout in rollouts])
        told = [replace(rollout, responses=tuple(group)) for rollout, group in zip(rollouts, groups, strict=True)]
        encoded = [encode_rollout(rollout, self.assembly.modality) for rollout in told]
        batch = self._build_batch([rollout.record for rollout in told], encoded, targets_only=False)
        values = rollout_values(told, encoded)
        if self.assembly.keeps_stored:
            values["targets"] = batch.quantities["targets"].cpu() & values["stored"]
        return batch.with_quantities(values, ROLLOUT_AXES).to(self.device)

    def _build_batch(
        self, records: Sequence[Record], encoded: Sequence[Sequence[EncodedResponse]], *, targets_only: bool
    ) -> Batch:
        whole = self.assembly.whole_prompts
        batch = build_batch(records, encoded, targets_only=targets_only, whole_prompts=whole).to(self.device)
        responses, measurements = self.complete(batch.responses)
        return replace(batch, responses=tuple(responses), measurements=measurements)

    def encode_responses(self, records: Sequence[Record]) -> list[EncodedResponse]:
        """Encodes and completes the stored responses of all records, without their feedback."""
        return self.complete([item for record in records for item in self.assembly.modality.encode(record)])[0]

    def complete(self, responses: Sequence[EncodedResponse]) -> tuple[list[EncodedResponse], dict[str, Tensor]]:
        """Adds to encoded responses what only networks can tell, and returns measurements [N]; see `Modality`."""
        anchors = {name: one.active for name, one in self.anchors.items()}
        current = {"policy": partial(evaluated, self.unwrapped)}
        networks = Networks(self.device, self.autocast, current | anchors)
        return self.micro_batch_size.fit(
            len(responses), lambda size: complete_responses(self.assembly.modality, networks, responses, size)
        )

    def measurement_means(self, batch: Batch) -> dict[str, float]:
        """Averages what was measured when the batch was completed, over all processes; left out where nothing was."""
        values = {name: value.to(self.device) for name, value in batch.measurements.items()}
        means = compute_means(values, self.sum_over_processes) if values else {}
        return {name: mean for name, mean in means.items() if not isnan(mean)}

    # -- once a round

    def prepare(self, batch: Batch, rollouts: Sequence[Rollout] = ()) -> Batch:
        """Adds the quantities that plugins compute from the records and those of stage `frozen`."""
        batch = add_record_quantities(batch, self.assembly.plan, lambda record: self.encode_responses([record]))
        for provider in self.assembly.plan.providers:
            if provider.stage == "frozen" and provider.name not in batch.quantities:
                batch = self._add_frozen(batch, provider, rollouts)
        return batch

    def add_rewards(self, batch: Batch, rewards: Tensor) -> Batch:
        """Adds `rewards` [N, K], from which normalisation and constraints learn, and `composite_rewards` [N].

        Args:
            rewards: of the sampled responses, in order; those of stored ones are NaN.
        """
        known = rewards.to(self.device)
        rewards = known.new_full((len(batch), known.shape[1]), nan)
        rewards[batch.quantities["sampled"]] = known
        composition = self.scorer.composition
        composition.observe(rewards, self.sum_over_processes)
        values = {"rewards": rewards, "composite_rewards": composition.compose(rewards, adapted=True)}
        return batch.with_quantities(values, {"rewards": "NK", "composite_rewards": "N"})

    def _add_frozen(self, batch: Batch, provider: Provider, rollouts: Sequence[Rollout]) -> Batch:
        anchor, _, output = provider.name.rpartition("_")
        if output in ANCHOR_OUTPUTS and not provider.compute:
            # Cut as the policy's passes will be, rounding is alike: in a reduced precision log-ratios start at 0, too.
            cut = batch.micro_batch_rows
            scored = self._score_with_anchor(anchor, output, batch.responses, stored=not rollouts, cut=cut)
            return _add(batch, provider, scored)
        if provider.name in ("rewards", "composite_rewards"):
            return self.add_rewards(batch, self.score_rollouts(rollouts))
        needs = [batch.quantities[name] for name in provider.needs]
        if provider.name == "advantages" and self.assembly.advantage is not None:
            advantage = self.assembly.advantage
            return _add(batch, provider, advantage.function(*needs, **advantage.parameters).detach())
        return _add(batch, provider, provider.load()(*needs))

    def reference_logps(self, batch: Batch) -> Tensor:
        """Computes `reference_logps` [N, T] of a batch, float32, whatever is kept of them."""
        return self.score_with_reference(batch.responses, stored=False)

    def score_with_reference(self, responses: Sequence[EncodedResponse], *, stored: bool) -> Tensor:
        """Computes log-probs [N, T] of encoded responses under the reference, float32.

        Args:
            stored: the responses come from a data set, so what was computed for them is kept and found again.
        """
        return self._score_with_anchor("reference", "logps", responses, stored=stored)

    @property
    def anchors(self) -> dict[str, Reference]:
        """The reference, if there is one, and the teachers, by name."""
        return ({"reference": self.reference} if self.reference else {}) | dict(self.teachers)

    @property
    def caches(self) -> list[ReferenceCache]:
        """What keeps log-probs of the reference and of teachers: one place on the disk for all."""
        return [*([self.reference_cache] if self.reference_cache else []), *self.teacher_caches.values()]

    def _score_with_anchor(
        self, name: str, output: str, responses: Sequence[EncodedResponse], *, stored: bool, cut: Cut | None = None
    ) -> Tensor:
        """Computes an output [N, T, ...] of the reference or of a teacher; what is kept of it is found again."""
        if name not in self.anchors:
            raise TrainingError(f"{name} log-probs were not planned; let the quantity need `{name}_logps`")

        def score(rows: Sequence[EncodedResponse]) -> Tensor:
            with self.anchors[name].active() as network:
                return self._score(network, rows, output, cut if len(rows) == len(responses) else None)

        cache = self.reference_cache if name == "reference" else self.teacher_caches.get(name)
        if cache is None or not stored or output != "logps":
            return score(responses)
        return cache.logps(responses, self.assembly.modality.temperature, score).to(self.device)

    def begin_round(self, seed: str) -> dict[str, float]:
        """Lets a moving reference choose what it is during a round; returns metrics of it."""
        return self.reference.begin_round(seed) if isinstance(self.reference, MovingReference) else {}

    def follow_policy(self, step: int) -> None:
        """Lets a moving reference follow the policy after optimiser step `step`."""
        if isinstance(self.reference, MovingReference):
            self.reference.update(step)

    # -- once an optimiser step

    def prepare_step(self, batch: Batch, *, training: bool = True) -> Batch:
        """Adds the quantities that a batch-coupled loss needs of the global batch under the current policy.

        Args:
            training: False for an evaluation, from which running means must not learn.
        """
        for provider in self.assembly.plan.computed("step"):
            # Quantities derived from those of this stage are computed from them, like any derived one.
            derived = provider.origin == DERIVED
            needs = (
                [batch.quantities[name] for name in provider.needs] if derived else [StepContext(self, batch, training)]
            )
            batch = _add(batch, provider, provider.load()(*needs).detach().to(self.device))
        return batch

    # -- every micro-batch

    def policy_values(self, batch: Batch) -> dict[str, Tensor]:
        """Runs the policy on a micro-batch and computes every quantity that depends on it, with gradient."""
        plan = self.assembly.plan
        values = dict(batch.quantities)
        if plan.policy_outputs or plan.trained:
            known = values if plan.trained else None
            outputs = self.policy(batch.responses, plan.policy_outputs, self._compared(batch), known)
            outputs |= name_outputs(outputs)
            values |= {name: outputs[name] for name in plan.names("policy") if name in outputs}
        return compute_derived(values, plan, "policy")

    def _compared(self, batch: Batch) -> dict[str, Anchor]:
        """The anchors whose whole distributions the policy is compared with."""
        return {
            name: Anchor(batch.quantities[f"{name}_states"], anchor.policy.modality.head(anchor.policy.network))
            for name, anchor in self.anchors.items()
            if f"{name}_states" in batch.quantities
        }

    def policy_logps(self, responses: Sequence[EncodedResponse]) -> Tensor:
        """Computes log-probs [N, T] of encoded responses under the current policy, without gradient or dropout."""
        with evaluation_mode(self.unwrapped):
            return self._score(self.policy, responses)

    # -- rewards and generation

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Names of the K reward dimensions."""
        return tuple(self.assembly.scorer.names) if self.assembly.scorer else ()

    @property
    def has_reference(self) -> bool:
        """True if reference log-probs can be computed."""
        return self.reference is not None

    @property
    def reference_moves(self) -> bool:
        """True if reference log-probs change during training."""
        return isinstance(self.reference, MovingReference)

    def score_rollouts(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Scores every response of every rollout: [N, K], float32, NaN where a scorer could not score."""
        return self.scorer.score(build_samples(rollouts, self.assembly.modality.decode))

    def compose(self, rewards: Tensor) -> Tensor:
        """Combines reward dimensions [N, K] into one reward [N] by the configuration alone, so always comparable."""
        return self.scorer.composition.compose(rewards)

    @property
    def multipliers(self) -> dict[str, float]:
        """Lagrange multipliers of the constrained rewards, by name."""
        return dict(self.assembly.scorer.composition.multipliers) if self.assembly.scorer else {}

    @property
    def scorer(self) -> RewardScorer:
        """The rewards of the run; raises TrainingError if there are none."""
        if self.assembly.scorer is None:
            raise TrainingError("no rewards are configured; add `rewards: [{name: ...}]`")
        return self.assembly.scorer

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
        missing, _ = self.complete(missing)
        with self._at_sampling_temperature():
            sampler = network != "policy"
            logps = self.score_with_reference(missing, stored=False) if sampler else self.policy_logps(missing)
            scored = zip(missing, logps.cpu(), strict=True)
        return [
            [_fill_in(one, *next(scored)) if one.behaviour_logps is None else one for one in group] for group in groups
        ]

    def generate_by_policy(self, records: Sequence[Record], count: int) -> list[list[Generated]]:
        """Samples as `sample` does, but surely with the policy as it now is: for measuring it."""
        if self.assembly.engine.follows_policy:
            return self.sample(records, count)
        return self._sample(self.assembly.modality.generate, records, count)

    def quantities_of(self, rollouts: Sequence[Rollout], names: Sequence[str]) -> dict[str, Tensor]:
        """Computes log-prob quantities of rollouts at the temperature they were sampled at, without gradient.

        Args:
            names: any of `policy_logps`, `reference_logps` and `behaviour_logps`.

        Returns:
            the named tensors [N, T] and `step_mask` [N, T], on the CPU.
        """
        batch = self.collect(rollouts)
        values = {name: value for name, value in batch.quantities.items() if name in (*names, "step_mask")}
        with self._at_sampling_temperature():
            if "policy_logps" in names:
                values["policy_logps"] = self.policy_logps(batch.responses)
            if "reference_logps" in names:
                values["reference_logps"] = self.reference_logps(batch)
        return {name: value.cpu() for name, value in values.items()}

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
        output: str = "logps",
        cut: Cut | None = None,
    ) -> Tensor:
        budget = self.assembly.config.train.micro_batch_tokens
        cut = cut or partial(cut_rows, responses)
        return self.micro_batch_size.fit(
            len(responses), lambda size: score_responses(network, responses, cut(size, budget), output)
        )


def compute_derived(values: dict[str, Tensor], plan: Plan, stage: Any) -> dict[str, Tensor]:
    """Computes, in order, the planned quantities of a stage from the values that are already there."""
    for provider in plan.computed(stage):
        values[provider.name] = provider.load()(*(values[name] for name in provider.needs))
    return values


def _fill_in(one: Generated, encoded: EncodedResponse, logps: Tensor) -> Generated:
    return replace(one, encoded=encoded, behaviour_logps=logps[: encoded.steps], rescored=True)


def _add(batch: Batch, provider: Provider, value: Tensor) -> Batch:
    # An advantage estimator may give one number a response or one a step.
    axes = "NT" if provider.axes == "N" and value.dim() == 2 else provider.axes
    return batch.with_quantities({provider.name: value}, {provider.name: axes})
