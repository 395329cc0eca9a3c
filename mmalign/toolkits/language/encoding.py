"""From records to tokens: prompts with their media, scored response tokens, and limits that never cut silently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.contract.values import EncodedResponse
from mmalign.data.records import Message, Record, Response
from mmalign.errors import ConfigError, DataError
from mmalign.toolkits.language.chat import ChatFormat
from mmalign.toolkits.language.stored_text import StoredTexts
from mmalign.toolkits.language.turns import Segment

Tokens = list[tuple[int, bool]]
"""Token ids, each with whether it is scored."""


ReadMedia = Callable[[Record, str], Mapping[str, Tensor]]
"""Reads a rendered prompt with its media; returns an encoded prompt, see `mmalign.toolkits.tokens.prompts`."""


@dataclass(frozen=True)
class TokenLimits:
    """How many tokens there may be; None for any number.

    Attributes:
        prompt: longer prompts lose their beginning, all but the beginning-of-sequence token; those with media are
            refused, since a piece of an image means nothing.
        response: longer responses lose their end.
        context: prompt and response together; more are refused.
        vocabulary: rows of the network's embedding.
    """

    prompt: int | None = None
    response: int | None = None
    context: int | None = None
    vocabulary: int | None = None


@dataclass(frozen=True)
class _Reading:
    """A prompt, or the beginning of a conversation, on its way to a network.

    Attributes:
        text: rendered.
        ids: of the text alone, as long as it was.
        tensors: what a network reads; those of a prompt are shared by its responses.
        lead: prompt tokens that are scored, before those of each response.
        truncated: tokens that were cut off.
        answered: of the tokens in `tensors`, how many are of the response.
    """

    text: str
    ids: list[int]
    tensors: Mapping[str, Tensor]
    lead: Tokens
    truncated: int
    answered: int = 0

    @property
    def size(self) -> int:
        return len(self.tensors["prompt_ids"])

    @property
    def steps(self) -> int:
        """Scored tokens in `tensors`."""
        mask = self.tensors.get("prompt_mask")
        return 0 if mask is None else int(mask.sum())


class LanguageEncoder:
    """Encodes records with a tokenizer and a chat format.

    Args:
        read_media: reads conversations that have more than text.
        placeholders: texts of the tokens that stand for an image or a sound, which no text may have.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat: ChatFormat,
        limits: TokenLimits,
        read_media: ReadMedia | None = None,
        placeholders: Collection[str] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self._limits = limits
        self._context: int = min(tokenizer.model_max_length, limits.context or tokenizer.model_max_length)
        self._read_media = read_media
        self._prefix = self._find_prefix()
        self.notes = chat.notes
        self.end_ids = self._find_end_ids()
        ends = tokenizer.convert_ids_to_tokens(sorted(self.end_ids))
        self._texts = StoredTexts(tokenizer, ends, placeholders, self.notes)
        self._end_counts: dict[str, int] = {}

    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        """Returns what a network reads of the prompt and how many tokens were cut off."""
        read = self._read_prompt(record, trained=False)
        self._check_ids(read.tensors["prompt_ids"].tolist(), _name(record))
        self._check_length(read.size, _name(record))
        return dict(read.tensors), read.truncated

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Encodes all responses; they share the very same tensors of the prompt.

        Of a prompt that is trained on only the first token is one; the others are scored before each response. Where
        a later turn of a response shows more than text, all up to that turn is read as a prompt, with a mask of the
        tokens that are scored, `prompt_mask` [P].
        """
        read = self._read_prompt(record, trained=_trains_prompt(record))
        return [self._encode_response(record, response, read) for response in record.responses]

    def check_prompt(self, record: Record, steps: int) -> None:
        """Raises DataError where the model does not read the prompt of a record and so many tokens after it."""
        size = len(self.encode_prompt(record)[0]["prompt_ids"])
        if size + steps > self._context:
            raise DataError(
                f"{_name(record)}: {size} tokens and up to {steps} that are sampled, but the model reads "
                f"{self._context}; set modality.max_prompt_tokens, or lower decoding.max_steps"
            )

    @property
    def begins(self) -> bool:
        """True if the beginning-of-sequence token comes from here, since the template does not write it."""
        return bool(self._prefix)

    def _check_length(self, size: int, where: str) -> None:
        limit = self._context
        if size > limit:
            raise DataError(
                f"{where}: {size} tokens, but the model reads {limit}; "
                "set modality.max_prompt_tokens and modality.max_response_tokens"
            )

    def fingerprint(self) -> str:
        """Returns everything of the tokenizer and its template that changes ids, as text."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else sorted(self._tokenizer.get_vocab().items())
        return repr((vocabulary, self._chat.fingerprint(), sorted(self.end_ids)))

    # -- prompts

    def _read_prompt(self, record: Record, *, trained: bool) -> _Reading:
        self._texts.check_prompt(record, _name(record))
        text = self._chat.render_prompt(record, _name(record))
        ids = self._tokenise(text)
        if self._read_media is not None and _has_media(record.prompt):
            if trained:
                raise DataError(f"{_name(record)}: a prompt with media cannot be trained on; leave out its `train`")
            tensors = self._read_media(record, text)
            self._check_whole(len(tensors["prompt_ids"]), record)
            return _Reading(text, ids, tensors, [], 0)
        kept, truncated = self._cut_prompt(ids)
        unscored = 1 if trained else len(kept)
        lead = [(token, True) for token in kept[unscored:]]
        return _Reading(text, ids, {"prompt_ids": torch.tensor(kept[:unscored])}, lead, truncated)

    def _check_whole(self, size: int, record: Record) -> None:
        if self._limits.prompt is not None and size > self._limits.prompt:
            raise DataError(
                f"{_name(record)}: {size} tokens with its media, more than modality.max_prompt_tokens, "
                f"{self._limits.prompt}; such prompts are not cut: raise it, or drop the record"
            )

    def _cut_prompt(self, ids: list[int]) -> tuple[list[int], int]:
        excess = len(ids) - (self._limits.prompt or len(ids))
        if excess <= 0:
            return ids, 0
        # Without their beginning-of-sequence token many models fall apart. ChatML models use it in every turn instead.
        head = ids[:1] if ids[0] == self._tokenizer.bos_token_id and ids.count(ids[0]) == 1 else []
        return head + ids[excess + len(head) :], excess

    # -- responses

    def _encode_response(self, record: Record, response: Response, read: _Reading) -> EncodedResponse:
        where = f"{_name(record)}, response {response.rid!r}"
        response = self._texts.clean_response(response, where)
        segments = self._chat.render_response(record, response, read.text, where)
        shared = read.size
        if _has_media(response.messages):
            shared = 0
            read, segments = self._read_on(record, response, segments, read, where)
        tokens = self._tokenise_response(segments, read)
        if not any(scored for _, scored in tokens):
            after = " after its last image" if read.answered else ""
            raise DataError(f"{where}: no scored step{after}; expected an assistant turn whose `train` is not 0")
        room = None if self._limits.response is None else max(0, self._limits.response - read.answered)
        kept = _strip_unscored(tokens[:room])
        if not kept:
            raise DataError(
                f"{where}: cut to {room} of {len(tokens)} tokens it has no scored step left; "
                "raise modality.max_response_tokens or drop the record"
            )
        kept = read.lead + kept
        size = read.size + len(kept)
        ids, scored = zip(*kept, strict=True)
        self._check_ids((*read.tensors["prompt_ids"].tolist(), *ids), where)
        self._check_length(size, where)
        tensors = {**read.tensors, "response_ids": torch.tensor(ids), "response_mask": torch.tensor(scored)}
        truncated = read.truncated + len(tokens) - len(tokens[:room])
        return EncodedResponse(tensors, read.steps + sum(scored), size=size, shared=shared, truncated=truncated)

    def _tokenise_response(self, segments: Sequence[Segment], read: _Reading) -> Tokens:
        text, ids = read.text, read.ids
        tokens: Tokens = []
        for segment in segments:
            text += segment.text
            longer = self._tokenise(text)
            if longer[: len(ids)] == ids:
                own = longer[len(ids) :]
            else:
                # A token would straddle the border, which no sampled response can do: the piece is tokenised alone.
                own = self._tokenizer(segment.text, add_special_tokens=False).input_ids
            ids = ids + own
            tokens += self._mark(own, segment)
        tokens = _strip_unscored(tokens)
        if tokens and tokens[-1][0] not in self.end_ids:
            # The template ends its turns with no token of its own; sampling has to stop somewhere.
            tokens.append((self._tokenizer.eos_token_id, True))
        return tokens

    def _read_on(
        self, record: Record, response: Response, segments: list[Segment], read: _Reading, where: str
    ) -> tuple[_Reading, list[Segment]]:
        """Reads a conversation up to the last turn that shows more than text; returns that and what follows it."""
        if self._read_media is None or read.truncated or read.lead:
            raise DataError(
                f"{where}: a later turn shows more than text; such conversations are neither cut nor trained from "
                "their beginning: raise modality.max_prompt_tokens, and leave out `train` of the prompt"
            )
        showing = [any(_has_media(response.messages[n : n + 1]) for n in segment.messages) for segment in segments]
        last = max((number for number, shows in enumerate(showing) if shows), default=-1)
        text, ids, tensors, scored = read.text, read.ids, dict(read.tensors), [False] * read.size
        for segment, shows in zip(segments[: last + 1], showing, strict=False):
            text += segment.text
            longer = self._tokenise(text)
            own = self._mark(longer[len(ids) :], segment)
            if longer[: len(ids)] != ids:
                raise _straddles(where)
            ids = longer
            scored += [] if shows else [counted for _, counted in own]
            before = tensors["prompt_ids"]
            if not shows:
                tensors["prompt_ids"] = torch.cat([before, torch.tensor([token for token, _ in own])])
                continue
            shown = response.messages[: segment.messages.stop]
            tensors = dict(self._read_media(record.model_copy(update={"prompt": (*record.prompt, *shown)}), text))
            if not torch.equal(tensors["prompt_ids"][: len(before)], before):
                raise _straddles(where)
            scored += [False] * (len(tensors["prompt_ids"]) - len(scored))
        tensors["prompt_mask"] = torch.tensor(scored)
        return _Reading(text, ids, tensors, [], 0, answered=len(scored) - read.size), segments[last + 1 :]

    def _mark(self, ids: list[int], segment: Segment) -> Tokens:
        """Scores a turn up to its end token; what the template adds after it (a line break) is not sampled."""
        if not segment.scored:
            return [(token, False) for token in ids]
        ends = [place for place, token in enumerate(ids) if token in self.end_ids]
        # Some templates put another end after the last turn of all.
        last = ends[-max(1, self._count_ends(segment.tail))] if ends else len(ids)
        return [(token, place <= last) for place, token in enumerate(ids)]

    def _count_ends(self, tail: str) -> int:
        if tail not in self._end_counts:
            ids = self._tokenizer(tail, add_special_tokens=False).input_ids
            self._end_counts[tail] = sum(token in self.end_ids for token in ids)
        return self._end_counts[tail]

    def _tokenise(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return self._prefix + ids

    def _check_ids(self, ids: Sequence[int], where: str) -> None:
        limit, largest = self._limits.vocabulary, max(ids)
        if limit is not None and largest >= limit:
            token = self._tokenizer.convert_ids_to_tokens(largest)
            raise DataError(
                f"{where}: the tokenizer makes token {largest} of {token!r}, but the network has an embedding for "
                f"{limit} tokens; use the model's own tokenizer, or resize the model's embeddings"
            )

    def _find_prefix(self) -> list[int]:
        # A chat template writes the beginning-of-sequence token; the plain one leaves it to the tokenizer.
        ids = self._tokenizer("").input_ids if self._chat.template.plain else []
        return [ids[0]] if ids and ids[0] == self._tokenizer.bos_token_id else []

    def _find_end_ids(self) -> frozenset[int]:
        tail = self._tokenizer(self._chat.turn_end, add_special_tokens=False).input_ids
        special = [token for token in tail if token in self._tokenizer.all_special_ids]
        special += [t for t in tail if (added := self._tokenizer.added_tokens_decoder.get(t)) and added.special]
        ends = {*special[:1], self._tokenizer.eos_token_id} - {None}
        if not ends:
            raise ConfigError("modality.tokenizer: has no end-of-sequence token, so a response could never end")
        return frozenset(ends)


def _name(record: Record) -> str:
    return f"record {record.id!r}"


def _has_media(messages: Sequence[Message]) -> bool:
    return any(part.type != "text" for message in messages for part in message.content)


def _straddles(where: str) -> DataError:
    return DataError(
        f"{where}: the tokens of this conversation change where a later turn shows more than text, so its turns cannot "
        "be scored in place; use one response per turn"
    )


def _trains_prompt(record: Record) -> bool:
    trained = [bool(message.train) for message in record.prompt]
    if any(trained) and not all(trained):
        raise DataError(f"{_name(record)}: expected all turns of the prompt to have a `train` above 0, or none of them")
    return all(trained)


def _strip_unscored(tokens: Tokens) -> Tokens:
    """Drops what follows the last scored token."""
    places = [place for place, (_, scored) in enumerate(tokens) if scored]
    return tokens[: places[-1] + 1] if places else []
