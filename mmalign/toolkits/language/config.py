"""Keys that all language models have."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mmalign.contract.specs import Parameters
from mmalign.networks.adapters import LoRAParameters


class LanguageParameters(Parameters):
    """A language model and how records become its tokens."""

    model: str
    """Hub id, local folder, or `package:NAME/FILE`, a file inside an installed Python package."""
    chat_template: str | None = None
    """Jinja template, a file that holds one, or the name of one of the model's, instead of the model's default."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the chat template, e.g. `{enable_thinking: false}`; those of a record come before them."""
    system: str | None = None
    """System message of prompts that have none. Default: what the template does; empty: no system turn at all."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longer prompts lose their beginning; counted."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """Longer responses lose their end; counted, and refused if no scored token would be left."""
    lora: LoRAParameters | None = None
    """Train a low-rank adapter; without it all weights are trained."""
    attention: str | None = None
    """Attention implementation of transformers: `eager`, `sdpa`, `flash_attention_2`; default its choice."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model. Only for authors you trust."""
    packing: Literal["auto", "off"] = "auto"
    """Score without padding and a prompt once for all its responses, where the attention allows it; or pad rows."""
    generation_batch_size: int = Field(default=64, ge=1)
    """Sequences that are sampled at the same time."""
