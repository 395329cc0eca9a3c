"""Pairs, without a reference. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_reference_free_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="slic_hf",
            aliases=("slic",),
            summary="Hinge loss of the log-prob margin plus the likelihood of the chosen response.",
            loss="mmalign_objectives.slic_hf:slic_hf_loss",
            config="mmalign_objectives.slic_hf:SLiCHFConfig",
            per="pair",
            equation="max(0, delta - pc + pr) - nll_weight pc",
            paper="SLiC-HF: Sequence Likelihood Calibration with Human Feedback (arXiv:2305.10425)",
        ),
        ObjectiveSpec(
            name="simpo",
            summary="Logistic loss of the margin of mean log-probs, less a required margin.",
            loss="mmalign_objectives.simpo:simpo_loss",
            config="mmalign_objectives.simpo:SimPOConfig",
            per="pair",
            equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma)",
            paper="SimPO: Simple Preference Optimization with a Reference-Free Reward (arXiv:2405.14734)",
        ),
        ObjectiveSpec(
            name="orpo",
            summary="Likelihood of the chosen response plus a logistic loss of the log odds ratio.",
            loss="mmalign_objectives.orpo:orpo_loss",
            config="mmalign_objectives.orpo:ORPOConfig",
            per="pair",
            # The odds are those of a probability, which a bound on a log-prob is not.
            log_prob_kinds=("exact",),
            equation="-pc / lc - odds_weight logsigmoid(log_odds(pc / lc) - log_odds(pr / lr))",
            paper="ORPO: Monolithic Preference Optimization without Reference Model (arXiv:2403.07691)",
        ),
        ObjectiveSpec(
            name="cpo",
            summary="DPO with a uniform reference plus the likelihood of the chosen response.",
            loss="mmalign_objectives.cpo:cpo_loss",
            config="mmalign_objectives.cpo:CPOConfig",
            per="pair",
            equation="-logsigmoid(beta (pc - pr)) - nll_weight pc / lc",
            paper="Contrastive Preference Optimization (arXiv:2401.08417)",
        ),
        ObjectiveSpec(
            name="alpha_po",
            aliases=("alphapo",),
            summary="SimPO whose reward is bent, which changes how fast likelihoods fall.",
            loss="mmalign_objectives.simpo:simpo_loss",
            config="mmalign_objectives.simpo:AlphaPOConfig",
            per="pair",
            equation="-logsigmoid(f(pc / lc) - f(pr / lr) - gamma), f(u) = beta (1 - exp(-alpha u)) / alpha",
            paper="AlphaPO: Reward Shape Matters for LLM Alignment (arXiv:2501.03884)",
        ),
        ObjectiveSpec(
            name="cpo_simpo",
            summary="SimPO plus the likelihood of the chosen response.",
            loss="mmalign_objectives.simpo:simpo_loss",
            config="mmalign_objectives.simpo:CPOSimPOConfig",
            per="pair",
            equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma) - nll_weight pc / lc",
            paper="Contrastive Preference Optimization (arXiv:2401.08417) with SimPO (arXiv:2405.14734)",
        ),
        ObjectiveSpec(
            name="asft",
            summary="Aligned supervised fine-tuning: likelihood and absolute odds of both responses.",
            loss="mmalign_objectives.asft:asft_loss",
            config="mmalign_objectives.asft:ASFTConfig",
            per="pair",
            # The odds are those of a probability, which a bound on a log-prob is not.
            log_prob_kinds=("exact",),
            equation="-pc / lc - odds_weight (logsigmoid(log_odds(pc / lc)) + logsigmoid(-log_odds(pr / lr)))",
            paper="ASFT: Aligned Supervised Fine-Tuning through Absolute Likelihood (arXiv:2409.10571)",
        ),
    ]
