"""Golden-vector cases of the objectives on lists: one row [P, K] a prompt, float64; NaN where a list is shorter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign_objectives.lists.in_context_ranking import rank_items
from mmalign_objectives.lists.lipo import (
    lipo_lambda_loss,
    lipo_list_mle_loss,
    lipo_pair_hinge_loss,
    lipo_pair_logistic_loss,
    lipo_pair_square_loss,
    lipo_point_sigmoid_loss,
    lipo_point_square_loss,
    lipo_softmax_loss,
)
from mmalign_objectives.lists.nca_list import info_nca_loss, nca_list_loss
from mmalign_objectives.lists.pro import pro_loss
from mmalign_objectives.pairs.trpa import trpa_loss
from mmalign_objectives.support.lists import mark_better

Values = Mapping[str, Any]


def compute_lipo_lambda(inputs: Values, hparams: Values) -> Tensor | None:
    """LambdaRank with the gain 2^grade - 1 and the natural logarithm in its discount."""
    if not _is_about(hparams.get("gain"), "2^") or not _is_about(hparams.get("discount"), "natural"):
        return None
    return lipo_lambda_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_point_mse(inputs: Values, hparams: Values) -> Tensor:
    """Squared distance of rewards from labels."""
    return lipo_point_square_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_point_sigmoid(inputs: Values, hparams: Values) -> Tensor:
    """Cross-entropy of single rewards."""
    return lipo_point_sigmoid_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_pair_logistic(inputs: Values, hparams: Values) -> Tensor:
    """Logistic loss over pairs."""
    return lipo_pair_logistic_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_pair_hinge(inputs: Values, hparams: Values) -> Tensor:
    """Hinge loss over pairs."""
    return lipo_pair_hinge_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_pair_mse(inputs: Values, hparams: Values) -> Tensor:
    """Squared distance of margins from those of the labels."""
    return lipo_pair_square_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_list_mle(inputs: Values, hparams: Values) -> Tensor:
    """Plackett-Luce likelihood."""
    return lipo_list_mle_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_lipo_softmax(inputs: Values, hparams: Values) -> Tensor:
    """Cross-entropy of the softmax of rewards."""
    return lipo_softmax_loss(*_flatten(inputs), beta=hparams["beta"])[0]


def compute_pro(inputs: Values, hparams: Values) -> Tensor:
    """PRO with its likelihood term."""
    sums, _, labels, prompts = _flatten(inputs)
    means = sums / inputs["list_lengths"].flatten()
    return pro_loss(sums, means, labels, prompts, nll_weight=hparams["sft_weight"])[0]


def compute_nca_list(inputs: Values, hparams: Values) -> Tensor:
    """NCA of K responses."""
    return nca_list_loss(*_flatten(inputs), beta=hparams["beta"], reward_temperature=hparams["alpha"])[0]


def compute_info_nca(inputs: Values, hparams: Values) -> Tensor:
    """InfoNCA of K responses."""
    return info_nca_loss(*_flatten(inputs), beta=hparams["beta"], reward_temperature=hparams["alpha"])[0]


def _flatten(inputs: Values) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns policy and reference sums, labels and prompt index, [N] each."""
    policy, labels = inputs["list_policy_logps"], inputs["list_labels"]
    reference = inputs.get("list_ref_logps", policy)
    prompts = torch.arange(len(policy))[:, None].expand_as(policy)
    return policy.flatten(), reference.flatten(), labels.flatten(), prompts.flatten()


def _is_about(setting: Any, word: str) -> bool:
    """Returns whether a setting that is described in words, or not at all, is the one of this implementation."""
    return setting is None or word in str(setting)


def compute_in_context_ranking(inputs: Values, hparams: Values) -> Tensor | None:
    """The items of one response a row, in their places; labels are relevances, log-ratios are means over steps."""
    if not _is_about(hparams.get("rank"), "list index") or not _is_about(hparams.get("score"), "length-averaged"):
        return None
    log_ratios = (inputs["list_policy_logps"] - inputs["list_ref_logps"]) / inputs["list_lengths"]
    mask = ~inputs["list_labels"].isnan()
    relevance = inputs["list_labels"].nan_to_num()
    return rank_items(log_ratios.nan_to_num(), relevance, mask, beta=hparams["beta"])[0]


def compute_trpa(inputs: Values, hparams: Values) -> Tensor:
    """One number: the mean over all pairs of different levels of all lists."""
    levels, lengths = inputs["list_levels"], inputs["list_lengths"]
    better = mark_better(-levels, ~levels.isnan())
    prompts, chosen, rejected = better.nonzero().T
    policy, reference = (inputs[name] / lengths for name in ("list_policy_logps", "list_ref_logps"))
    losses, _ = trpa_loss(
        policy[prompts, chosen],
        policy[prompts, rejected],
        reference[prompts, chosen],
        reference[prompts, rejected],
        levels[prompts, chosen],
        beta=hparams["beta"],
        anisotropy=hparams["anisotropy"],
    )
    return losses.mean().reshape(1)
