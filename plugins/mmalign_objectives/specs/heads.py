"""Heads that are trained beside the policy, and the losses that train them. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec, QuantitySpec

_A_LOL = "Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)"
_SPO_DEGREE = (
    "Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree Awareness "
    "(arXiv:2409.17791)"
)
_UPO = "Self-Evolutionary Large Language Models through Uncertainty-Enhanced Preference Optimization (arXiv:2409.11212)"


def list_head_objectives() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="spo_degree",
            summary="Auxiliary: a head tells how much key content a version of a response lacks; add it to another.",
            loss="mmalign_objectives.spo_degree:spo_degree_loss",
            per="response",
            over="removal_levels",
            equation="-log softmax(head(mean_t h_t))[level]",
            paper=_SPO_DEGREE,
        ),
        ObjectiveSpec(
            name="prompt_value",
            summary="Fits the value of prompts to the ratings of responses: what A-LoL takes its advantages from.",
            loss="mmalign_objectives.prompt_value:prompt_value_loss",
            per="response",
            over="ratings",
            equation="(V(x) - R)^2",
            paper=_A_LOL,
        ),
        ObjectiveSpec(
            name="pair_classifier",
            summary="Trains a score head to tell which of two responses is better: the estimator of UPO.",
            loss="mmalign_objectives.pair_classifier:pair_classifier_loss",
            per="pair",
            equation="-(logsigmoid(s(x, w, l)) + logsigmoid(-s(x, l, w))) / 2",
            paper=_UPO,
        ),
    ]


def list_head_quantities() -> list[QuantitySpec]:
    """Lists the heads, and the questions that one of them answers."""
    return [
        QuantitySpec(
            name="removal_logits",
            summary="Logits of the levels, from the mean last hidden state of the policy along a response.",
            config="mmalign_objectives.spo_degree:LevelHeadConfig",
            axes="NK",
            module="mmalign_objectives.spo_degree:LevelHead",
            paper=_SPO_DEGREE,
        ),
        QuantitySpec(
            name="prompt_values",
            summary="Value of the prompt, from the hidden states of the reference along it.",
            config="mmalign_objectives.prompt_value:PromptValueConfig",
            axes="N",
            module="mmalign_objectives.prompt_value:PromptValueHead",
            paper=_A_LOL,
        ),
        *_list_judgements(),
    ]


def _list_judgements() -> list[QuantitySpec]:
    asked = QuantitySpec(
        name="in_order_row",
        summary="The question whether the first of two responses is better, the chosen one first.",
        config="mmalign_objectives.pair_classifier:QuestionConfig",
        axes="MI",
        stage="companion",
        compute="mmalign_objectives.pair_classifier:ask_in_order",
        paper=_UPO,
    )
    return [
        asked,
        replace(
            asked,
            name="swapped_row",
            summary="The question whether the first of two responses is better, the rejected one first.",
            compute="mmalign_objectives.pair_classifier:ask_swapped",
        ),
        QuantitySpec(
            name="pair_probabilities",
            summary="Probability that the chosen response is better, by the score head.",
            axes="M",
            compute="mmalign_objectives.pair_classifier:compute_pair_probabilities",
            paper=_UPO,
        ),
    ]
