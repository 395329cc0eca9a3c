"""From a server's answer to the steps that the trainer scores, and their log-probs.

Shapes: N responses, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmalign import EncodedResponse, Record, Response, TokenModality
from mmalign_engines.replies import Reply


def encode_reply(modality: TokenModality, record: Record, rid: str, reply: Reply) -> tuple[Response, EncodedResponse]:
    """Encodes an answer: exactly, by its token ids, if the server told them; else by its text.

    Encoding a text ends it with an end token, which a response that the limit cut off does not have: it is taken away.
    """
    if reply.token_ids is not None:
        response = modality.build_response(rid, reply.token_ids)
        return response, _encode_ids(modality, record, reply.token_ids)
    response = Response.from_text(rid, reply.text)
    encoded = modality.encode(record.with_responses([response]))[0]
    return response, encoded if reply.finished else _without_end(modality, encoded)


def match_logps(modality: TokenModality, encoded: EncodedResponse, reply: Reply) -> Tensor | None:
    """Returns the server's log-probs [T], float32, or None if they are not those of the encoded steps.

    They are if the server tells as many tokens as there are steps and each has the string of its step. Tokenizers
    that mark the start of words lose the space before a token that is decoded alone, so that space is not compared.
    """
    tensors = encoded.tensors
    ids: list[int] = tensors["response_ids"][tensors["response_mask"]].tolist()
    if reply.logps is None or len(reply.logps) != len(ids):
        return None
    if reply.token_ids is None and not _same_strings(modality, ids, reply.tokens or ()):
        return None
    return torch.tensor(reply.logps, dtype=torch.float32)


def _encode_ids(modality: TokenModality, record: Record, ids: Sequence[int]) -> EncodedResponse:
    prompt, truncated = modality.encode_prompt(record)
    tensors = {**prompt, "response_ids": torch.tensor(ids), "response_mask": torch.ones(len(ids), dtype=torch.bool)}
    return EncodedResponse(tensors, len(ids), size=len(prompt["prompt_ids"]) + len(ids), truncated=truncated)


def _without_end(modality: TokenModality, encoded: EncodedResponse) -> EncodedResponse:
    ids, mask = encoded.tensors["response_ids"], encoded.tensors["response_mask"]
    if encoded.steps == 1 or int(ids[-1]) not in modality.end_ids:
        return encoded
    tensors = {**encoded.tensors, "response_ids": ids[:-1], "response_mask": mask[:-1]}
    return replace(encoded, tensors=tensors, steps=encoded.steps - 1, size=encoded.size - 1)


def _same_strings(modality: TokenModality, ids: Sequence[int], tokens: Sequence[str]) -> bool:
    if len(tokens) != len(ids):
        return False
    # Servers show the end token as its name or as nothing.
    last = len(ids) - 1 if ids[-1] in modality.end_ids else len(ids)
    pairs = zip(ids[:last], tokens, strict=False)
    return all(modality.build_response("r", [step]).text.lstrip(" ") == token.lstrip(" ") for step, token in pairs)
