"""Pairs, judged against a reference. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec
from mmalign_objectives.specs.names import SUMS_FOR_MEANS


def list_reference_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    ipo_paper = "A General Theoretical Paradigm to Understand Learning from Human Preferences (arXiv:2310.12036)"
    return [
        ObjectiveSpec(
            name="dpo",
            summary="Logistic loss of the implicit-reward margin against the reference.",
            loss="mmalign_objectives.dpo:dpo_loss",
            config="mmalign_objectives.dpo:DPOConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr)))",
            paper="Direct Preference Optimization: Your Language Model is Secretly a Reward Model (arXiv:2305.18290)",
        ),
        ObjectiveSpec(
            name="cdpo",
            summary="DPO for labels of which some are wrong.",
            loss="mmalign_objectives.dpo:dpo_loss",
            config="mmalign_objectives.dpo:CDPOConfig",
            per="pair",
            equation="-(1 - eps) logsigmoid(m) - eps logsigmoid(-m), m = beta ((pc - rc) - (pr - rr))",
            paper="A note on DPO with noisy preferences (Mitchell, 2023)",
        ),
        ObjectiveSpec(
            name="dove",
            summary="DPO on pairs of prompt and response, in data whose prompts differ and are scored, too.",
            loss="mmalign_objectives.dpo:dpo_loss",
            config="mmalign_objectives.dpo:DPOConfig",
            per="pair",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr))), p and r joint log-probs of prompt and response",
            paper="Comparing Bad Apples to Good Oranges: Joint Preference Optimization (arXiv:2404.00530)",
        ),
        ObjectiveSpec(
            name="ipo",
            aliases=("ipo_mean",),
            summary="Regresses the margin of mean log-ratios on a fixed target.",
            loss="mmalign_objectives.ipo:ipo_loss",
            config="mmalign_objectives.ipo:IPOConfig",
            per="pair",
            equation="((pc - rc) / lc - (pr - rr) / lr - 1 / (2 tau))^2",
            paper=ipo_paper,
        ),
        ObjectiveSpec(
            name="ipo_sum",
            summary="Regresses the margin of summed log-ratios on a fixed target, as printed in the paper.",
            loss="mmalign_objectives.ipo:ipo_loss",
            config="mmalign_objectives.ipo:IPOConfig",
            names=SUMS_FOR_MEANS,
            per="pair",
            equation="((pc - rc) - (pr - rr) - 1 / (2 tau))^2",
            paper=ipo_paper,
        ),
        ObjectiveSpec(
            name="hinge",
            aliases=("slic_norm",),
            summary="Hinge loss of the implicit-reward margin against the reference.",
            loss="mmalign_objectives.hinge:hinge_loss",
            config="mmalign_objectives.hinge:HingeConfig",
            per="pair",
            equation="max(0, 1 - beta ((pc - rc) - (pr - rr)))",
            paper="Statistical Rejection Sampling Improves Preference Optimization (arXiv:2309.06657)",
        ),
    ]
