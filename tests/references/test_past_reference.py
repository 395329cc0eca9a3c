"""A reference that is drawn for every round among earlier policies."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from mmalign import CheckpointError, Modality, Model
from mmalign.networks.policy import Policy
from mmalign.references.past_reference import PastPolicies
from mmalign.references.reference import PeriodicSync


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))


class Nothing(Modality):
    load = encode = generate = decode = step_log_probs = None  # type: ignore[assignment]


@pytest.fixture
def policy() -> Policy:
    return Policy(Nothing(), Model(Weight())).train()


def follow(reference: PastPolicies, steps: range) -> None:
    """Trains the weight to the number of the step."""
    for step in steps:
        reference.policy.network.weight.data.fill_(float(step))
        reference.update(step)


def weight_of(reference: PastPolicies) -> float:
    with reference.active() as active:
        return float(active.network.weight)


def test_it_is_one_of_the_kept_moments_the_start_among_them(policy: Policy) -> None:
    reference = PastPolicies(policy, every=3, keep=4)
    assert weight_of(reference) == 0.0
    follow(reference, range(1, 11))
    drawn = {(reference.begin_round(str(number))["reference/step"], weight_of(reference)) for number in range(100)}
    assert drawn == {(0.0, 0.0), (3.0, 3.0), (6.0, 6.0), (9.0, 9.0)}
    assert float(policy.network.weight) == 10.0


def test_draws_are_uniform_over_rounds(policy: Policy) -> None:
    reference = PastPolicies(policy, every=1, keep=5)
    follow(reference, range(1, 5))
    counts = Counter(reference.begin_round(f"0|{number}")["reference/step"] for number in range(2000))
    chi_square = sum((counts[step] - 400) ** 2 / 400 for step in range(5))
    assert chi_square < 18.5  # the 99.9 % quantile with 4 degrees of freedom


def test_of_more_than_are_kept_the_oldest_go(policy: Policy) -> None:
    reference = PastPolicies(policy, every=2, keep=2)
    follow(reference, range(1, 9))
    reference.begin_round("x")
    assert reference.moments == [6, 8]


def test_it_goes_on_from_a_checkpoint(policy: Policy) -> None:
    reference = PastPolicies(policy, every=2, keep=3)
    follow(reference, range(1, 6))
    saved = {name: value.clone() for name, value in reference.tensors().items()}
    again = PastPolicies(policy, every=2, keep=3)
    again.restore(saved)
    assert again.moments == [0, 2, 4]
    for number in range(20):
        assert again.begin_round(str(number)) == reference.begin_round(str(number))
        assert weight_of(again) == weight_of(reference)
    with pytest.raises(CheckpointError, match="earlier policies"):
        again.restore(PeriodicSync(policy, every=1).tensors())
