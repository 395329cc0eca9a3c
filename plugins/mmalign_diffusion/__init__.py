"""First-party modalities: diffusion and flow-matching models, of diffusers or of your own."""

from __future__ import annotations

from mmalign import ConformanceSpec, DecodingSpec, ModalitySpec, hookimpl
from mmalign_diffusion.conformance_index import list_conformance


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    """Announces the modalities."""
    return [
        ModalitySpec(
            name="diffusion",
            summary="Diffusion and flow models, scored by their denoising error at drawn noise levels.",
            target="mmalign_diffusion.modality:Diffusion",
            config="mmalign_diffusion.config:DiffusionConfig",
            log_prob_kind="surrogate",
            requires=("diffusers", "PIL"),
            extra="diffusion",
        ),
        ModalitySpec(
            name="diffusion_path",
            summary="Diffusion and flow models, scored by the Gaussian steps of their own sampler.",
            target="mmalign_diffusion.path_modality:DiffusionPath",
            config="mmalign_diffusion.config:DiffusionPathConfig",
            log_prob_kind="exact",
            paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
            requires=("diffusers", "PIL"),
            extra="diffusion",
        ),
    ]


@hookimpl
def register_decodings() -> list[DecodingSpec]:
    """Announces the decoding."""
    return [
        DecodingSpec(
            name="diffusion",
            summary="Denoising in a number of steps, with guidance and repeatable noise.",
            target="mmalign_diffusion.decoding:DiffusionDecoding",
            config="mmalign_diffusion.decoding:DiffusionDecodingConfig",
            paper="Denoising Diffusion Implicit Models (arXiv:2010.02502)",
        ),
    ]


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors the mathematics of these models can compute."""
    return list_conformance()
