"""First-party objectives: what there is, without importing torch. The losses are in the modules of the same names."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ConformanceSpec, ObjectiveSpec, QuantitySpec, hookimpl
from mmalign_objectives.conformance_index import list_conformance

_SUMS = ("policy_chosen_sequence_logps", "policy_rejected_sequence_logps")
_MEANS = ("policy_chosen_mean_logps", "policy_rejected_mean_logps")
_REFERENCE_SUMS = ("reference_chosen_sequence_logps", "reference_rejected_sequence_logps")
_REFERENCE_MEANS = ("reference_chosen_mean_logps", "reference_rejected_mean_logps")


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Announces the objectives."""
    return [*_supervised(), *_reference_pairs(), *_reference_free_pairs(), *_unpaired(), *_policy_gradients(), *_kl()]


@hookimpl
def register_quantities() -> list[QuantitySpec]:
    """Announces what these objectives need beside the quantities of the contract."""
    return [
        QuantitySpec(
            name="kl_reference_point",
            summary="Estimate of KL(policy, reference) from responses under other prompts, at least 0.",
            axes="",
            needs=("reference_logps",),
            stage="step",
            compute="mmalign_objectives.kto:estimate_kl_reference_point",
            paper="KTO: Model Alignment as Prospect Theoretic Optimization (arXiv:2402.01306)",
        ),
    ]


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors these objectives can compute."""
    return list_conformance()


def _supervised() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="sft",
            summary="Maximum likelihood of the target responses.",
            loss="mmalign_objectives.sft:sft_loss",
            config="mmalign_objectives.sft:SFTConfig",
            per="step",
            needs=("policy_logps",),
            over="targets",
            equation="-policy_logps",
        ),
        ObjectiveSpec(
            name="reward_model",
            aliases=("bradley_terry",),
            summary="Bradley-Terry likelihood of preferences under a score head.",
            loss="mmalign_objectives.reward_model:reward_model_loss",
            config="mmalign_objectives.reward_model:RewardModelConfig",
            per="pair",
            needs=("chosen_scores", "rejected_scores", "pair_strength"),
            equation="-logsigmoid((chosen - rejected - margin) / temperature) + centering (chosen + rejected)^2",
            paper="Training language models to follow instructions with human feedback (arXiv:2203.02155)",
        ),
    ]


def _reference_pairs() -> list[ObjectiveSpec]:
    ipo_paper = "A General Theoretical Paradigm to Understand Learning from Human Preferences (arXiv:2310.12036)"
    return [
        ObjectiveSpec(
            name="dpo",
            summary="Logistic loss of the implicit-reward margin against the reference.",
            loss="mmalign_objectives.dpo:dpo_loss",
            config="mmalign_objectives.dpo:DPOConfig",
            per="pair",
            needs=_SUMS + _REFERENCE_SUMS,
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr)))",
            paper="Direct Preference Optimization: Your Language Model is Secretly a Reward Model (arXiv:2305.18290)",
        ),
        ObjectiveSpec(
            name="cdpo",
            summary="DPO for labels of which some are wrong.",
            loss="mmalign_objectives.dpo:dpo_loss",
            config="mmalign_objectives.dpo:CDPOConfig",
            per="pair",
            needs=_SUMS + _REFERENCE_SUMS,
            equation="-(1 - eps) logsigmoid(m) - eps logsigmoid(-m), m = beta ((pc - rc) - (pr - rr))",
            paper="A note on DPO with noisy preferences (Mitchell, 2023)",
        ),
        ObjectiveSpec(
            name="ipo",
            aliases=("ipo_mean",),
            summary="Regresses the margin of mean log-ratios on a fixed target.",
            loss="mmalign_objectives.ipo:ipo_loss",
            config="mmalign_objectives.ipo:IPOConfig",
            per="pair",
            needs=_MEANS + _REFERENCE_MEANS,
            equation="((pc - rc) / lc - (pr - rr) / lr - 1 / (2 tau))^2",
            paper=ipo_paper,
        ),
        ObjectiveSpec(
            name="ipo_sum",
            summary="Regresses the margin of summed log-ratios on a fixed target, as printed in the paper.",
            loss="mmalign_objectives.ipo:ipo_loss",
            config="mmalign_objectives.ipo:IPOConfig",
            per="pair",
            needs=_SUMS + _REFERENCE_SUMS,
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
            needs=_SUMS + _REFERENCE_SUMS,
            equation="max(0, 1 - beta ((pc - rc) - (pr - rr)))",
            paper="Statistical Rejection Sampling Improves Preference Optimization (arXiv:2309.06657)",
        ),
    ]


def _reference_free_pairs() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="slic_hf",
            aliases=("slic",),
            summary="Hinge loss of the log-prob margin plus the likelihood of the chosen response.",
            loss="mmalign_objectives.slic_hf:slic_hf_loss",
            config="mmalign_objectives.slic_hf:SLiCHFConfig",
            per="pair",
            needs=_SUMS,
            equation="max(0, delta - pc + pr) - nll_weight pc",
            paper="SLiC-HF: Sequence Likelihood Calibration with Human Feedback (arXiv:2305.10425)",
        ),
        ObjectiveSpec(
            name="simpo",
            summary="Logistic loss of the margin of mean log-probs, less a required margin.",
            loss="mmalign_objectives.simpo:simpo_loss",
            config="mmalign_objectives.simpo:SimPOConfig",
            per="pair",
            needs=_MEANS,
            equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma)",
            paper="SimPO: Simple Preference Optimization with a Reference-Free Reward (arXiv:2405.14734)",
        ),
        ObjectiveSpec(
            name="orpo",
            summary="Likelihood of the chosen response plus a logistic loss of the log odds ratio.",
            loss="mmalign_objectives.orpo:orpo_loss",
            config="mmalign_objectives.orpo:ORPOConfig",
            per="pair",
            needs=_MEANS,
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
            needs=(*_SUMS, "policy_chosen_mean_logps"),
            equation="-logsigmoid(beta (pc - pr)) - nll_weight pc / lc",
            paper="Contrastive Preference Optimization (arXiv:2401.08417)",
        ),
    ]


def _unpaired() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="kto",
            summary="Prospect-theoretic value of single labelled responses.",
            loss="mmalign_objectives.kto:kto_loss",
            config="mmalign_objectives.kto:KTOConfig",
            per="response",
            needs=("policy_sequence_logps", "reference_sequence_logps", "labels", "kl_reference_point"),
            over="labelled",
            equation="weight (1 - sigmoid(+-beta (p - r - kl_reference_point))), + desirable, - undesirable",
            paper="KTO: Model Alignment as Prospect Theoretic Optimization (arXiv:2402.01306)",
        ),
    ]


def _policy_gradients() -> list[ObjectiveSpec]:
    surrogate = "-min(ratio advantages, clip(ratio, 1 - clip_low, 1 + clip_high) advantages)"
    clipped = ObjectiveSpec(
        name="policy_gradient",
        aliases=("ppo_clip",),
        summary="Clipped policy gradient, a mean over steps.",
        loss="mmalign_objectives.policy_gradient:policy_gradient_loss",
        config="mmalign_objectives.policy_gradient:PolicyGradientConfig",
        per="step",
        needs=("policy_logps", "behaviour_logps", "advantages", "step_mask"),
        # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
        log_prob_kinds=("exact",),
        equation=surrogate,
        paper="Proximal Policy Optimization Algorithms (arXiv:1707.06347)",
    )
    return [
        clipped,
        replace(
            clipped,
            name="grpo",
            aliases=(),
            summary="Clipped policy gradient, a mean over responses of the mean over their steps.",
            config="mmalign_objectives.policy_gradient:GRPOConfig",
            aggregation="sequence_mean",
            paper="DeepSeekMath: Pushing the Limits of Mathematical Reasoning (arXiv:2402.03300)",
        ),
        replace(
            clipped,
            name="dr_grpo",
            aliases=(),
            summary="Clipped policy gradient, summed over steps and divided by a constant horizon.",
            config="mmalign_objectives.policy_gradient:DrGRPOConfig",
            aggregation="constant",
            paper="Understanding R1-Zero-Like Training: A Critical Perspective (arXiv:2503.20783)",
        ),
        replace(
            clipped,
            name="dapo",
            aliases=(),
            summary="Clipped policy gradient with a higher upper limit, a mean over steps.",
            config="mmalign_objectives.policy_gradient:DAPOConfig",
            paper="DAPO: An Open-Source LLM Reinforcement Learning System at Scale (arXiv:2503.14476)",
        ),
        replace(
            clipped,
            name="gspo",
            aliases=(),
            summary="Clipped policy gradient with one importance ratio a response.",
            loss="mmalign_objectives.policy_gradient:sequence_policy_gradient_loss",
            config="mmalign_objectives.policy_gradient:GSPOConfig",
            aggregation="sequence_mean",
            equation=f"{surrogate}, ratio = exp(mean over steps of the log-ratio)",
            paper="Group Sequence Policy Optimization (arXiv:2507.18071)",
        ),
    ]


def _kl() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="kl_penalty",
            summary="KL to the reference, to be added to another objective.",
            loss="mmalign_objectives.kl_penalty:kl_penalty_loss",
            config="mmalign_objectives.kl_penalty:KLPenaltyConfig",
            per="step",
            needs=("policy_logps", "reference_logps", "step_mask"),
            equation="k1: d; k2: d^2 / 2; k3: exp(-d) + d - 1; d = policy_logps - reference_logps",
            paper="Approximating KL Divergence (Schulman, 2020)",
        ),
    ]
