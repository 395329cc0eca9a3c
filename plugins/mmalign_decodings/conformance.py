"""Golden-vector cases of rules for next-step scores."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

from torch import Tensor

from mmalign_decodings.m3id import is_unsure, m3id_scores

Values = Mapping[str, Any]


def compute_m3id(inputs: Values, hparams: Values) -> list[dict[str, Tensor | float]]:
    """M3ID at every step of the table: the share of the condition, whether scores change, the scores and the best."""
    conditional, unconditional = (inputs[f"m3id_logits_{side}"].log_softmax(dim=-1) for side in "cu")
    decay, confidence = hparams["lambda"], hparams["alpha"]
    rows: list[dict[str, Tensor | float]] = []
    for step in map(int, inputs["t"]):
        scores = m3id_scores(conditional, unconditional, step=step, decay=decay, confidence=confidence)
        active = is_unsure(conditional, confidence)
        rows.append(
            {"t": step, "gamma": exp(-decay * step), "active": active, "score": scores, "argmax": scores.argmax()}
        )
    return rows
