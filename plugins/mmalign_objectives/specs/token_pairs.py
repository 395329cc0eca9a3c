"""Pairs, judged with the whole distributions of their steps against a reference. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec, QuantitySpec

_TDPO = "Token-level Direct Preference Optimization (arXiv:2404.11999)"
_SPARSEPO = "SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks (arXiv:2410.05102)"


def list_token_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    tdpo1 = ObjectiveSpec(
        name="tdpo1",
        summary="Token-level DPO, first form: DPO less the difference of the forward KLs of both responses.",
        loss="mmalign_objectives.tdpo:tdpo_loss",
        config="mmalign_objectives.tdpo:TDPO1Config",
        per="pair",
        log_prob_kinds=("exact",),
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr) - alpha (kr - kc))), k = sum_t KL(reference, policy)",
        paper=_TDPO,
    )
    tdpo2 = replace(
        tdpo1,
        name="tdpo2",
        summary="Token-level DPO, second form: the KL of the chosen response is a constant.",
        config="mmalign_objectives.tdpo:TDPO2Config",
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr) - alpha (kr - detach(kc)))), k = sum_t KL(reference, policy)",
    )
    return [tdpo1, tdpo2, *_list_masked()]


def _list_masked() -> list[ObjectiveSpec]:
    sparsepo = ObjectiveSpec(
        name="sparsepo",
        summary="Token-level DPO under two learned sparse masks of steps, of rewards and of divergences.",
        loss="mmalign_objectives.sparsepo:sparsepo_loss",
        config="mmalign_objectives.sparsepo:SparsePOConfig",
        per="pair",
        log_prob_kinds=("exact",),
        equation="-logsigmoid(beta (u(w) - u(l) - (k(l) - k(w)))) + sum of both (a |m_u|_1 + b |m_d|_1), "
        "u = sum_t m_u (p_t - r_t), k = sum_t m_d KL_t(reference, policy)",
        paper=_SPARSEPO,
    )
    return [
        sparsepo,
        replace(
            sparsepo,
            name="sparsepo_common",
            summary="Token-level DPO under one learned sparse mask of steps, for rewards and divergences.",
            loss="mmalign_objectives.sparsepo:sparsepo_common_loss",
        ),
        replace(
            sparsepo,
            name="sparsepo_activations",
            aliases=("token_mapo",),
            summary="Token-level DPO under a mask that is read off the activations of the reference.",
            loss="mmalign_objectives.sparsepo:mapo_loss",
            config="mmalign_objectives.sparsepo:MaPOConfig",
            equation="-logsigmoid(beta (u(w) - u(l) - (k(l) - k(w)))), u = sum_t m (p_t - r_t), "
            "k = sum_t m KL_t(reference, policy)",
        ),
    ]


def list_token_masks() -> list[QuantitySpec]:
    """Lists the masks."""
    learned = QuantitySpec(
        name="token_mask",
        summary="Learned sparse mask of steps, from the hidden states of the reference.",
        module="mmalign_objectives.token_masks:MaskHead",
        config="mmalign_objectives.token_masks:MaskConfig",
        axes="NT",
        paper=_SPARSEPO,
    )
    return [
        learned,
        replace(learned, name="reward_mask", summary="Learned sparse mask of the rewards of steps."),
        replace(learned, name="divergence_mask", summary="Learned sparse mask of the divergences of steps."),
        QuantitySpec(
            name="activation_mask",
            summary="Mean activation of the reference, rescaled to [0, 1] along the response.",
            compute="mmalign_objectives.token_masks:compute_activation_mask",
            axes="NT",
            stage="frozen",
            paper=_SPARSEPO,
        ),
    ]
