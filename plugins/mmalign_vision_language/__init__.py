"""First-party modality: language models that read images, or sounds, beside text."""

from __future__ import annotations

from mmalign import ModalitySpec, hookimpl


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    """Announces the modality."""
    return [
        ModalitySpec(
            name="vision_language",
            summary="Language models of transformers that read images or sounds in prompts and answer with text.",
            target="mmalign_vision_language.modality:VisionLanguageModality",
            config="mmalign_vision_language.config:VisionLanguageConfig",
            provides=(
                *("logps", "entropy", "values", "scores"),
                *("states", "forward_kl", "reverse_kl", "expected_logps"),
                *("hidden", "layers", "activations", "context"),
            ),
            log_prob_kind="exact",
            requires=("transformers", "PIL"),
            extra="vision_language",
        ),
    ]
