"""Golden-vector cases of objectives on the log-probs of pairs alone: variants of DPO, CPO and SimPO."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmalign_objectives.conformance.inputs import Values, means, reference_means, reference_sums
from mmalign_objectives.pairs.apo import apo_down_loss, apo_zero_loss
from mmalign_objectives.pairs.asft import asft_loss
from mmalign_objectives.pairs.discopop import discopop_loss
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.dpo_gamma import dpo_gamma_loss
from mmalign_objectives.pairs.exo import exo_loss
from mmalign_objectives.pairs.f_dpo import f_dpo_loss
from mmalign_objectives.pairs.flex_dpo import flex_dpo_loss
from mmalign_objectives.pairs.nca_pair import nca_pair_loss
from mmalign_objectives.pairs.robust_dpo import robust_dpo_loss
from mmalign_objectives.pairs.rpo import rpo_mean_loss, rpo_sum_loss
from mmalign_objectives.pairs.sppo import sppo_hard_loss
from mmalign_objectives.pairs.vpo import vpo_loss


def compute_nca_pair(inputs: Values, hparams: Values) -> Tensor:
    """Noise contrastive alignment."""
    return nca_pair_loss(*reference_sums(inputs), beta=hparams["beta"])[0]


def compute_exo(inputs: Values, hparams: Values) -> Tensor:
    """Efficient exact optimisation."""
    return exo_loss(*reference_sums(inputs), beta=hparams["beta"], label_smoothing=hparams["eps"])[0]


def compute_apo_zero(inputs: Values, hparams: Values) -> Tensor:
    """Anchored preference optimisation, zero."""
    return apo_zero_loss(*reference_sums(inputs), beta=hparams["beta"])[0]


def compute_apo_down(inputs: Values, hparams: Values) -> Tensor:
    """Anchored preference optimisation, down."""
    return apo_down_loss(*reference_sums(inputs), beta=hparams["beta"])[0]


def compute_discopop(inputs: Values, hparams: Values) -> Tensor:
    """The log-ratio modulated loss."""
    return discopop_loss(*reference_sums(inputs), beta=hparams["beta"], temperature=hparams["tau"])[0]


def compute_sppo_hard(inputs: Values, hparams: Values) -> Tensor:
    """SPPO with certain preferences."""
    return sppo_hard_loss(*reference_sums(inputs), beta=hparams["beta"])[0]


def compute_ln_dpo(inputs: Values, hparams: Values) -> Tensor:
    """Length-normalised DPO."""
    return dpo_loss(*reference_means(inputs), beta=hparams["beta"], label_smoothing=hparams.get("eps", 0.0))[0]


def compute_robust_dpo(inputs: Values, hparams: Values) -> Tensor:
    """Provably robust DPO."""
    return robust_dpo_loss(*reference_sums(inputs), beta=hparams["beta"], flip_rate=hparams["eps"])[0]


def compute_forward_kl(inputs: Values, hparams: Values) -> Tensor:
    """f-DPO with the forward KL."""
    return _f_dpo(inputs, hparams, "forward_kl")


def compute_jensen_shannon(inputs: Values, hparams: Values) -> Tensor:
    """f-DPO with the Jensen-Shannon divergence."""
    return _f_dpo(inputs, hparams, "jensen_shannon")


def compute_alpha_divergence(inputs: Values, hparams: Values) -> Tensor:
    """f-DPO with an alpha divergence."""
    return _f_dpo(inputs, hparams, "alpha", hparams["alpha"])


def compute_dpo_gamma(inputs: Values, hparams: Values) -> Tensor:
    """DPO with an attenuated reference."""
    return dpo_gamma_loss(*reference_sums(inputs), beta=hparams["beta"], gamma=hparams["gamma"])[0]


def compute_flex_dpo(inputs: Values, hparams: Values) -> Tensor:
    """DPO with two temperatures."""
    betas = {"beta_chosen": hparams["beta_plus"], "beta_rejected": hparams["beta_minus"]}
    return flex_dpo_loss(*reference_sums(inputs), **betas)[0]


def compute_rpo_sum(inputs: Values, hparams: Values) -> Tensor:
    """RPO with the summed log-prob."""
    return rpo_sum_loss(*reference_sums(inputs), beta=hparams["beta"], eta=hparams["eta"])[0]


def compute_rpo_mean(inputs: Values, hparams: Values) -> Tensor:
    """RPO with the mean log-prob."""
    chosen_mean, _ = means(inputs)
    return rpo_mean_loss(*reference_sums(inputs), chosen_mean, beta=hparams["beta"], eta=hparams["eta"])[0]


def compute_vpo_offline(inputs: Values, hparams: Values) -> Tensor:
    """Pessimistic VPO, calibrated on the chosen response."""
    options = {"beta": hparams["beta"], "incentive": -hparams["alpha"]}
    return vpo_loss(*reference_sums(inputs), **options, calibration="chosen")[0]


def compute_vpo_online(inputs: Values, hparams: Values) -> Tensor:
    """Optimistic VPO, calibrated on the rejected response."""
    options = {"beta": hparams["beta"], "incentive": hparams["alpha"]}
    return vpo_loss(*reference_sums(inputs), **options, calibration="rejected")[0]


def compute_asft(inputs: Values, hparams: Values) -> Tensor:
    """Aligned supervised fine-tuning."""
    return asft_loss(*means(inputs), odds_weight=hparams["lam"])[0]


def _f_dpo(inputs: Values, hparams: Values, divergence: Any, alpha: float = 0.5) -> Tensor:
    options = {"beta": hparams["beta"], "alpha": alpha}
    return f_dpo_loss(*reference_sums(inputs), divergence=divergence, **options)[0]
