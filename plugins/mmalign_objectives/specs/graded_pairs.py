"""Pairs of which the records tell more than which is better: ratings, values, votes, visits. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec

_copg_group = ObjectiveSpec(
    name="copg_group",
    summary="Contrastive policy gradient over all rated responses to a prompt.",
    loss="mmalign_objectives.copg:copg_group_loss",
    config="mmalign_objectives.copg:CoPGConfig",
    per="prompt",
    over="ratings",
    equation="-2 cov(R - beta / 2 d, d), d = p - r",
    paper="Contrastive Policy Gradient (arXiv:2406.19185)",
)


def list_graded_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="modpo",
            summary="Multi-objective DPO: rewards of other objectives enter as a margin.",
            loss="mmalign_objectives.modpo:modpo_loss",
            config="mmalign_objectives.modpo:MODPOConfig",
            per="pair",
            over="margin_rewards",
            equation="-logsigmoid((beta ((pc - rc) - (pr - rr)) - w (m_chosen - m_rejected)) / (1 - sum(w)))",
            paper="Beyond One-Preference-Fits-All Alignment: Multi-Objective DPO (arXiv:2310.03708)",
        ),
        ObjectiveSpec(
            name="copg",
            summary="Contrastive policy gradient: two rated responses of any origin, each the baseline of the other.",
            loss="mmalign_objectives.copg:copg_loss",
            config="mmalign_objectives.copg:CoPGConfig",
            per="pair",
            over="ratings",
            equation="-(R_c - R_r - beta / 2 m) m, m = (pc - rc) - (pr - rr)",
            paper="Contrastive Policy Gradient (arXiv:2406.19185)",
        ),
        _copg_group,
        replace(
            _copg_group,
            name="copg_online",
            names={"ratings": "composite_rewards"},
            summary="Contrastive policy gradient on sampled responses and their composite rewards.",
            over="composite_rewards",
        ),
        ObjectiveSpec(
            name="irepo",
            summary="Regresses the implicit-reward margin on the logit of the share of annotators that agree.",
            loss="mmalign_objectives.irepo:irepo_loss",
            config="mmalign_objectives.irepo:IREPOConfig",
            per="pair",
            equation="(beta ((pc - rc) - (pr - rr)) - logit(p))^2",
            paper="iREPO: implicit Reward Pairwise Difference Empirical Preference Optimization (arXiv:2405.15230)",
        ),
        ObjectiveSpec(
            name="step_apo",
            summary="DPO on sibling steps with a margin by the values of the states they lead to.",
            loss="mmalign_objectives.step_apo:step_apo_loss",
            config="mmalign_objectives.step_apo:StepAPOConfig",
            per="pair",
            over="next_values",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr)) - V_chosen + V_rejected)",
            paper="CPL: Critical Plan Step Learning Boosts LLM Generalization in Reasoning Tasks (arXiv:2409.08642)",
        ),
        ObjectiveSpec(
            name="mcts_dpo",
            summary="Conservative DPO on sibling steps with label smoothing from visit counts.",
            loss="mmalign_objectives.mcts_dpo:mcts_dpo_loss",
            config="mmalign_objectives.mcts_dpo:MCTSDPOConfig",
            per="pair",
            over="visit_counts",
            equation="-(1 - a) logsigmoid(m) - a logsigmoid(-m), a = min(N_r / (max(1, N_c) + N_r), 1/2)",
            paper="Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning (arXiv:2405.00451)",
        ),
        ObjectiveSpec(
            name="upo",
            summary="DPO with label smoothing by the uncertainty of each pair, and the likelihood of chosen.",
            loss="mmalign_objectives.upo:upo_loss",
            config="mmalign_objectives.upo:UPOConfig",
            per="pair",
            equation="-(1 - a) logsigmoid(m) - a logsigmoid(-m) - nll_weight pc / |c|, "
            "m = beta ((pc - rc) - (pr - rr))",
            paper="Self-Evolutionary Large Language Models through Uncertainty-Enhanced Preference Optimization "
            "(arXiv:2409.11212)",
        ),
        ObjectiveSpec(
            name="mapl_inter",
            summary="MAPL, inter-sample: of two pairs of a record the stronger one should have the larger margin.",
            loss="mmalign_objectives.mapl:mapl_inter_loss",
            config="mmalign_objectives.mapl:MAPLConfig",
            per="prompt",
            over="ordered_pairs",
            equation="mean over s_i > s_j of -logsigmoid(beta (m_i - m_j)), m = (pc - rc) - (pr - rr)",
            paper="Multi-Level Aware Preference Learning (arXiv:2505.12845)",
        ),
        ObjectiveSpec(
            name="bvpo",
            summary="DPO on pairs with a reasoning trace, mixed with pairs whose trace is empty.",
            loss="mmalign_objectives.bvpo:bvpo_loss",
            config="mmalign_objectives.bvpo:BVPOConfig",
            per="pair",
            equation="-2 w logsigmoid(beta ((pc - rc) - (pr - rr))), w = a with a trace, 1 - a without",
            paper="From Noisy Traces to Stable Gradients (arXiv:2510.05095)",
        ),
    ]
