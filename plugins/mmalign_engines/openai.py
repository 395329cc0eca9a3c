"""Sampling by an OpenAI-compatible server.

A server samples with the weights that it was started with, not with those that are being trained: `docs/generation.md`
says what that means. The trainer needs the tokens of a response and their log-probs. What a server does not tell is
made good here: text is encoded again, and missing log-probs are computed by the policy (`Generated.rescored`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import nn

from mmalign import ConfigError, DataError, Decoding, Engine, Generated, Modality, Parameters, Record, TokenModality
from mmalign_engines.http_client import JsonClient
from mmalign_engines.replies import Reply, parse_reply
from mmalign_engines.steps import compute_policy_logps, encode_reply, match_logps

PATHS = {"tokens": "completions", "chat": "chat/completions"}


class OpenAIConfig(Parameters):
    """An OpenAI-compatible server."""

    model: str
    """Name of the model on the server; it must be the policy's own, with the same tokenizer."""
    base_url: str = "http://localhost:8000/v1"
    """Address of the server, up to the version."""
    prompts: Literal["tokens", "chat"] = "tokens"
    """What is sent: the ids that the policy reads (`completions`), or messages for the server's template (`chat`)."""
    logprobs: Literal["raw", "sampled", "off"] = "raw"
    """The server's log-probs: `raw` are at temperature 1, `sampled` at the decoding's; `off` asks for none."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is never stored."""
    concurrency: int = Field(default=16, ge=1)
    """Requests at the same time, per process."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds without an answer after which an attempt has failed."""
    retries: int = Field(default=3, ge=0)
    """Further attempts after a time-out, a lost connection, status 429 or 5xx, or an answer that is not JSON."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More fields of every request, e.g. `{return_token_ids: true}` for vLLM; they win over the engine's own."""
    scoring_batch_size: int = Field(default=8, ge=1)
    """Responses per forward pass where the policy computes log-probs."""


@dataclass
class OpenAIEngine(Engine):
    """Sends one request for each response. The fields are those of `OpenAIConfig`, which says what they mean."""

    follows_policy: ClassVar[bool] = False

    model: str
    base_url: str = "http://localhost:8000/v1"
    prompts: Literal["tokens", "chat"] = "tokens"
    logprobs: Literal["raw", "sampled", "off"] = "raw"
    api_key_env: str | None = None
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 3
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    scoring_batch_size: int = 8

    def check(self, modality: Modality, decoding: Decoding) -> None:
        """Checks the address, the key, that steps are tokens, and that a server can be asked for the decoding."""
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"engine.base_url: got {self.base_url!r}; expected http://... or https://...")
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ConfigError(f"engine.api_key_env: the environment variable {self.api_key_env!r} is not set")
        if not isinstance(modality, TokenModality):
            raise ConfigError(
                f"engine.name: 'openai' samples tokens, which {type(modality).__name__} has not; use 'hf'"
            )
        decoding.request_fields()

    def generate(
        self, modality: Modality, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples; see `Engine.generate`. Every request has a seed from torch's global generator.

        Raises:
            TrainingError: the server does not answer, refuses, or answers something else than a completion.
        """
        tokens = cast(TokenModality, modality)
        owners = [record for record in records for _ in range(count)]
        replies = self._request_all(tokens, owners, decoding)
        generated = [
            self._build(tokens, record, f"r{index % count}", reply, decoding)
            for index, (record, reply) in enumerate(zip(owners, replies, strict=True))
        ]
        generated = self._rescore(tokens, network, generated, decoding)
        return [generated[start : start + count] for start in range(0, len(generated), count)]

    def _request_all(self, modality: TokenModality, owners: Sequence[Record], decoding: Decoding) -> list[Reply]:
        key = os.environ.get(self.api_key_env, "") if self.api_key_env else ""
        client = JsonClient(self.base_url, key, self.timeout, self.retries)
        path = PATHS[self.prompts]
        seeds = torch.randint(2**31, (len(owners),)).tolist()
        bodies = [self._body(modality, record, decoding, seed) for record, seed in zip(owners, seeds, strict=True)]
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(client.post, path, body) for body in bodies]
            try:
                return [parse_reply(future.result(), f"{self.base_url.rstrip('/')}/{path}") for future in futures]
            finally:
                # After a failure the requests that wait would fail alike, one time-out after the other.
                pool.shutdown(wait=False, cancel_futures=True)

    def _body(self, modality: TokenModality, record: Record, decoding: Decoding, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "seed": seed, **decoding.request_fields()}
        if self.prompts == "tokens":
            prompt, _ = modality.encode_prompt(record)
            logprobs: dict[str, Any] = {"logprobs": 1}
            body["prompt"] = prompt["prompt_ids"].tolist()
        else:
            logprobs = {"logprobs": True}
            body["messages"] = _messages(record)
        return body | (logprobs if self._usable_logprobs(decoding) else {}) | dict(self.extra_body)

    def _usable_logprobs(self, decoding: Decoding) -> bool:
        """Tells whether the server's log-probs are at the temperature at which the run's are."""
        at: float | None = {"raw": 1.0, "sampled": decoding.request_fields()["temperature"], "off": None}[self.logprobs]
        return at is not None and at == decoding.temperature

    def _build(self, modality: TokenModality, record: Record, rid: str, reply: Reply, decoding: Decoding) -> Generated:
        response, encoded = encode_reply(modality, record, rid, reply)
        logps = match_logps(modality, encoded, reply) if self._usable_logprobs(decoding) else None
        missing = logps is None
        return Generated(response, encoded, torch.empty(0) if logps is None else logps, reply.finished, missing)

    def _rescore(
        self, modality: TokenModality, network: nn.Module, generated: Sequence[Generated], decoding: Decoding
    ) -> list[Generated]:
        wanted = [one.encoded for one in generated if one.rescored]
        size = self.scoring_batch_size
        logps = iter(compute_policy_logps(modality, network, wanted, temperature=decoding.temperature, batch_size=size))
        return [replace(one, behaviour_logps=next(logps)) if one.rescored else one for one in generated]


def _messages(record: Record) -> list[dict[str, str]]:
    for message in record.prompt:
        for part in message.content:
            if part.type != "text":
                raise DataError(
                    f"record {record.id!r}: a {message.role} message has an {part.type} part; the engine sends text"
                )
    return [{"role": message.role, "content": message.text} for message in record.prompt]
