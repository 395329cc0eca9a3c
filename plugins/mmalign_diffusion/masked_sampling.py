"""Sampling token by token: some masked tokens are denoised given the known ones, then they are known, too.

Shapes: B rows, latents [B, C, H, W], L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from mmalign_diffusion.families.masked_tokens import MaskedTokens
from mmalign_diffusion.prediction import Conditions, Denoising
from mmalign_diffusion.sampler import sample


def masked_counts(tokens: int, reveals: int) -> list[int]:
    """Counts the tokens that remain masked after every autoregressive step; each step reveals one or more.

    >>> masked_counts(16, 4)
    [14, 11, 6, 0]
    """
    counts, remaining = [], tokens
    for step in range(1, reveals + 1):
        wanted = math.floor(tokens * math.cos(math.pi / 2 * step / reveals)) if step < reveals else 0
        remaining = max(0, min(remaining - 1, wanted))
        counts.append(remaining)
        if not remaining:
            break
    return counts


@torch.no_grad()
def sample_masked(
    denoising: Denoising,
    conditions: Conditions,
    start: Tensor,
    levels: Tensor,
    *,
    eta: float,
    generators: Sequence[Generator],
) -> Tensor:
    """Samples images in `reveals` steps, each of which denoises along `levels`.

    Args:
        denoising: of the family `masked_tokens`.
        conditions: B of them, with null ones for guidance.
        start: [B, C, H, W], standard normal; a token starts from its part.
        levels: [L + 1], int64, falling; the last one is clean.
        eta: share of the noise that is resampled in every step of the head.
        generators: B of them; they draw the order of tokens.

    Returns:
        [B, C, H, W] float32.
    """
    family = denoising.family
    if not isinstance(family, MaskedTokens):
        raise TypeError(f"expected the family masked_tokens, got {type(family).__name__}")
    grid = family.token_grid()
    order = torch.stack([torch.randperm(math.prod(grid), generator=one).reshape(1, *grid) for one in generators])
    order = family.spread(order).to(start.device)  # [B, 1, H, W]: tokens are revealed from the last to the first
    known = torch.zeros_like(start)
    before = math.prod(grid)
    for remaining in masked_counts(before, family.reveals):
        masked = order < before
        own = _with_masks(conditions, masked.cpu())
        drawn = sample(
            denoising, own, torch.where(masked, start, known), levels, eta=eta, generators=generators, moving=masked
        )
        known = torch.where(masked & (order >= remaining), drawn, known)
        before = remaining
    return known


def _with_masks(conditions: Conditions, masked: Tensor) -> Conditions:
    given, null = (
        [{**one, "noised": mask} for one, mask in zip(some, masked, strict=False)]
        for some in (conditions.given, conditions.null)
    )
    return replace(conditions, given=given, null=null)
