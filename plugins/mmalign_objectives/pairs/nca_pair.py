"""Noise contrastive alignment on pairs: classifies responses as chosen against samples of the reference."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="nca_pair",
        summary="Noise contrastive alignment: raises the likelihood of chosen responses as such.",
        loss=f"{__name__}:nca_pair_loss",
        config=f"{__name__}:NCAPairConfig",
        per="pair",
        equation="-logsigmoid(c) - logsigmoid(-c) / 2 - logsigmoid(-r) / 2, c = beta (pc - rc), r = beta (pr - rr)",
        paper="Noise Contrastive Alignment of Language Models with Explicit Rewards (arXiv:2402.05369)",
    ),
)


class NCAPairConfig(Parameters):
    """Noise contrastive alignment on pairs."""

    beta: float = Field(default=0.01, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""


def nca_pair_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the noise-contrastive loss of every pair, which pulls the likelihood of chosen responses up as such.

    Every response is a sample of the reference with weight one half; the chosen one is a sample of the optimum, too.

    Args: the log-probs are those of `dpo_loss`, sums over steps.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2402.05369, the loss on two responses with all reward on the better one.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    noise = logistic(-chosen_rewards) + logistic(-rejected_rewards)
    return logistic(chosen_rewards) + 0.5 * noise, reward_metrics(chosen_rewards, rejected_rewards)
