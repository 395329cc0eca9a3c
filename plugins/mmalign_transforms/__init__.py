"""First-party transforms: records to records, before training."""

from __future__ import annotations

from mmalign import ConformanceSpec, TransformSpec, hookimpl

TRANSFORMS = [
    TransformSpec(
        name="pairs_from_ratings",
        summary="Preference pairs from ratings: best against worst, random or each, neighbours, or all.",
        target="mmalign_transforms.pairs_from_ratings:PairsFromRatings",
        config="mmalign_transforms.pairs_from_ratings:PairsFromRatingsConfig",
        paper="UltraFeedback: Boosting Language Models with Scaled AI Feedback (arXiv:2310.01377)",
    ),
    TransformSpec(
        name="curriculum",
        aliases=("curry_dpo",),
        summary="Stages of training over pairs, from easy to hard.",
        target="mmalign_transforms.curriculum:Curriculum",
        config="mmalign_transforms.curriculum:CurriculumConfig",
        paper="Curry-DPO: Enhancing Alignment using Curriculum Learning & Ranked Preferences (arXiv:2403.07230)",
    ),
    TransformSpec(
        name="filter",
        summary="Leaves out responses by length and origin, and pairs by their gap.",
        target="mmalign_transforms.filter:Filter",
        config="mmalign_transforms.filter:FilterConfig",
    ),
    TransformSpec(
        name="rad",
        aliases=("reward_augmented",),
        summary="Two records of every pair, conditioned on the score of either response.",
        target="mmalign_transforms.rad:Rad",
        config="mmalign_transforms.rad:RadConfig",
        paper="Reward-Augmented Data Enhances Direct Preference Alignment of LLMs (arXiv:2410.08067)",
    ),
    TransformSpec(
        name="rso",
        summary="Rejection sampling of scored candidates towards the optimal policy, then pairs at random.",
        target="mmalign_transforms.rso:Rso",
        config="mmalign_transforms.rso:RsoConfig",
        paper="Statistical Rejection Sampling Improves Preference Optimization (arXiv:2309.06657)",
    ),
    TransformSpec(
        name="subset",
        summary="A seeded part of the data; smaller parts lie within larger ones.",
        target="mmalign_transforms.subset:Subset",
        config="mmalign_transforms.subset:SubsetConfig",
        paper="Insights into Alignment: Evaluating DPO and its Variants Across Multiple Tasks (arXiv:2404.14723)",
    ),
    TransformSpec(
        name="upo",
        summary="Samples pairs by a classifier's certainty and stores label smoothing for what doubt is left.",
        target="mmalign_transforms.upo:Upo",
        config="mmalign_transforms.upo:UpoConfig",
        paper="Self-Evolutionary Large Language Models through Uncertainty-Enhanced Preference Optimization "
        "(arXiv:2409.11212)",
    ),
    TransformSpec(
        name="a_lol",
        aliases=("advantage_priority",),
        summary="Draws responses in proportion to their positive advantage over the value of the prompt.",
        target="mmalign_transforms.a_lol:ALoLSampling",
        config="mmalign_transforms.a_lol:ALoLSamplingConfig",
        paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
    ),
    TransformSpec(
        name="bvpo",
        summary="Every pair twice: with its reasoning traces, and with empty ones.",
        target="mmalign_transforms.bvpo:Bvpo",
        config="mmalign_transforms.bvpo:BvpoConfig",
        paper="From Noisy Traces to Stable Gradients: Bias-Variance Optimized Preference Optimization "
        "(arXiv:2510.05095)",
    ),
    TransformSpec(
        name="fspo",
        summary="Earlier preferences of the same user in front of every prompt.",
        target="mmalign_transforms.fspo:Fspo",
        config="mmalign_transforms.fspo:FspoConfig",
        paper="FSPO: Few-Shot Preference Optimization of Synthetic Preference Data (arXiv:2502.19312)",
    ),
    TransformSpec(
        name="knowpo",
        summary="Pairs about which knowledge to trust, a context or memory, from questions with both answers.",
        target="mmalign_transforms.knowpo:Knowpo",
        config="mmalign_transforms.knowpo:KnowpoConfig",
        paper="KnowPO: Knowledge-aware Preference Optimization for Controllable Knowledge Selection (arXiv:2408.03297)",
    ),
    TransformSpec(
        name="mapl",
        summary="Pairs of prompts for one response: all added instructions fulfilled, or some broken.",
        target="mmalign_transforms.mapl:Mapl",
        config="mmalign_transforms.mapl:MaplConfig",
        paper="Multi-Level Aware Preference Learning (arXiv:2505.12845)",
    ),
    TransformSpec(
        name="rationales",
        summary="Rationales of preferences as records of their own, to be imitated beside the pairs.",
        target="mmalign_transforms.rationales:Rationales",
        config="mmalign_transforms.rationales:RationalesConfig",
        paper="Data-Centric Human Preference Optimization with Rationales (arXiv:2407.14477)",
    ),
    TransformSpec(
        name="spo_degree",
        summary="Versions of responses that lack growing shares of their key content, with the level as a score.",
        target="mmalign_transforms.spo_degree:SpoDegree",
        config="mmalign_transforms.spo_degree:SpoDegreeConfig",
        paper="Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree "
        "Awareness (arXiv:2409.17791)",
    ),
]


@hookimpl
def register_transforms() -> list[TransformSpec]:
    """Announces the transforms."""
    return TRANSFORMS


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden-vector cases can be computed."""
    module = "mmalign_transforms.conformance"
    return [
        ConformanceSpec("rso_accept_prob", f"{module}:compute_acceptance", ("chosen_reward",), ("rso_beta",)),
        ConformanceSpec("upo", f"{module}:compute_upo", ("mc_dropout_probs", "mu", "beta_h")),
    ]
