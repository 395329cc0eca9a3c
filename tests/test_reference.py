"""References: frozen where the policy moves, the policy itself with its adapter off, and never in training mode."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmalign import EncodedResponse, Modality, Model, Policy
from mmalign.reference import AdapterOff, FrozenCopy


class Scaled(nn.Module):
    """One weight, dropout, and an adapter that adds one to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)
        self.adapter_on = True

    @contextmanager
    def disable_adapter(self) -> Any:
        self.adapter_on = False
        yield
        self.adapter_on = True


class Constant(Modality):
    """The log-prob of every step is the weight over the temperature."""

    load = encode = generate = decode = None  # type: ignore[assignment]

    def step_log_probs(self, network: Any, responses: Any) -> tuple[Tensor, Tensor]:
        value = network.dropout(network.weight / self.temperature) + float(network.adapter_on)
        return value.expand(len(responses), 1), torch.ones(len(responses), 1, dtype=torch.bool)


RESPONSES = [EncodedResponse({}, steps=1, size=1)]


def score(policy: Policy) -> float:
    return float(policy(RESPONSES, ("logps",))["logps"][0, 0])


@pytest.fixture
def policy() -> Policy:
    return Policy(Constant(), Model(Scaled())).train()


def test_a_frozen_copy_stays_where_the_policy_was(policy: Policy) -> None:
    reference = FrozenCopy(policy, nullcontext)
    with torch.no_grad():
        policy.network.weight.fill_(7.0)
    with reference.active() as network:
        assert score(network) == 3.0


def test_a_frozen_copy_is_not_trained(policy: Policy) -> None:
    with FrozenCopy(policy, nullcontext).active() as network:
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network(RESPONSES, ("logps",))["logps"].requires_grad
    assert policy.network.weight.requires_grad


def test_a_frozen_copy_scores_at_the_temperature_of_the_policy(policy: Policy) -> None:
    reference = FrozenCopy(policy, nullcontext)
    policy.modality.temperature = 0.5
    with reference.active() as network:
        assert score(network) == 2.0 / 0.5 + 1


def test_a_frozen_copy_computes_in_the_precision_of_the_run(policy: Policy) -> None:
    entered = []

    @contextmanager
    def autocast() -> Any:
        entered.append(True)
        yield

    with FrozenCopy(policy, autocast).active():
        assert entered == [True]


def test_an_adapter_is_off_only_while_the_reference_scores(policy: Policy) -> None:
    reference = AdapterOff(policy)
    with reference.active() as network:
        assert network is policy
        assert not network.training
        assert score(network) == 2.0
    assert policy.training and policy.network.training
    assert policy.network.adapter_on


def test_the_policy_is_back_in_training_after_an_error(policy: Policy) -> None:
    with pytest.raises(ValueError, match="in the middle"), AdapterOff(policy).active():
        raise ValueError("in the middle")
    assert policy.training
