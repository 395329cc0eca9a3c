"""First-party decodings: how responses are drawn from a model."""

from __future__ import annotations

from mmalign import DecodingSpec, hookimpl


@hookimpl
def register_decodings() -> list[DecodingSpec]:
    """Announces the decodings."""
    return [
        DecodingSpec(
            name="sample",
            summary="Sampling with temperature, optionally from the k likeliest steps or the nucleus.",
            target="mmalign_decodings.sampling:SampleDecoding",
            config="mmalign_decodings.sampling:SampleConfig",
            paper="The Curious Case of Neural Text Degeneration (arXiv:1904.09751)",
        ),
        DecodingSpec(
            name="greedy",
            summary="The likeliest step, always.",
            target="mmalign_decodings.sampling:GreedyDecoding",
            config="mmalign_decodings.sampling:GreedyConfig",
        ),
    ]
