"""Objectives on denoising errors, and others made for diffusion models. Imports no torch.

The log-probs of a diffusion modality are of one of two kinds: `surrogate`, minus half a denoising error at some
timestep, or `exact`, of the steps of a stochastic sampler. Policy gradients on the latter are with the others.
"""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec, QuantitySpec

_D3PO = "Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model (arXiv:2311.13231)"
_KTO = "Aligning Diffusion Models by Optimizing Human Utility (arXiv:2404.04465)"


def list_diffusion() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [*_dpo(), *_weighted(), _mapo(), _kto(), *_d3po()]


def list_diffusion_quantities() -> list[QuantitySpec]:
    """Lists what these objectives need beside the quantities of the contract."""
    return [
        QuantitySpec(
            name="batch_reference_point",
            summary="Mean log-ratio of policy and reference over the labelled responses of a global batch, at least 0.",
            axes="",
            stage="step",
            compute="mmalign_objectives.diffusion_kto:compute_batch_reference_point",
            paper=_KTO,
        )
    ]


def _dpo() -> list[ObjectiveSpec]:
    diffusion_dpo = ObjectiveSpec(
        name="diffusion_dpo",
        aliases=("flow_dpo", "lightgen", "ppd"),
        summary="DPO on denoising errors, of noise, velocities or flows; on exact log-probs it is `dpo`.",
        loss="mmalign_objectives.dpo:dpo_loss",
        config="mmalign_objectives.dpo:DiffusionDPOConfig",
        per="pair",
        # Its beta is in units of a denoising error.
        log_prob_kinds=("surrogate",),
        equation="-logsigmoid(-beta / 2 ((e_pc - e_rc) - (e_pr - e_rr))), e: mean squared denoising error, -2 log-prob",
        paper="Diffusion Model Alignment Using Direct Preference Optimization (arXiv:2311.12908)",
    )
    inpo = replace(
        diffusion_dpo,
        name="inpo",
        aliases=(),
        summary="Diffusion-DPO on latents found by inversion, which is chosen in the modality, not here.",
        equation=f"{diffusion_dpo.equation}, of the noise that leads from the image to its inverted latent",
        paper="InPO: Inversion Preference Optimization with Reparametrized DDIM (arXiv:2503.18454)",
    )
    return [diffusion_dpo, inpo]


def _weighted() -> list[ObjectiveSpec]:
    smpo = ObjectiveSpec(
        name="smpo",
        summary="DPO weighted by how far a reward model tells a pair apart; its inversion is chosen in the modality.",
        loss="mmalign_objectives.smpo:smpo_loss",
        config="mmalign_objectives.smpo:SmPOConfig",
        per="pair",
        over="ratings",
        equation="-logsigmoid(gamma (2 q - 1) beta (pc - rc - pr + rr)), q = sigmoid((R_c - R_r) / (max R - min R))",
        paper="Smoothed Preference Optimization via ReNoise Inversion (arXiv:2506.02698)",
    )
    seppo = ObjectiveSpec(
        name="seppo",
        aliases=("sspo",),
        summary="DPO against the policy's earlier samples, which count as chosen where the policy is behind on chosen.",
        loss="mmalign_objectives.seppo:seppo_loss",
        config="mmalign_objectives.seppo:SePPOConfig",
        per="pair",
        equation="-logsigmoid(beta ((pc - rc) - sign(pc - rc) (pr - rr))); indicator: 1(pc > rc) for the sign",
        paper="SePPO: Semi-Policy Preference Optimization for Diffusion Alignment (arXiv:2410.05255)",
    )
    return [smpo, seppo]


def _mapo() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="mapo",
        summary="Denoises chosen and prefers it by a margin of bounded links of both errors, without a reference.",
        loss="mmalign_objectives.mapo:mapo_loss",
        config="mmalign_objectives.mapo:MaPOConfig",
        per="pair",
        # It takes log-probs for denoising errors.
        log_prob_kinds=("surrogate",),
        equation=(
            "e_c - preference_weight logsigmoid(margin_scale (phi(e_c) - phi(e_r))), phi(e) = (x / (exp(x) - 1))^"
            "link_power, x = error_scale e, e = -2 p"
        ),
        paper="Margin-aware Preference Optimization for Aligning Diffusion Models without Reference (arXiv:2406.06424)",
    )


def _kto() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="diffusion_kto",
        summary="KTO on denoising errors with a choice of utilities and the batch mean as reference point.",
        loss="mmalign_objectives.diffusion_kto:diffusion_kto_loss",
        config="mmalign_objectives.diffusion_kto:DiffusionKTOConfig",
        per="response",
        over="labelled",
        # It takes log-probs for denoising errors.
        log_prob_kinds=("surrogate",),
        equation="weight (1 - U(+-2 beta (p - r - batch_reference_point))), + desirable, - undesirable",
        paper=_KTO,
    )


def _d3po() -> list[ObjectiveSpec]:
    d3po = ObjectiveSpec(
        name="d3po",
        summary="DPO at every step of the trajectories of a pair, with clipped ratios to the reference.",
        loss="mmalign_objectives.d3po:d3po_loss",
        config="mmalign_objectives.d3po:D3POConfig",
        per="pair",
        # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
        log_prob_kinds=("exact",),
        equation="mean_t -logsigmoid(beta (clip(pc_t - rc_t) - clip(pr_t - rr_t))), ratios clipped to 1 -+ clip",
        paper=_D3PO,
    )
    online = replace(
        d3po,
        name="d3po_online",
        summary="D3PO on all pairs of the responses sampled to a prompt, preferred by reward.",
        loss="mmalign_objectives.d3po:d3po_online_loss",
        per="prompt",
        over="composite_rewards",
        equation=f"mean over R_c > R_r of {d3po.equation}",
    )
    return [d3po, online]
