"""Delay patterns of multi-codebook tokens: which code stands where in a sequence, and which logits predict it.

K codebooks are predicted by K heads at every place of a sequence. Codebook q is delayed by d_q frames, so that finer
codebooks see the coarser codes of their own frame. Heads at one place are independent given what is before it, so the
log-prob of a response is the plain sum over codebooks and frames, and that of a frame the sum over its codebooks.

Shapes: K codebooks, T frames, S = T + max(delays) + 1 places, V codes of a codebook; `...` any leading axes.
Trap: code (q, t) stands at place 1 + t + d_q and is predicted by the logits at the place before, t + d_q.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def delay_codes(codes: Tensor, delays: Sequence[int], special: int) -> Tensor:
    """Builds the input sequence: place 0 is all special, code (q, t) stands at 1 + t + delays[q].

    Args:
        codes: [..., K, T].
        delays: K frames, at least 0.
        special: the id that fills every other place.

    Returns:
        [..., K, S].

    Raises:
        ValueError: there is not one delay of at least 0 for every codebook.

    >>> delay_codes(torch.tensor([[1, 2], [3, 4]]), [0, 1], special=9)
    tensor([[9, 1, 2, 9],
            [9, 9, 3, 4]])

    Source: arXiv:2306.05284, the delay pattern.
    """
    places = _predicting_places(codes, delays) + 1
    sequence = codes.new_full((*codes.shape[:-1], codes.shape[-1] + max(delays) + 1), special)
    return sequence.scatter(-1, places.expand_as(codes), codes)


def code_log_probs(logits: Tensor, codes: Tensor, delays: Sequence[int]) -> Tensor:
    """Computes the log-prob of every code; all frames of all codebooks are scored, the delayed ones too.

    Args:
        logits: [..., K, S, V].
        codes: [..., K, T].
        delays: K frames, at least 0.

    Returns:
        [..., K, T], nats, float32 or the wider dtype of the logits.

    Raises:
        ValueError: the shapes or delays do not fit together.
    """
    places = _predicting_places(codes, delays)
    expected = (*codes.shape[:-1], codes.shape[-1] + max(delays) + 1)
    if logits.shape[:-1] != expected:
        raise ValueError(f"logits: expected the shape {(*expected, 'codes')}, got {tuple(logits.shape)}")
    rows = places.expand_as(codes)[..., None].expand(*codes.shape, logits.shape[-1])
    aligned = logits.gather(-2, rows)  # [..., K, T, V]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return aligned.to(dtype).log_softmax(dim=-1).gather(-1, codes[..., None])[..., 0]


def frame_log_probs(logps: Tensor) -> Tensor:
    """Sums log-probs of codes [..., K, T] over codebooks: a step of a response is a frame, [..., T]."""
    return logps.sum(dim=-2)


def codebook_cross_entropy(logps: Tensor, valid: Tensor) -> Tensor:
    """Averages minus the log-probs over the valid codes of each codebook, and that over codebooks: [...].

    Args:
        logps: [..., K, T], nats.
        valid: [..., K, T] bool; other codes do not count, whatever their log-prob. Each codebook has at least one.

    Source: arXiv:2306.05284, the training loss of the official code.
    """
    totals = torch.where(valid, logps, 0).sum(dim=-1)
    return -(totals / valid.sum(dim=-1).clamp(min=1)).mean(dim=-1)


def _predicting_places(codes: Tensor, delays: Sequence[int]) -> Tensor:
    """Finds the place of the logits of every code: [K, T]."""
    if len(delays) != codes.shape[-2] or min(delays) < 0:
        raise ValueError(f"delays: expected {codes.shape[-2]} frames of at least 0, got {list(delays)}")
    frames = torch.arange(codes.shape[-1], device=codes.device)
    return frames + torch.tensor(list(delays), device=codes.device)[:, None]
