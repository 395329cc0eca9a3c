"""All responses to a prompt, compared with each other. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec, QuantitySpec


def list_list_quantities() -> list[QuantitySpec]:
    """Lists what these objectives need beside the quantities of the contract."""
    return [
        QuantitySpec(
            name="grades",
            summary="Rating of a response, else its win rate in the ranking; NaN for unknown or nothing to compare.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.grades:compute_grades",
        ),
        QuantitySpec(
            name="graded",
            summary="True for responses with a grade.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.grades:mark_graded",
        ),
        QuantitySpec(
            name="levels",
            summary="Preference level of a response, 1 for the best: its score `level`, else its rank; NaN if unknown.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.trpa:compute_levels",
            needs=("ranks", "prompt_index"),
        ),
        *_item_quantities(),
        *_step_quantities(),
    ]


def list_lists() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [*_lipo(), _pro(), *_nca(), _in_context_ranking(), _tpo_tree(), _trpa()]


def _lipo() -> list[ObjectiveSpec]:
    best = ObjectiveSpec(
        name="lipo_lambda",
        aliases=("lipo",),
        summary="LambdaRank loss of the implicit rewards of all responses to a prompt.",
        loss="mmalign_objectives.lipo:lipo_lambda_loss",
        config="mmalign_objectives.lipo:LiPOConfig",
        per="prompt",
        over="graded",
        equation="sum over g_i > g_j of -delta_ij logsigmoid(s_i - s_j), delta: change of discounted gain by a swap",
        paper="LiPO: Listwise Preference Optimization through Learning-to-Rank (arXiv:2402.01878)",
    )
    others = {
        "point_square": ("Squared distance of implicit rewards from grades.", "sum_i (g_i - s_i)^2"),
        "point_sigmoid": (
            "Cross-entropy of the sigmoid of implicit rewards with grades in [0, 1].",
            "-sum_i (g_i logsigmoid(s_i) + (1 - g_i) logsigmoid(-s_i))",
        ),
        "pair_logistic": ("DPO on every pair of a list.", "sum over g_i > g_j of -logsigmoid(s_i - s_j)"),
        "pair_hinge": ("Hinge on every pair of a list.", "sum over g_i > g_j of max(0, 1 - (s_i - s_j))"),
        "pair_square": (
            "Squared distance of reward margins from grade margins.",
            "sum over g_i > g_j of (s_i - s_j - (g_i - g_j))^2",
        ),
        "list_mle": (
            "Plackett-Luce likelihood of the order of a list.",
            "-sum_k (s_k - logsumexp over j >= k of s_j), best first",
        ),
        "softmax": (
            "Cross-entropy of the softmax of a list's rewards with its grades.",
            "-sum_i g_i / sum(g) log softmax(s)_i",
        ),
    }
    presets = [
        replace(
            best,
            name=f"lipo_{name}",
            aliases=(),
            summary=summary,
            loss=f"mmalign_objectives.lipo:lipo_{name}_loss",
            equation=equation,
        )
        for name, (summary, equation) in others.items()
    ]
    return [best, *presets]


def _pro() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="pro",
        summary="Every response of a ranked list against all worse ones, plus the likelihood of the best.",
        loss="mmalign_objectives.pro:pro_loss",
        config="mmalign_objectives.pro:PROConfig",
        per="prompt",
        over="graded",
        equation=(
            "sum_k (log(exp(t_kk m_k) + sum over j > k of exp(t_kj m_j)) - t_kk m_k) - nll_weight (K - 1)^2 p_1, best "
            "first, t_kj = g_k - g_j, t_kk = max_j t_kj"
        ),
        paper="Preference Ranking Optimization for Human Alignment (arXiv:2306.17492)",
    )


def _nca() -> list[ObjectiveSpec]:
    nca = ObjectiveSpec(
        name="nca_list",
        summary="Noise contrastive alignment of K responses: each is classified against noise by itself.",
        loss="mmalign_objectives.nca_list:nca_list_loss",
        config="mmalign_objectives.nca_list:NCAListConfig",
        per="prompt",
        over="graded",
        equation="-sum_k (softmax(g / reward_temperature)_k logsigmoid(s_k) + logsigmoid(-s_k) / K)",
        paper="Noise Contrastive Alignment of Language Models with Explicit Rewards (arXiv:2402.05369)",
    )
    compared = replace(
        nca,
        name="info_nca",
        summary="Noise contrastive alignment of K responses: which is the best is classified.",
        loss="mmalign_objectives.nca_list:info_nca_loss",
        equation="-sum_k softmax(g / reward_temperature)_k log softmax(s)_k",
    )
    return [nca, compared]


def _in_context_ranking() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="in_context_ranking",
        summary="Ranks the items of one response by their relevance (the IRPO that is about lists inside a response).",
        loss="mmalign_objectives.in_context_ranking:in_context_ranking_loss",
        config="mmalign_objectives.in_context_ranking:InContextRankingConfig",
        per="response",
        over="ranked_items",
        equation=(
            "-mean_i (2^g_i - 1) / log2(1 + i) logsigmoid(-log mean_{j != i} exp(beta (d_j - d_i))), d: mean log-ratio"
        ),
        paper="In-context Ranking Preference Optimization (arXiv:2504.15477)",
    )


def _item_quantities() -> list[QuantitySpec]:
    index = QuantitySpec(
        name="item_index",
        summary="Place in its response's list of the item that a step belongs to, from 1; 0 for none.",
        axes="NT",
        stage="data",
        compute="mmalign_objectives.in_context_ranking:compute_item_index",
        needs=("step_mask", "prompt_index"),
    )
    return [
        index,
        replace(
            index,
            name="item_relevance",
            summary="Relevance of the item that a step belongs to; NaN for none.",
            compute="mmalign_objectives.in_context_ranking:compute_item_relevance",
        ),
        replace(
            index,
            name="ranked_items",
            summary="True for responses with at least two items.",
            axes="N",
            needs=None,
            compute="mmalign_objectives.in_context_ranking:mark_ranked_items",
        ),
    ]


def _tpo_tree() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="tpo_tree",
        summary="Branches of a reasoning tree as a ranked list, compared step by step (the TPO that is about trees).",
        loss="mmalign_objectives.tpo_tree:tpo_tree_loss",
        config="mmalign_objectives.tpo_tree:TPOTreeConfig",
        per="prompt",
        over="graded",
        equation=(
            "sum over g_i > g_j of -delta_ij logsigmoid(beta sum_s (2 - cos(h_is, h_js)) (d_is - d_js)), d_is: "
            "log-ratio of step s, delta: change of discounted gain by a swap"
        ),
        paper="TPO: Aligning Large Language Models with Multi-branch & Multi-step Preference Trees (arXiv:2410.12854)",
    )


def _step_quantities() -> list[QuantitySpec]:
    return [
        QuantitySpec(
            name="step_index",
            summary="Reasoning step of a token, from 1: spans of the score `steps`, else turns; 0 for none.",
            axes="NT",
            stage="data",
            compute="mmalign_objectives.reasoning_steps:compute_step_index",
            needs=("step_mask", "prompt_index"),
        ),
        QuantitySpec(
            name="step_embeddings",
            summary="Mean state of the reference over every reasoning step.",
            axes="NSD",
            stage="frozen",
            compute="mmalign_objectives.reasoning_steps:average_states",
        ),
    ]


def _trpa() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="trpa",
        summary="Pairs across preference levels, those of the best level with a larger margin; add a `kl_penalty`.",
        loss="mmalign_objectives.trpa:trpa_loss",
        config="mmalign_objectives.trpa:TRPAConfig",
        per="pair",
        equation="-logsigmoid(k beta ((pc - rc) / lc - (pr - rr) / lr)), k = anisotropy on level 1, else 1",
        paper="Trust Region Preference Approximation (arXiv:2504.04524)",
    )
