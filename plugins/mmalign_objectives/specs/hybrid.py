"""Demonstrations and rollouts in one run: which of them a prompt teaches by. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec, QuantitySpec

_HPT = "Towards a Unified View of Large Language Model Post-Training (arXiv:2509.04419)"


def list_hybrid() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="hpt_imitation",
            summary="HPT: likelihood of the demonstrations of prompts whose rollouts fail.",
            loss="mmalign_objectives.sft:sft_loss",
            config="mmalign_objectives.sft:SFTConfig",
            per="step",
            over="imitated",
            equation="-policy_logps, where at most `gate` rollouts of the prompt are right",
            paper=_HPT,
        ),
        ObjectiveSpec(
            name="hpt_reinforcement",
            summary="HPT: unclipped policy gradient on the rollouts of all other prompts.",
            loss="mmalign_objectives.hpt:hpt_reinforcement_loss",
            config="mmalign_objectives.hpt:HPTReinforcementConfig",
            per="step",
            over="reinforced",
            aggregation="constant",
            # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
            log_prob_kinds=("exact",),
            equation="-ratio advantages, where more than `gate` rollouts of the prompt are right",
            paper=_HPT,
        ),
    ]


def list_hybrid_quantities() -> list[QuantitySpec]:
    """Lists what these objectives need beside the quantities of the contract."""
    prompts = QuantitySpec(
        name="imitated_prompts",
        summary="True for all responses to a prompt of whose rollouts at most `gate` are right.",
        axes="N",
        stage="frozen",
        compute="mmalign_objectives.hpt:mark_imitated_prompts",
        paper=_HPT,
    )
    return [
        replace(prompts, config="mmalign_objectives.hpt:GateConfig"),
        replace(
            prompts,
            name="imitated",
            summary="True for the stored targets of prompts that are imitated.",
            compute="mmalign_objectives.hpt:mark_imitated",
        ),
        replace(
            prompts,
            name="reinforced",
            summary="True for the rollouts of prompts that are not imitated.",
            compute="mmalign_objectives.hpt:mark_reinforced",
        ),
    ]
