"""What the tests of the token core share: a modality whose text is token ids, and longhand scoring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign import EncodedResponse, Record, Response, TokenModality
from mmalign.contract.values import Model

END = 1


class IdTokens(TokenModality):
    """Prompts and responses are token ids in text: `"5 7 9"`; padding and end are the same token."""

    pad_id = END
    end_ids = frozenset({END})

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        return Model(self.network.to(device, dtype), hidden_size=32)

    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        return {"prompt_ids": ids_of(record.prompt_text)}, 0

    def encode(self, record: Record) -> list[EncodedResponse]:
        return [encoded(ids_of(record.prompt_text), ids_of(response.text)) for response in record.responses]

    def build_response(self, rid: str, ids: Any) -> Response:
        return Response.from_text(rid, " ".join(map(str, ids)))

    def decode(self, record: Record, response: Response) -> str:
        return response.text


def ids_of(text: str) -> Tensor:
    return torch.tensor([int(token) for token in text.split()])


def encoded(prompt: Tensor, response: Tensor, mask: list[int] | None = None) -> EncodedResponse:
    scored = torch.ones(len(response), dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    tensors = {"prompt_ids": prompt, "response_ids": response, "response_mask": scored}
    return EncodedResponse(tensors, steps=int(scored.sum()), size=len(prompt) + len(response))


def score_longhand(network, response: EncodedResponse, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [T] of one response by itself, from the network's own logits, one step at a time."""
    prompt, own = response.tensors["prompt_ids"], response.tensors["response_ids"]
    ids = torch.cat([prompt, own])
    logits = network(ids[None]).logits[0] / temperature
    logps, entropies = [], []
    for place in response.tensors["response_mask"].nonzero().flatten().tolist():
        log_probs = logits[len(prompt) + place - 1].log_softmax(-1)
        logps.append(log_probs[own[place]])
        entropies.append(torch.distributions.Categorical(logits=log_probs).entropy())
    return torch.stack(logps), torch.stack(entropies)
