"""Golden-vector cases of the objectives that couple a batch: the batch is the case's six or so pairs, float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign_objectives.pairs.aot import aot_loss, aot_unpaired_loss
from mmalign_objectives.unpaired.bco import bco_loss

Values = Mapping[str, Any]


def compute_aot(inputs: Values, hparams: Values) -> Tensor:
    """AOT, paired: losses in the order of ascending margins."""
    chosen, rejected = inputs["policy_chosen_logps"], inputs["policy_rejected_logps"]
    order = (chosen - rejected).argsort()
    partners = (inputs["ref_chosen_logps"] - inputs["ref_rejected_logps"]).sort().values
    return aot_loss(chosen[order], rejected[order], partners, **_options(hparams))[0]


def compute_aot_unpaired(inputs: Values, hparams: Values) -> Tensor:
    """AOT, unpaired: losses in the order of ascending log-ratios, each pair made of two of one rank."""
    by_rank = {}
    for side in ("chosen", "rejected"):
        policy, reference = inputs[f"policy_{side}_logps"], inputs[f"ref_{side}_logps"]
        order = (policy - reference).argsort()
        by_rank[side] = policy[order], reference[order]
    (chosen, reference_chosen), (rejected, reference_rejected) = by_rank.values()
    of_chosen = rejected - reference_rejected + reference_chosen
    of_rejected = chosen - reference_chosen + reference_rejected
    return aot_unpaired_loss(chosen, rejected, rejected, of_chosen, of_rejected, **_options(hparams))[0]


def compute_bco(inputs: Values, hparams: Values) -> Tensor | None:
    """BCO of all chosen responses, then of all rejected ones; the shift is a number or the mean reward of the case."""
    beta, shift = hparams["beta"], hparams.get("reward_shift", "mean of all")
    policy, reference, labels = _labelled(inputs)
    if isinstance(shift, str):
        if not shift.startswith("mean of all"):
            return None
        mean = (policy - reference).mean()
    else:
        mean = torch.tensor(float(shift) / beta, dtype=torch.float64)
    return _bco(policy, reference, labels, mean, beta)


def compute_bco_pair(inputs: Values, hparams: Values) -> Tensor:
    """BCO without a shift, summed over both responses of a pair."""
    losses = _bco(*_labelled(inputs), torch.zeros((), dtype=torch.float64), hparams["beta"])
    return losses.reshape(2, -1).sum(dim=0)


def _bco(policy: Tensor, reference: Tensor, labels: Tensor, mean: Tensor, beta: float) -> Tensor:
    return bco_loss(policy, reference, labels, mean, torch.ones_like(policy), beta=beta)[0]


def _labelled(inputs: Values) -> tuple[Tensor, Tensor, Tensor]:
    policy = torch.cat([inputs["policy_chosen_logps"], inputs["policy_rejected_logps"]])
    reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
    labels = torch.cat([torch.ones_like(inputs["policy_chosen_logps"]), torch.zeros_like(inputs["ref_rejected_logps"])])
    return policy, reference, labels


def _options(hparams: Values) -> dict[str, float]:
    return {"beta": hparams["beta"], "label_smoothing": hparams.get("eps", 0.0)}
