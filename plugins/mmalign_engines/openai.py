"""Sampling by an OpenAI-compatible server.

A server samples with the weights that it was started with, not with those that are being trained: `docs/generation.md`
says what that means. The trainer needs the tokens of a response and their log-probs. What a server does not tell is
made good: text is encoded again here, and missing log-probs are computed by the backend (`Generated.rescored`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import nn

from mmalign import (
    ConfigError,
    DataError,
    Decoding,
    Engine,
    Generated,
    JsonPoster,
    Modality,
    Parameters,
    Record,
    RequestConfig,
    RequestFailed,
    TokenModality,
    TrainingError,
    Url,
    read_key,
    show_address,
)
from mmalign_engines.messages import chat_messages
from mmalign_engines.replies import Reply, parse_reply
from mmalign_engines.steps import encode_reply, match_logps

REQUESTS = RequestConfig(concurrency=16, timeout=120.0, retries=3)

PATHS = {"tokens": "completions", "chat": "chat/completions"}


class OpenAIConfig(Parameters):
    """An OpenAI-compatible server."""

    model: str
    """Name of the model on the server; it must be the policy's own, with the same tokenizer."""
    base_url: Url = "http://localhost:8000/v1"
    """Address of the server, up to the version."""
    prompts: Literal["tokens", "chat"] = "tokens"
    """What is sent: the ids that the policy reads (`completions`), or messages for the server's template (`chat`). Only
    messages carry images."""
    logprobs: Literal["raw", "sampled", "off"] = "raw"
    """The server's log-probs: `raw` are at temperature 1, `sampled` at the decoding's; `off` asks for none."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is never stored."""
    requests: RequestConfig = REQUESTS
    """How requests are made, by each process."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More fields of every request, e.g. `{return_token_ids: true}` for vLLM; they win over the engine's own."""


@dataclass
class OpenAIEngine(Engine):
    """Sends one request for each response. The fields are those of `OpenAIConfig`, which says what they mean."""

    follows_policy: ClassVar[bool] = False

    model: str
    base_url: str = "http://localhost:8000/v1"
    prompts: Literal["tokens", "chat"] = "tokens"
    logprobs: Literal["raw", "sampled", "off"] = "raw"
    api_key_env: str | None = None
    requests: RequestConfig = REQUESTS
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def check(self, modality: Modality, decoding: Decoding) -> None:
        """Checks the key, that steps are tokens, and that a server can be asked for the decoding."""
        read_key(self.api_key_env, "engine")
        if not isinstance(modality, TokenModality):
            raise ConfigError(
                f"engine.name: 'openai' samples tokens, which {type(modality).__name__} has not; use 'hf'"
            )
        decoding.request_fields()

    def prompts_per_draw(self, modality: Modality, count: int) -> int:
        """Returns 1: every response is a request with a seed of its own."""
        return 1

    def generate(
        self, modality: Modality, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples; see `Engine.generate`. Every request has a seed from torch's global generator.

        Raises:
            TrainingError: the server does not answer, refuses, or answers something else than a completion.
        """
        tokens = cast(TokenModality, modality)
        for record in filter(_shows_more_than_text, records):
            tokens.encode_prompt(record)  # what the policy cannot read is refused before anything is asked
        owners = [record for record in records for _ in range(count)]
        replies = self._request_all(tokens, owners, decoding)
        generated = [
            self._build(tokens, record, f"r{index % count}", reply, decoding)
            for index, (record, reply) in enumerate(zip(owners, replies, strict=True))
        ]
        return [generated[start : start + count] for start in range(0, len(generated), count)]

    def _request_all(self, modality: TokenModality, owners: Sequence[Record], decoding: Decoding) -> list[Reply]:
        url = f"{self.base_url.rstrip('/')}/{PATHS[self.prompts]}"
        poster = JsonPoster(url, self.api_key_env, self.requests, "engine")
        seeds = torch.randint(2**31, (len(owners),)).tolist()
        bodies = [self._body(modality, record, decoding, seed) for record, seed in zip(owners, seeds, strict=True)]
        try:
            answers = poster.post_all(bodies, stop_at_failure=True)
        except RequestFailed as failure:
            hint = "is the server running, and is engine.requests.timeout long enough?"
            raise TrainingError(f"engine.base_url: {show_address(url)}: {failure}; {hint}") from None
        return [parse_reply(answer, show_address(url)) for answer in answers]

    def _body(self, modality: TokenModality, record: Record, decoding: Decoding, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "seed": seed, **decoding.request_fields()}
        if self.prompts == "tokens":
            logprobs: dict[str, Any] = {"logprobs": 1}
            body["prompt"] = _token_ids(modality, record)
        else:
            logprobs = {"logprobs": True}
            body["messages"] = chat_messages(record, modality.media_limits)
            # Servers render them as the chat template here does; vLLM and SGLang read the second.
            arguments = {**getattr(modality, "chat_template_kwargs", {}), **record.template_arguments}
            told = {"tools": record.tool_schemas, "chat_template_kwargs": arguments}
            body |= {name: value for name, value in told.items() if value}
        return body | (logprobs if self._usable_logprobs(decoding) else {}) | dict(self.extra_body)

    def _usable_logprobs(self, decoding: Decoding) -> bool:
        """Returns whether the server's log-probs are at the temperature at which the run's are."""
        at: float | None = {"raw": 1.0, "sampled": decoding.request_fields()["temperature"], "off": None}[self.logprobs]
        return at is not None and at == decoding.temperature

    def _build(self, modality: TokenModality, record: Record, rid: str, reply: Reply, decoding: Decoding) -> Generated:
        response, encoded = encode_reply(modality, record, rid, reply)
        logps = match_logps(modality, encoded, reply) if self._usable_logprobs(decoding) else None
        return Generated(response, encoded, logps, reply.finished)


def _token_ids(modality: TokenModality, record: Record) -> list[int]:
    prompt, _ = modality.encode_prompt(record)
    if _shows_more_than_text(record):
        raise DataError(f"record {record.id!r}: tokens carry no images; set engine.prompts: chat")
    ids: list[int] = prompt["prompt_ids"].tolist()
    return ids


def _shows_more_than_text(record: Record) -> bool:
    return any(part.type != "text" for message in record.prompt for part in message.content)
