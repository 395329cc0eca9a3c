"""Log-probs of multi-codebook audio tokens; the maths is in `patterns`."""

from __future__ import annotations

from mmalign import ConformanceSpec, hookimpl


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors can be computed."""
    return [
        ConformanceSpec(
            "audio-tokens",
            "mmalign_audio.conformance:compute_audio_tokens",
            inputs=("codes", "pattern_logits"),
            hparams=("delays", "special"),
        )
    ]
