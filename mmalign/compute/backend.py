"""The backend: turns records and rollouts into batches with all the quantities that were planned.

`encode` and `collect` build batches, `prepare` adds what is computed once a round, `prepare_step` what a batch-coupled
loss needs of the global batch, `policy_values` what carries gradient. The same calls serve training and evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any

from torch import Tensor

from mmalign.compute.rollout_values import encode_rollout, rollout_values
from mmalign.compute.scoring import Scoring
from mmalign.compute.step_context import StepContext
from mmalign.contract.batch import ROLLOUT_AXES, Batch, build_batch
from mmalign.contract.forward_plan import FROZEN_OUTPUTS, Output
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import Plan
from mmalign.contract.values import Anchor, EncodedResponse, Rollout
from mmalign.data.records import Record
from mmalign.distribution import SumOverProcesses
from mmalign.errors import TrainingError
from mmalign.losses.metrics import compute_means
from mmalign.media.checks import MediaSkips
from mmalign.networks.policy import name_outputs
from mmalign.planning.companions import add_record_quantities, check_axes
from mmalign.references.reference import MovingReference
from mmalign.rewards.scorer import RewardScorer, build_samples


@dataclass(frozen=True, kw_only=True)
class Backend(Scoring):
    """Computes quantities; `Scoring` runs the networks.

    Attributes:
        sum_over_processes: adds a tensor up over all processes.
        process_index: which of the `processes` this is.
        running_sums: sum and count behind every `StepContext.running_mean`; part of a checkpoint.
    """

    sum_over_processes: SumOverProcesses
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
        responses, measurements = self.augment(batch.responses)
        return replace(batch, responses=tuple(responses), measurements=measurements)

    def encode_responses(self, records: Sequence[Record]) -> list[EncodedResponse]:
        """Encodes and completes the stored responses of all records, without their feedback."""
        return self.augment([item for record in records for item in self.assembly.modality.encode(record)])[0]

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
        if output in FROZEN_OUTPUTS and not provider.compute:
            # Cut as the policy's passes will be, rounding is alike: in a reduced precision log-ratios start at 0, too.
            cut = batch.micro_batch_rows
            scored = self._score_with_anchor(anchor, Output(output), batch.responses, stored=not rollouts, cut=cut)
            return _add(batch, provider, scored)
        if provider.name in ("rewards", "composite_rewards"):
            return self.add_rewards(batch, self.score_rollouts(rollouts))
        if provider.name == "advantages" and self.assembly.advantage is not None:
            return _add(batch, provider, self.assembly.advantage.estimate(batch.quantities).detach())
        value = provider.call(batch.quantities)
        check_axes(provider, value, batch)
        return _add(batch, provider, value)

    def begin_round(self, seed: str) -> dict[str, float]:
        """Lets a moving reference choose what it is during a round; returns metrics of it."""
        return self.reference.begin_round(seed) if isinstance(self.reference, MovingReference) else {}

    # -- once an optimiser step

    def prepare_step(self, batch: Batch, *, training: bool = True) -> Batch:
        """Adds the quantities that a batch-coupled loss needs of the global batch under the current policy.

        Args:
            training: False for an evaluation, from which running means must not learn.
        """
        for provider in self.assembly.plan.computed("step"):
            value = provider.call(batch.quantities, context=StepContext(self, batch, training))
            check_axes(provider, value, batch)
            batch = _add(batch, provider, value.detach().to(self.device))
        return batch

    # -- every micro-batch

    def policy_values(self, batch: Batch) -> dict[str, Tensor]:
        """Runs the policy on a micro-batch and computes every quantity that depends on it, with gradient."""
        plan = self.assembly.plan
        values = dict(batch.quantities)
        if plan.forward or plan.trained:
            known = values if plan.trained else None
            outputs = self.policy(batch.responses, plan.forward, self._compared(batch), known)
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

    # -- rewards

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Names of the K reward dimensions."""
        return tuple(self.assembly.scorer.names) if self.assembly.scorer else ()

    @property
    def online(self) -> bool:
        """True if the run samples responses."""
        return self.assembly.online

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


def compute_derived(values: dict[str, Tensor], plan: Plan, stage: Any) -> dict[str, Tensor]:
    """Computes, in order, the planned quantities of a stage from the values that are already there."""
    for provider in plan.computed(stage):
        values[provider.name] = provider.call(values)
    return values


def _add(batch: Batch, provider: Provider, value: Tensor) -> Batch:
    # An advantage estimator may give one number a response or one a step.
    axes = "NT" if provider.axes == "N" and value.dim() == 2 else provider.axes
    return batch.with_quantities({provider.name: value}, {provider.name: axes})
