"""From records to tokens: prompts with their media, scored response tokens, and limits that never cut silently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.data.records import Record, Response
from mmalign.errors import ConfigError, DataError
from mmalign.language.chat import ChatFormat
from mmalign.values import EncodedResponse

Tokens = list[tuple[int, bool]]
"""Token ids, each with whether it is scored."""


ReadMedia = Callable[[Record, str], Mapping[str, Tensor]]
"""Reads a rendered prompt with its media; returns the tensors of an encoded prompt, see `mmalign.tokens.prompts`."""


@dataclass(frozen=True)
class _ReadPrompt:
    """A prompt on its way to a network.

    Attributes:
        text: rendered.
        ids: of the text alone, as long as it was.
        tensors: what responses share.
        lead: prompt tokens that are scored, before those of each response.
        truncated: tokens that were cut off.
    """

    text: str
    ids: list[int]
    tensors: Mapping[str, Tensor]
    lead: Tokens
    truncated: int

    @property
    def size(self) -> int:
        return len(self.tensors["prompt_ids"])


class LanguageEncoder:
    """Encodes records with a tokenizer and a chat format.

    Args:
        max_prompt_tokens: longer prompts lose their beginning, all but the beginning-of-sequence token; those with
            media are refused, since a piece of an image means nothing.
        max_response_tokens: longer responses lose their end.
        read_media: reads prompts that have more than text.
        placeholder_ids: tokens that stand for an image or a sound, which no response may have.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat: ChatFormat,
        max_prompt_tokens: int | None,
        max_response_tokens: int | None,
        read_media: ReadMedia | None = None,
        placeholder_ids: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self._max_prompt = max_prompt_tokens
        self._max_response = max_response_tokens
        self._read_media = read_media
        self._placeholder_ids = placeholder_ids
        self._prefix = self._find_prefix()
        self.end_ids = self._find_end_ids()

    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        """Returns what a network reads of the prompt and how many tokens were cut off."""
        read = self._read_prompt(record, trained=False)
        self._check_length(read.size, _name(record))
        return dict(read.tensors), read.truncated

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Encodes all responses; they share the very same tensors of the prompt.

        Of a prompt that is trained on only the first token is one; the others are scored before each response.
        """
        read = self._read_prompt(record, trained=_trains_prompt(record))
        return [self._encode_response(record, response, read) for response in record.responses]

    def fingerprint(self) -> str:
        """Returns everything of the tokenizer and its template that changes ids, as text."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else sorted(self._tokenizer.get_vocab().items())
        return repr((vocabulary, self._chat.template, sorted(self.end_ids)))

    def _read_prompt(self, record: Record, *, trained: bool) -> _ReadPrompt:
        text = self._chat.render_prompt(record.prompt, _name(record))
        ids = self._tokenise(text)
        if self._read_media is not None and _has_media(record):
            if trained:
                raise DataError(f"{_name(record)}: a prompt with media cannot be trained on; leave out its `train`")
            tensors = self._read_media(record, text)
            self._check_whole(len(tensors["prompt_ids"]), record)
            return _ReadPrompt(text, ids, tensors, [], 0)
        kept, truncated = self._cut_prompt(ids)
        unscored = 1 if trained else len(kept)
        lead = [(token, True) for token in kept[unscored:]]
        return _ReadPrompt(text, ids, {"prompt_ids": torch.tensor(kept[:unscored])}, lead, truncated)

    def _check_whole(self, size: int, record: Record) -> None:
        if self._max_prompt is not None and size > self._max_prompt:
            raise DataError(
                f"{_name(record)}: {size} tokens with its media, more than modality.max_prompt_tokens, "
                f"{self._max_prompt}; such prompts are not cut: raise it, or drop the record"
            )

    def _encode_response(self, record: Record, response: Response, read: _ReadPrompt) -> EncodedResponse:
        where = f"{_name(record)}, response {response.rid!r}"
        tokens = self._tokenise_response(record, response, read.text, read.ids, where)
        for token in {token for token, _ in tokens}.intersection(self._placeholder_ids):
            raise DataError(
                f"{where}: it has {self._tokenizer.decode([token])!r}, which stands for an image or a sound"
            )
        if not any(scored for _, scored in tokens):
            raise DataError(f"{where}: no scored step; expected an assistant turn whose `train` is not 0")
        kept = _strip_unscored(tokens[: self._max_response])
        if not kept:
            raise DataError(
                f"{where}: cut to {self._max_response} of {len(tokens)} tokens it has no scored step left; "
                "raise modality.max_response_tokens or drop the record"
            )
        kept = read.lead + kept
        size = read.size + len(kept)
        self._check_length(size, where)
        ids, scored = zip(*kept, strict=True)
        tensors = {**read.tensors, "response_ids": torch.tensor(ids), "response_mask": torch.tensor(scored)}
        truncated = read.truncated + max(0, len(tokens) - (self._max_response or len(tokens)))
        return EncodedResponse(tensors, steps=sum(scored), size=size, shared=read.size, truncated=truncated)

    def _tokenise_response(self, record: Record, response: Response, text: str, ids: list[int], where: str) -> Tokens:
        tokens: Tokens = []
        for segment in self._chat.render_response(record.prompt, response, where):
            text += segment.text
            longer = self._tokenise(text)
            if longer[: len(ids)] == ids:
                own = longer[len(ids) :]
            else:
                # A token would straddle the border, which no sampled response can do: the piece is tokenised alone.
                own = self._tokenizer(segment.text, add_special_tokens=False).input_ids
            ids = ids + own
            tokens += self._mark(own) if segment.scored else [(token, False) for token in own]
        tokens = _strip_unscored(tokens)
        if tokens and tokens[-1][0] not in self.end_ids:
            # The template ends its turns with no token of its own; sampling has to stop somewhere.
            tokens.append((self._tokenizer.eos_token_id, True))
        return tokens

    def _mark(self, ids: list[int]) -> Tokens:
        """Scores a turn up to its end token; what the template adds after it (a line break) is not sampled."""
        ends = [place for place, token in enumerate(ids) if token in self.end_ids]
        last = ends[-1] if ends else len(ids)
        return [(token, place <= last) for place, token in enumerate(ids)]

    def _tokenise(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return self._prefix + ids

    def _cut_prompt(self, ids: list[int]) -> tuple[list[int], int]:
        excess = len(ids) - (self._max_prompt or len(ids))
        if excess <= 0:
            return ids, 0
        # Without their beginning-of-sequence token many models fall apart. ChatML models use it in every turn instead.
        head = ids[:1] if ids[0] == self._tokenizer.bos_token_id and ids.count(ids[0]) == 1 else []
        return head + ids[excess + len(head) :], excess

    def _check_length(self, size: int, where: str) -> None:
        limit = self._tokenizer.model_max_length
        if size > limit:
            raise DataError(
                f"{where}: {size} tokens, but the model reads {limit}; "
                "set modality.max_prompt_tokens and modality.max_response_tokens"
            )

    def _find_prefix(self) -> list[int]:
        # A chat template writes the beginning-of-sequence token; the plain one leaves it to the tokenizer.
        ids = self._tokenizer("").input_ids if self._chat.plain else []
        return [ids[0]] if ids and ids[0] == self._tokenizer.bos_token_id else []

    def _find_end_ids(self) -> frozenset[int]:
        tail = self._tokenizer(self._chat.render_turn_end(), add_special_tokens=False).input_ids
        special = [token for token in tail if token in self._tokenizer.all_special_ids]
        special += [t for t in tail if (added := self._tokenizer.added_tokens_decoder.get(t)) and added.special]
        ends = {*special[:1], self._tokenizer.eos_token_id} - {None}
        if not ends:
            raise ConfigError("modality.tokenizer: has no end-of-sequence token, so a response could never end")
        return frozenset(ends)


def _name(record: Record) -> str:
    return f"record {record.id!r}"


def _has_media(record: Record) -> bool:
    return any(part.type != "text" for message in record.prompt for part in message.content)


def _trains_prompt(record: Record) -> bool:
    trained = [bool(message.train) for message in record.prompt]
    if any(trained) and not all(trained):
        raise DataError(f"{_name(record)}: expected all turns of the prompt to have a `train` above 0, or none of them")
    return all(trained)


def _strip_unscored(tokens: Tokens) -> Tokens:
    """Drops what follows the last scored token."""
    places = [place for place, (_, scored) in enumerate(tokens) if scored]
    return tokens[: places[-1] + 1] if places else []
