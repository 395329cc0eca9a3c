"""Pairs, judged by the margin against a reference: DPO with another link, divergence or weight. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec
from mmalign_objectives.specs.names import MEANS_FOR_SUMS


def list_margin_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="ln_dpo",
            aliases=("dpo_norm",),
            summary="DPO on mean log-probs: every log-ratio is divided by its own length.",
            loss="mmalign_objectives.dpo:dpo_loss",
            config="mmalign_objectives.dpo:LengthNormalisedDPOConfig",
            names=MEANS_FOR_SUMS,
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) / lc - (pr - rr) / lr))",
            paper="TULU 3: Pushing Frontiers in Open Language Model Post-Training (arXiv:2411.15124)",
        ),
        ObjectiveSpec(
            name="robust_dpo",
            summary="DPO whose expectation over labels flipped at a known rate is that of true labels.",
            loss="mmalign_objectives.robust_dpo:robust_dpo_loss",
            config="mmalign_objectives.robust_dpo:RobustDPOConfig",
            per="pair",
            equation="((eps - 1) logsigmoid(m) + eps logsigmoid(-m)) / (1 - 2 eps), m = beta ((pc - rc) - (pr - rr))",
            paper="Provably Robust DPO: Aligning Language Models with Noisy Feedback (arXiv:2403.00409)",
        ),
        ObjectiveSpec(
            name="exo",
            aliases=("exo_pair",),
            summary="Reverse KL from the preference that the policy implies to smoothed labels.",
            loss="mmalign_objectives.exo:exo_loss",
            config="mmalign_objectives.exo:EXOConfig",
            per="pair",
            equation="KL([q, 1 - q], [1 - eps, eps]), q = sigmoid(beta ((pc - rc) - (pr - rr)))",
            paper="Towards Efficient Exact Optimization of Language Model Alignment (arXiv:2402.00856)",
        ),
        ObjectiveSpec(
            name="discopop",
            summary="Discovered blend of logistic and exponential loss of the implicit-reward margin.",
            loss="mmalign_objectives.discopop:discopop_loss",
            config="mmalign_objectives.discopop:DiscoPOPConfig",
            per="pair",
            equation="(w - 1) logsigmoid(m) + w exp(-m), w = sigmoid(m / temperature), m = beta (pc - rc - pr + rr)",
            paper="Discovering Preference Optimization Algorithms with and for LLMs (arXiv:2406.08414)",
        ),
        ObjectiveSpec(
            name="f_dpo",
            aliases=("fdpo",),
            summary="DPO constrained by the forward KL, Jensen-Shannon or an alpha divergence.",
            loss="mmalign_objectives.f_dpo:f_dpo_loss",
            config="mmalign_objectives.f_dpo:FDPOConfig",
            per="pair",
            equation="-logsigmoid(beta (f'(exp(pc - rc)) - f'(exp(pr - rr))))",
            paper="Beyond Reverse KL: Generalizing Direct Preference Optimization (arXiv:2309.16240)",
        ),
        ObjectiveSpec(
            name="dpo_gamma",
            summary="DPO with the reference attenuated, so that its wrong rankings weigh less.",
            loss="mmalign_objectives.dpo_gamma:dpo_gamma_loss",
            config="mmalign_objectives.dpo_gamma:DPOGammaConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - pr) - gamma (rc - rr)))",
            paper="Preference Learning Algorithms Do Not Learn Preference Rankings (arXiv:2405.19534)",
        ),
        ObjectiveSpec(
            name="flex_dpo",
            summary="DPO with a lower temperature for rejected responses, whose likelihood then falls less.",
            loss="mmalign_objectives.flex_dpo:flex_dpo_loss",
            config="mmalign_objectives.flex_dpo:FlexDPOConfig",
            per="pair",
            equation="-logsigmoid(beta_chosen (pc - rc) - beta_rejected (pr - rr))",
            paper="3D-Properties: Identifying Challenges in DPO and Charting a Path Forward (arXiv:2406.07327)",
        ),
    ]
