"""Golden-vector cases of the diagnostics: sums of log-probs and lengths of every pair, float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmalign_evaluators.diagnostics import (
    acceptance_probabilities,
    flip_thresholds,
    idealised_log_ratios,
    is_higher,
)

Values = Mapping[str, Any]


def compute_ranking_accuracy_sum(inputs: Values, hparams: Values) -> Tensor:
    """Whether chosen is likelier."""
    return is_higher(inputs["policy_chosen_logps"], inputs["policy_rejected_logps"])


def compute_ranking_accuracy_mean(inputs: Values, hparams: Values) -> Tensor:
    """Whether chosen is likelier per step."""
    return is_higher(*_means(inputs, "policy"))


def compute_reward_accuracy(inputs: Values, hparams: Values) -> Tensor:
    """Whether chosen has the higher implicit reward."""
    chosen, rejected = (inputs[f"policy_{side}_logps"] - inputs[f"ref_{side}_logps"] for side in ("chosen", "rejected"))
    return is_higher(chosen, rejected)


def compute_idealised_log_ratio_sum(inputs: Values, hparams: Values) -> Tensor:
    """The idealised policy's log-ratio, of sums."""
    sums = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    return idealised_log_ratios(*sums, inputs["alpha_prop"], beta=hparams["ideal_beta"])


def compute_idealised_log_ratio_mean(inputs: Values, hparams: Values) -> Tensor:
    """The idealised policy's log-ratio, of means."""
    return idealised_log_ratios(*_means(inputs, "ref"), inputs["alpha_prop"], beta=hparams["ideal_beta"])


def compute_idealised_accuracy_sum(inputs: Values, hparams: Values) -> Tensor:
    """Whether the idealised policy ranks the pair rightly."""
    log_ratios = compute_idealised_log_ratio_sum(inputs, hparams)
    return is_higher(log_ratios, log_ratios.new_zeros(len(log_ratios)))


def compute_flip_threshold(inputs: Values, hparams: Values) -> Tensor:
    """The DPO loss at which the ranking flips."""
    return flip_thresholds(inputs["ref_chosen_logps"], inputs["ref_rejected_logps"], beta=hparams["beta"])


def compute_acceptance(inputs: Values, hparams: Values) -> Tensor:
    """Acceptance in the first round, all chosen responses being the candidates."""
    return acceptance_probabilities(inputs["chosen_reward"], beta=hparams["rso_beta"])


def _means(inputs: Values, model: str) -> tuple[Tensor, Tensor]:
    chosen, rejected = inputs[f"{model}_chosen_logps"], inputs[f"{model}_rejected_logps"]
    return chosen / inputs["chosen_lengths"], rejected / inputs["rejected_lengths"]
