"""First-party modality: text, with any causal language model of transformers."""

from __future__ import annotations

from mmalign import ModalitySpec, hookimpl


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    """Announces the modality."""
    return [
        ModalitySpec(
            name="text",
            summary="Causal language models of transformers and GGUF files; chat templates; LoRA or full training.",
            target="mmalign_text.modality:TextModality",
            config="mmalign_text.config:TextConfig",
            provides=(
                *("logps", "entropy", "values", "scores"),
                *("states", "forward_kl", "reverse_kl", "expected_logps"),
                *("hidden", "layers", "activations", "context"),
            ),
            log_prob_kind="exact",
            requires=("transformers",),
            extra="text",
        ),
    ]
