"""REINFORCE leave-one-out: every response is compared with the others to its prompt."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import Parameters
from mmalign_advantages.groups import centre_rewards


class RLOOConfig(Parameters):
    """REINFORCE leave-one-out."""

    normalise: bool = False
    """Also centre and scale the advantages of the whole batch to a standard deviation of 1."""
    epsilon: float = Field(default=1e-4, gt=0)
    """Added to that standard deviation."""


class RLOOWithKLConfig(RLOOConfig):
    """REINFORCE leave-one-out with a KL penalty inside the reward."""

    beta: float = Field(default=0.05, ge=0)
    """Reward taken off for every nat that the sampled response is likelier than under the reference."""


def rloo_kl_advantages(
    composite_rewards: Tensor,
    prompt_index: Tensor,
    behaviour_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    *,
    beta: float,
    normalise: bool = False,
    epsilon: float = 1e-4,
) -> Tensor:
    """Leave-one-out advantages of rewards less beta times the response's log-ratio to the reference.

    Args:
        composite_rewards: [N]; NaN ones take part in no mean and get advantage 0.
        prompt_index: [N], which prompt a response answers.
        behaviour_sequence_logps: [N], nats, of the policy when it sampled.
        reference_sequence_logps: [N], nats.
        beta: at least 0; 0 is `rloo_advantages`.
        normalise, epsilon: as for `rloo_advantages`.

    Returns:
        advantages [N].

    Source: arXiv:2402.14740.
    """
    penalised = composite_rewards - beta * (behaviour_sequence_logps - reference_sequence_logps)
    return rloo_advantages(penalised, prompt_index, normalise=normalise, epsilon=epsilon)


def rloo_advantages(
    composite_rewards: Tensor, prompt_index: Tensor, *, normalise: bool = False, epsilon: float = 1e-4
) -> Tensor:
    """Subtracts from every reward the mean reward of the other responses to its prompt.

    Args:
        composite_rewards: [N]; NaN ones take part in no mean and get advantage 0.
        prompt_index: [N], which prompt a response answers; groups may be of any size.
        normalise: centre and scale the result over the batch.
        epsilon: added to the unbiased standard deviation of the batch, positive.

    Returns:
        advantages [N]; 0 for a response without others.

    Source: arXiv:2402.14740, equation 8.
    """
    centred = centre_rewards(composite_rewards, prompt_index)
    # R_i - (sum of the others) / (n - 1) is n / (n - 1) times the deviation from the mean of all n.
    advantages = centred.deviations * centred.counts / (centred.counts - 1).clamp(min=1)
    if not normalise or int(centred.scored.sum()) < 2:
        return advantages
    scored = advantages[centred.scored]
    return ((advantages - scored.mean()) / (scored.std() + epsilon)).where(centred.scored, 0)
