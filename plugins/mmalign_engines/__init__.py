"""First-party engines: where responses are sampled."""

from __future__ import annotations

from mmalign import EngineSpec, hookimpl


@hookimpl
def register_engines() -> list[EngineSpec]:
    """Announces the engines."""
    return [
        EngineSpec(
            name="hf",
            summary="The modality samples in this process, with the weights that are being trained.",
            target="mmalign_engines.hf:InProcessEngine",
        ),
        EngineSpec(
            name="openai",
            summary="Any OpenAI-compatible server: vLLM, llama.cpp, `transformers serve`; token modalities.",
            target="mmalign_engines.openai:OpenAIEngine",
            config="mmalign_engines.openai:OpenAIConfig",
        ),
    ]
