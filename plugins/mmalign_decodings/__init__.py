"""First-party decodings: how responses are drawn from a model."""

from __future__ import annotations

from mmalign import ConformanceSpec, DecodingSpec, hookimpl


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


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors the rules for next-step scores can compute."""
    return [
        ConformanceSpec(
            "m3id",
            "mmalign_decodings.conformance:compute_m3id",
            inputs=("m3id_logits_c", "m3id_logits_u"),
            hparams=("lambda", "alpha"),
            given=("t",),
        )
    ]
