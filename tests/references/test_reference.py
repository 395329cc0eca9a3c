"""References: fixed where the policy moves, or following it, and never in training mode."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmalign
from mmalign import CheckpointError, ConfigError, EncodedResponse, Modality, Model
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.networks.policy import Policy
from mmalign.references.reference import AdapterOff, Extrapolation, FrozenCopy, MovingAverage, PeriodicSync, Reference


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

    load = encode = generate = decode = None

    def step_log_probs(self, network: Any, responses: Any) -> tuple[Tensor, Tensor]:
        value = network.dropout(network.weight / self.temperature) + float(network.adapter_on)
        return value.expand(len(responses), 1), torch.ones(len(responses), 1, dtype=torch.bool)


RESPONSES = [EncodedResponse({}, steps=1, size=1)]


def score(policy: Policy) -> float:
    return float(policy(RESPONSES, ForwardPlan.of("logps"))["logps"][0, 0])


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
        assert not network(RESPONSES, ForwardPlan.of("logps"))["logps"].requires_grad
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


def train_to(policy: Policy, value: float) -> None:
    with torch.no_grad():
        policy.network.weight.fill_(value)


def score_of(reference: Reference) -> float:
    with reference.active() as network:
        return score(network)


def test_an_average_follows_the_policy_by_one_minus_decay(policy: Policy) -> None:
    reference = MovingAverage(policy, decay=0.75)
    assert score_of(reference) == 2.0 + 1  # the adapter, which is not among the weights, stays on
    train_to(policy, 6.0)
    assert score_of(reference) == 3.0
    reference.update(step=1)
    assert score_of(reference) == 0.75 * 2 + 0.25 * 6 + 1
    reference.update(step=2)
    assert score_of(reference) == 0.75 * 3 + 0.25 * 6 + 1


def test_an_average_keeps_steps_that_the_weights_dtype_would_lose(policy: Policy) -> None:
    policy.to(torch.bfloat16)
    reference = MovingAverage(policy, decay=0.999)
    train_to(policy, 3.0)
    for step in range(1000):
        reference.update(step + 1)
    # In bfloat16 numbers near 2 are 1/64 apart and an average would never leave 2.
    assert float(reference.tensors()["network.weight"]) == pytest.approx(3 - 0.999**1000, abs=1e-3)
    with reference.active() as network:
        assert network.network.weight.dtype == torch.bfloat16


def test_a_synced_reference_becomes_the_policy_every_few_steps(policy: Policy) -> None:
    reference = PeriodicSync(policy, every=3)
    seen = []
    for step in range(1, 8):
        train_to(policy, 10.0 + step)
        reference.update(step)
        seen.append(score_of(reference) - 1)
    assert seen == [2, 2, 13, 13, 13, 16, 16]


def test_momentum_moves_the_policy_on_after_every_iteration(policy: Policy) -> None:
    """From 2 the optimiser finds 6: on to 6 + 0.5 * 4 = 8. From there it finds 5: on to 5 + 0.5 * (5 - 6) = 4.5."""
    reference = Extrapolation(policy, every=2, momentum=0.5)
    seen = []
    for step, found in enumerate((3.0, 6.0, 7.0, 5.0), start=1):
        train_to(policy, found)
        reference.update(step)
        seen.append((policy.network.weight.item(), score_of(reference) - 1))
    assert seen == [(3.0, 2.0), (8.0, 8.0), (7.0, 8.0), (4.5, 4.5)]


def test_extrapolated_weights_of_a_log_linear_policy_are_an_extrapolated_policy() -> None:
    """pi_hat_1 (pi_hat_1 / pi_hat_0)^a, normalised, of policies softmax(weights of features)."""
    generator = torch.Generator().manual_seed(0)
    features, start, found = (torch.randn(*shape, generator=generator) for shape in ((7, 3), (3,), (3,)))
    ours = (features @ (found + 0.3 * (found - start))).log_softmax(0)
    before, after = (features @ start).log_softmax(0), (features @ found).log_softmax(0)
    torch.testing.assert_close(ours, (after + 0.3 * (after - before)).log_softmax(0))


def test_momentum_goes_on_from_a_checkpoint(policy: Policy) -> None:
    reference = Extrapolation(policy, every=1, momentum=0.5)
    train_to(policy, 6.0)
    reference.update(step=1)
    saved = {name: value.clone() for name, value in reference.tensors().items()}
    again = Extrapolation(policy, every=1, momentum=0.5)
    again.restore(saved)
    train_to(policy, 5.0)
    again.update(step=2)
    assert policy.network.weight.item() == score_of(again) - 1 == 4.5
    with pytest.raises(CheckpointError, match="momentum"):
        again.restore(PeriodicSync(policy, every=1).tensors())


def test_the_policy_has_its_own_weights_outside_of_the_reference(policy: Policy) -> None:
    reference, weight = PeriodicSync(policy, every=1), policy.network.weight
    train_to(policy, 5.0)
    with pytest.raises(ValueError, match="in the middle"), reference.active():
        raise ValueError("in the middle")
    assert policy.network.weight is weight and weight.item() == 5.0
    assert policy.training and weight.requires_grad


def test_only_trained_weights_are_kept(policy: Policy) -> None:
    policy.network.base = nn.Parameter(torch.zeros(3), requires_grad=False)
    assert list(PeriodicSync(policy, every=1).tensors()) == ["network.weight"]


def test_a_moving_reference_goes_on_from_a_checkpoint(policy: Policy) -> None:
    reference = MovingAverage(policy, decay=0.5)
    train_to(policy, 8.0)
    reference.update(step=1)
    saved = {name: value.clone() for name, value in reference.tensors().items()}
    again = MovingAverage(policy, decay=0.5)
    again.restore(saved)
    assert score_of(again) == score_of(reference) == 6.0


def test_a_checkpoint_without_the_reference_is_refused(policy: Policy) -> None:
    with pytest.raises(CheckpointError, match="another `reference`"):
        PeriodicSync(policy, every=1).restore({})


def test_fixed_references_hash_what_is_not_trained(policy: Policy) -> None:
    policy.network.base = nn.Parameter(torch.zeros(3), requires_grad=False)
    assert [tensor.shape for tensor in AdapterOff(policy).weights()] == [(3,)]
    assert [tensor.shape for tensor in FrozenCopy(policy, nullcontext).weights()] == [(), (3,)]


WRONG = {
    "needs `decay`": {"strategy": "ema"},
    "needs `every`": {"strategy": "sync"},
    "takes no `decay`": {"decay": 0.9},
    "takes no `every`": {"strategy": "ema", "decay": 0.9, "every": 2},
    "needs `momentum`": {"strategy": "momentum", "every": 2},
    "takes no `momentum`": {"strategy": "sync", "every": 2, "momentum": 0.3},
    "less than 1": {"strategy": "ema", "decay": 1.0},
    "unknown": {"strategy": "ema", "decay": 0.9, "alpha": 0.1},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_section_is_refused(message: str, toy_config: Any, write_config: Any) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        mmalign.check(write_config(toy_config(reference=WRONG[message])))
    assert "reference" in str(error.value)


def test_a_moving_reference_that_nothing_uses_is_refused(toy_config: Any, write_config: Any) -> None:
    moving = {"strategy": "sync", "every": 2}
    with pytest.raises(ConfigError, match="no objective compares with a reference"):
        mmalign.check(write_config(toy_config(objective={"name": "sft"}, reference=moving)))


def test_without_momentum_a_run_is_that_of_iterative_dpo(
    toy_config: Any, write_config: Any, tables: Any, tmp_path: Path
) -> None:
    sync = {"strategy": "sync", "every": 2}
    strategies = [sync, *({**sync, "strategy": "momentum", "momentum": momentum} for momentum in (0.0, 0.5))]
    outputs = [str(tmp_path / name) for name in ("plain", "without", "accelerated")]
    configs = [toy_config(reference=one, output=own) for one, own in zip(strategies, outputs, strict=True)]
    plain, without, accelerated = (tables(mmalign.train(write_config(config))) for config in configs)
    assert without == plain != accelerated


def test_a_run_whose_reference_follows_stays_at_the_start_of_dpo(toy_config: Any, write_config: Any) -> None:
    """A reference that is the policy leaves no margin: the loss on held-out pairs is ln 2, also after training."""
    run = mmalign.train(write_config(toy_config(reference={"strategy": "sync", "every": 1})))
    assert run.before["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert run.after["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert mmalign.evaluate(run.output)["loss"] == pytest.approx(math.log(2), abs=1e-6)
    fixed = mmalign.train(write_config(toy_config(output=f"{run.output}-fixed")))
    assert fixed.after["loss"] < math.log(2) - 0.01
