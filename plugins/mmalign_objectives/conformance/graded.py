"""Golden-vector cases of objectives that read more than the pair: rewards, votes, advantages, other responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign_objectives.conformance.inputs import Values, means, reference_sums, sums
from mmalign_objectives.pairs.copg import copg_loss
from mmalign_objectives.pairs.irepo import irepo_loss
from mmalign_objectives.pairs.mcts_dpo import mcts_dpo_loss
from mmalign_objectives.pairs.modpo import modpo_loss
from mmalign_objectives.pairs.rationale_dpo import rationale_dpo_loss
from mmalign_objectives.pairs.step_apo import step_apo_loss
from mmalign_objectives.pairs.tpo_triple import tpo_triple_l_loss, tpo_triple_loss
from mmalign_objectives.unpaired.a_lol import a_lol_kl_loss, a_lol_loss, a_lol_ref_free_loss
from mmalign_objectives.unpaired.r_lol import r_lol_loss

_UNCLIPPED = 1e-12


def compute_modpo(inputs: Values, hparams: Values) -> Tensor | None:
    """Multi-objective DPO; the first weight is that of the labels, a single number leaves the rest to one margin."""
    weights = _split_weights(hparams["w"])
    chosen, rejected = (_columns(inputs[name]) for name in ("chosen_margin", "rejected_margin"))
    if chosen.shape[1] != len(weights):
        return None
    options: dict[str, Any] = {"margin_weights": weights, "link": hparams.get("link", "logistic")}
    return modpo_loss(*reference_sums(inputs), chosen, rejected, beta=hparams["beta"], **options)[0]


def compute_copg(inputs: Values, hparams: Values) -> Tensor:
    """Contrastive policy gradient."""
    rewards = inputs["chosen_reward"], inputs["rejected_reward"]
    return copg_loss(*reference_sums(inputs), *rewards, beta=hparams["beta"])[0]


def compute_irepo(inputs: Values, hparams: Values) -> Tensor:
    """Implicit reward pairwise difference regression; preferences are taken as they are."""
    return irepo_loss(*reference_sums(inputs), inputs["pref_prob"], beta=hparams["beta"], clip=_UNCLIPPED)[0]


def compute_step_apo(inputs: Values, hparams: Values) -> Tensor:
    """Step-level advantage preference optimisation."""
    return step_apo_loss(*reference_sums(inputs), inputs["value_w"], inputs["value_l"], beta=hparams["beta"])[0]


def compute_mcts_dpo(inputs: Values, hparams: Values) -> Tensor:
    """DPO with label smoothing from visit counts."""
    return mcts_dpo_loss(*reference_sums(inputs), inputs["visits_w"], inputs["visits_l"], beta=hparams["beta"])[0]


def compute_a_lol(inputs: Values, hparams: Values) -> Tensor:
    """A-LoL on the chosen responses."""
    return a_lol_loss(*_chosen(inputs), inputs["advantage"], clip=hparams["clip"])[0]


def compute_a_lol_ref_free(inputs: Values, hparams: Values) -> Tensor:
    """A-LoL without a reference, on the chosen responses."""
    return a_lol_ref_free_loss(inputs["policy_chosen_logps"], inputs["advantage"])[0]


def compute_a_lol_kl(inputs: Values, hparams: Values) -> Tensor:
    """A-LoL with a KL penalty, on the chosen responses."""
    return a_lol_kl_loss(*_chosen(inputs), inputs["advantage"], kl_weight=hparams["kl_beta"])[0]


def compute_r_lol(inputs: Values, hparams: Values) -> Tensor:
    """R-LoL on the chosen responses."""
    return r_lol_loss(*_chosen(inputs), inputs["chosen_reward"], clip=hparams["clip"])[0]


def compute_tpo(inputs: Values, hparams: Values) -> Tensor:
    """Triple preference optimisation."""
    options: dict[str, Any] = {"gold_weight": hparams["alpha"], "link": hparams.get("link", "logistic")}
    return tpo_triple_loss(*sums(inputs), _gold_mean(inputs), beta=hparams["beta"], **options)[0]


def compute_tpo_l(inputs: Values, hparams: Values) -> Tensor:
    """Triple preference optimisation on mean log-probs."""
    options: dict[str, Any] = {"gold_weight": hparams["alpha"], "link": hparams.get("link", "logistic")}
    beta, gamma = hparams["beta"], hparams["gamma"]
    return tpo_triple_l_loss(*means(inputs), _gold_mean(inputs), beta=beta, gamma=gamma, **options)[0]


def compute_rationale_code(inputs: Values, hparams: Values) -> Tensor:
    """DPO with the logistic loss of rationales, as in the official code."""
    return _rationale(inputs, hparams, bounded=True)


def compute_rationale_paper(inputs: Values, hparams: Values) -> Tensor:
    """DPO with the log-likelihood of rationales, as in the paper."""
    return _rationale(inputs, hparams, bounded=False)


def _rationale(inputs: Values, hparams: Values, *, bounded: bool) -> Tensor:
    options = {"beta": hparams["beta"], "gamma": hparams["gamma"]}
    return rationale_dpo_loss(*reference_sums(inputs), inputs["rationale_logps"], **options, bounded=bounded)[0]


def _gold_mean(inputs: Values) -> Tensor:
    mean: Tensor = inputs["gold_logps"] / inputs["gold_lengths"]
    return mean


def _chosen(inputs: Values) -> tuple[Tensor, Tensor]:
    return inputs["policy_chosen_logps"], inputs["ref_chosen_logps"]


def _columns(values: Tensor) -> Tensor:
    return values[:, None] if values.dim() == 1 else values


def _split_weights(given: float | Sequence[float]) -> tuple[float, ...]:
    weights = torch.as_tensor(given, dtype=torch.float64).flatten().tolist()
    return (1 - weights[0],) if len(weights) == 1 else tuple(weights[1:])
