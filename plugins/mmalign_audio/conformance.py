"""Golden-vector cases of multi-codebook audio tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign_audio.patterns import code_log_probs, codebook_cross_entropy, delay_codes, frame_log_probs

Values = Mapping[str, Any]


def compute_audio_tokens(inputs: Values, hparams: Values) -> dict[str, Tensor]:
    """The delayed sequence, log-probs of codes with their sums, and MusicGen's loss."""
    codes, delays = inputs["codes"].long(), list(hparams["delays"])
    logps = code_log_probs(inputs["pattern_logits"], codes, delays)
    return {
        "sequence": delay_codes(codes, delays, hparams["special"]),
        "token_logp": logps,
        "logp_sum": logps.sum(),
        "logp_per_codebook": logps.sum(dim=-1),
        "logp_per_frame": frame_log_probs(logps),
        "ce_musicgen": codebook_cross_entropy(logps, torch.ones_like(logps, dtype=torch.bool)),
    }
