"""f-divergences: what reward a policy implies if it is the optimum under a constraint by each of them.

With D_f(policy, reference) as the constraint the reward is beta f'(policy / reference) plus a term of the prompt alone,
which cancels in a pair. All functions work on log-ratios of any shape; f' is shifted so that it is 0 at ratio 1.
"""

from __future__ import annotations

from math import log
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Divergence = Literal["reverse_kl", "forward_kl", "jensen_shannon", "alpha"]


def divergence_rewards(log_ratios: Tensor, divergence: Divergence, alpha: float = 0.5) -> Tensor:
    """Computes f'(exp(log_ratios)) of a divergence.

    Args:
        log_ratios: log(policy / reference), nats.
        divergence: which f.
        alpha: of the divergence `alpha`, in (0, 1).

    Source: arXiv:2309.16240, the table of f-divergences.
    """
    if divergence == "reverse_kl":
        return log_ratios
    if divergence == "jensen_shannon":
        return log(2) + logsigmoid(log_ratios)
    return alpha_rewards(log_ratios, 1.0 if divergence == "forward_kl" else alpha)


def alpha_rewards(logps: Tensor, alpha: float) -> Tensor:
    """Computes (1 - p^-alpha) / alpha for p = exp(logps): the log-prob itself at alpha 0, steeper for small p above.

    The exponent is cut where products of its exponential would leave the number range; beyond it is no gradient.
    """
    if alpha == 0:
        return logps
    limit = 11.0 if logps.dtype == torch.float16 else 80.0
    return -torch.expm1((-alpha * logps).clamp(max=limit)) / alpha
