"""Pairs of which each response is judged as such, or is anchored, against a reference. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_anchored_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="nca_pair",
            summary="Noise contrastive alignment: raises the likelihood of chosen responses as such.",
            loss="mmalign_objectives.nca_pair:nca_pair_loss",
            config="mmalign_objectives.nca_pair:NCAPairConfig",
            per="pair",
            equation="-logsigmoid(c) - logsigmoid(-c) / 2 - logsigmoid(-r) / 2, c = beta (pc - rc), r = beta (pr - rr)",
            paper="Noise Contrastive Alignment of Language Models with Explicit Rewards (arXiv:2402.05369)",
        ),
        ObjectiveSpec(
            name="apo_zero",
            summary="Raises chosen and lowers rejected responses: for chosen ones better than the policy.",
            loss="mmalign_objectives.apo:apo_zero_loss",
            config="mmalign_objectives.apo:APOConfig",
            per="pair",
            equation="1 - sigmoid(beta (pc - rc)) + sigmoid(beta (pr - rr))",
            paper="Anchored Preference Optimization and Contrastive Revisions (arXiv:2408.06266)",
        ),
        ObjectiveSpec(
            name="apo_down",
            summary="Lowers both responses, rejected ones more: for chosen ones worse than the policy.",
            loss="mmalign_objectives.apo:apo_down_loss",
            config="mmalign_objectives.apo:APOConfig",
            per="pair",
            equation="sigmoid(beta (pc - rc)) + 1 - sigmoid(beta ((pc - rc) - (pr - rr)))",
            paper="Anchored Preference Optimization and Contrastive Revisions (arXiv:2408.06266)",
        ),
        ObjectiveSpec(
            name="sppo_hard",
            summary="Regresses the log-ratios of chosen and rejected responses on opposite targets.",
            loss="mmalign_objectives.sppo:sppo_hard_loss",
            config="mmalign_objectives.sppo:SPPOConfig",
            per="pair",
            equation="(pc - rc - 1 / (2 beta))^2 + (pr - rr + 1 / (2 beta))^2",
            paper="Self-Play Preference Optimization for Language Model Alignment (arXiv:2405.00675)",
        ),
        ObjectiveSpec(
            name="rpo_sum",
            summary="DPO plus imitation of the chosen response by its summed log-prob.",
            loss="mmalign_objectives.rpo:rpo_sum_loss",
            config="mmalign_objectives.rpo:RPOSumConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) - eta beta pc",
            paper="Provably Mitigating Overoptimization in RLHF (arXiv:2405.16436)",
        ),
        ObjectiveSpec(
            name="rpo_mean",
            summary="DPO plus imitation of the chosen response by its mean log-prob.",
            loss="mmalign_objectives.rpo:rpo_mean_loss",
            config="mmalign_objectives.rpo:RPOMeanConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) - eta pc / lc",
            paper="Provably Mitigating Overoptimization in RLHF (arXiv:2405.16436)",
        ),
        ObjectiveSpec(
            name="vpo_offline",
            summary="DPO with pessimism: raises the implicit reward of responses like the data.",
            loss="mmalign_objectives.vpo:vpo_loss",
            config="mmalign_objectives.vpo:VPOOfflineConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) + incentive beta (pc - rc), incentive <= 0",
            paper="Value-Incentivized Preference Optimization (arXiv:2405.19320)",
        ),
        ObjectiveSpec(
            name="vpo_online",
            summary="DPO with optimism: lowers the implicit reward of what the reference says.",
            loss="mmalign_objectives.vpo:vpo_loss",
            config="mmalign_objectives.vpo:VPOOnlineConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) + incentive beta (pr - rr), incentive >= 0",
            paper="Value-Incentivized Preference Optimization (arXiv:2405.19320)",
        ),
    ]
