"""Golden-vector cases of data-side methods: their inputs brought into the form of the functions here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign_transforms.rso import acceptance_probabilities
from mmalign_transforms.upo import information_gain, label_smoothing, sampling_weights


def compute_acceptance(inputs: Mapping[str, Any], hparams: Mapping[str, Any]) -> Tensor:
    """Computes the acceptance probabilities of the first pass over one set of candidates."""
    rewards = inputs["chosen_reward"].tolist()
    return torch.tensor(acceptance_probabilities(rewards, float(hparams["rso_beta"])), dtype=torch.float64)


def compute_upo(inputs: Mapping[str, Any], hparams: Mapping[str, Any]) -> dict[str, Tensor]:
    """Computes information gains, sampling weights, smoothing and loss; also the last two as the paper prints them."""
    gains = [information_gain(passes) for passes in inputs["mc_dropout_probs"].tolist()]
    as_factor = torch.tensor(sampling_weights(gains, 1.0), dtype=torch.float64)
    smoothing = torch.tensor([label_smoothing(gain) for gain in gains], dtype=torch.float64)
    printed = 1 / (as_factor + 1)
    margins = inputs["beta_h"]
    return {
        "bald": torch.tensor(gains, dtype=torch.float64),
        "sampling_prob_mu_as_factor": as_factor,
        "sampling_prob_mu_as_exponent": torch.tensor(sampling_weights(gains, float(inputs["mu"])), dtype=torch.float64),
        "alpha": smoothing,
        "loss_per_pair": _smoothed_loss(margins, smoothing),
        "alpha_as_printed": printed,
        "loss_per_pair_as_printed": _smoothed_loss(margins, printed),
    }


def _smoothed_loss(margins: Tensor, smoothing: Tensor) -> Tensor:
    return -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)
