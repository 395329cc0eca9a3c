"""Watches for runs that look fine and are not; each check stops the run with its likely cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmalign.contract.batch import Batch
from mmalign.contract.specs import ObjectiveSpec
from mmalign.errors import DataError, TrainingError
from mmalign.losses.objectives import Objective
from mmalign.losses.sampler_gap import sampler_gaps

MAX_START_GAP = 0.1
"""Nats per step by which two scorings of the same steps may differ: bfloat16 gives about 0.02, a mistake gives 1."""

_ELEMENTS = {"pair": "preference pairs", "prompt": "prompts with comparable responses", "response": "responses"}
_ELEMENTS |= {"step": "responses", "labelled": "labelled responses"}
"""What an objective trains on, in words: by the quantity that its elements are `over`, else by what it is `per`."""


def check_same_start(values: Mapping[str, Tensor], step: int) -> None:
    """Checks that the policy equals the reference before the first update.

    Raises:
        TrainingError: it does not.
    """
    if step == 0 and "reference_logps" in values and "policy_logps" in values:
        gap = float((values["policy_logps"].detach() - values["reference_logps"])[values["step_mask"]].abs().mean())
        if gap > MAX_START_GAP:
            raise TrainingError(
                f"before the first update the policy differs from its reference by {gap:.2f} nats a step; likely "
                "causes: dropout in the adapter or the network (set it to 0), or an adapter that does not start at zero"
            )


def check_same_sampler(values: Mapping[str, Tensor]) -> None:
    """Checks that importance ratios of sampled responses are about 1 before the first update on fresh rollouts.

    Raises:
        TrainingError: they are not.
    """
    if "behaviour_logps" in values and "policy_logps" in values:
        gap = float(sampler_gaps(values).mean())
        if gap > MAX_START_GAP:
            raise TrainingError(
                f"fresh rollouts were sampled with log-probs that differ by {gap:.2f} nats a step from the policy's; "
                "likely causes: generation and scoring disagree on temperature, dropout, masking or position ids, or "
                "the engine is a server with other weights than the policy's"
            )


def describe_elements(spec: ObjectiveSpec) -> str:
    """Says in words what an objective is about."""
    return _ELEMENTS.get(spec.over) or _ELEMENTS[spec.per]


def check_covered(objectives: Sequence[Objective], totals: Sequence[Tensor], batch: Batch) -> None:
    """Checks that every objective finds something to train on in the first batch.

    Raises:
        DataError: one does not.
    """
    for objective, total in zip(objectives, totals, strict=True):
        if not total[0]:
            wanted = describe_elements(objective.spec)
            example = f", e.g. {batch.records[0].id!r}" if batch.records else ""
            raise DataError(
                f"data.train: objective {objective.spec.name!r} trains on {wanted}, but the first "
                f"batch has none in {len(batch.records)} records{example}; `mmalign data validate` counts what there is"
            )


def check_differentiable(loss: Tensor, objectives: Sequence[Objective]) -> None:
    """Checks that a loss depends on the policy.

    Raises:
        TrainingError: it does not.
    """
    if not loss.requires_grad:
        names = " + ".join(repr(objective.spec.name) for objective in objectives)
        raise TrainingError(
            f"the loss of {names} has no gradient, it does not depend on the policy; likely causes: `detach` or "
            "`no_grad` in the objective, or no quantity of the policy among its needs"
        )


def check_finite(loss: Tensor, values: Mapping[str, Tensor]) -> None:
    """Checks a loss; the error names the first quantity that is not finite.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    if torch.isfinite(loss):
        return
    for name, value in values.items():
        scored = value[values["step_mask"]] if value.shape == values["step_mask"].shape else value
        if name.endswith("logps") and not torch.isfinite(scored).all():
            raise TrainingError(
                f"the loss is {loss.item()}; the quantity {name!r} is not finite; likely causes: a learning rate that "
                "is too high, or float16 without loss scaling"
            )
    raise TrainingError(f"the loss is {loss.item()} although all log-probs are finite; check the data's feedback")


def check_gradient(norm: Tensor, *, scaled: bool) -> None:
    """Checks the gradient norm; float16 loss scaling may overflow now and then, and skips such a step itself.

    Raises:
        TrainingError: the norm is NaN or infinite.
    """
    if not scaled and not torch.isfinite(norm):
        raise TrainingError(
            f"the gradient norm is {norm.item()}; likely causes: a learning rate that is too high, or an objective "
            "whose gradient is infinite at a log-prob of 0 or minus infinity"
        )


def flat_groups(rewards: Tensor, prompt_index: Tensor) -> Tensor:
    """Marks responses whose whole group got the same reward, [N] float: they teach a group baseline nothing.

    NaN rewards are left out; a group of nothing else is flat.
    """
    prompts, place = torch.unique(prompt_index, return_inverse=True)
    start = torch.full((len(prompts),), torch.inf, device=rewards.device, dtype=rewards.dtype)
    lowest = start.scatter_reduce(0, place, rewards.nan_to_num(nan=torch.inf), "amin")
    highest = (-start).scatter_reduce(0, place, rewards.nan_to_num(nan=-torch.inf), "amax")
    return (lowest >= highest)[place].float()
