"""How good each response is among those to its prompt: the quantities that objectives on lists compare."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmalign import QuantitySpec

_GRADES = QuantitySpec(
    name="grades",
    summary="Rating of a response, else its win rate in the ranking; NaN for unknown or nothing to compare.",
    compute=f"{__name__}:compute_grades",
    axes="N",
    stage="data",
)
SPECS = (
    _GRADES,
    replace(
        _GRADES,
        name="graded",
        summary="True for responses with a grade.",
        compute=f"{__name__}:mark_graded",
    ),
)


def compute_grades(ratings: Tensor, ranks: Tensor, prompt_index: Tensor) -> Tensor:
    """Grades every response, the higher the better: [N].

    A grade is the response's rating. Where no response to a prompt has one it is the share of the other ranked
    responses that rank below, a tie counting one half: from 0 for the last to 1 for the first. NaN where neither a
    rating nor a rank is known, and where nothing is left to compare with: a prompt with only one grade.

    Source: arXiv:2402.01878, whose labels are win rates against the other responses.
    """
    together = prompt_index[:, None] == prompt_index[None, :]  # [N, N]
    rated = (together & ~ratings.isnan()[None, :]).any(dim=1)
    grades = torch.where(rated, ratings, _win_rates(ranks, together))
    known = (together & ~grades.isnan()[None, :]).sum(dim=1)
    return grades.masked_fill(known < 2, torch.nan)


def mark_graded(grades: Tensor) -> Tensor:
    """Marks the responses with a grade: [N] bool; a prompt has none of them or at least two."""
    return ~grades.isnan()


def _win_rates(ranks: Tensor, together: Tensor) -> Tensor:
    others = together & ~ranks.isnan()[None, :]
    others.fill_diagonal_(False)
    wins = torch.where(others, ((ranks[None, :] - ranks[:, None]).sign() + 1) / 2, 0).sum(dim=1)
    return torch.where(ranks.isnan(), torch.nan, wins / others.sum(dim=1).clamp(min=1))
