"""Sampling of groups without padding: prompts are read as one packed row, their keys and values kept once a group.

Where responses have ended, the next prompts take their places (continuous batching), so that the batch stays full.

Shapes: B sequences in all, b of them in the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from mmalign.contract.decoding import Decoding
from mmalign.toolkits.tokens.decoders import Decoder
from mmalign.toolkits.tokens.generation import DROP_SHARE, Sampled, Sequences, draw
from mmalign.toolkits.tokens.group_cache import GroupCache, PromptReader
from mmalign.toolkits.tokens.packing import pack_prompts
from mmalign.toolkits.tokens.packing_support import packed_inputs, unmasked
from mmalign.toolkits.tokens.prompts import Prompt

Cohort = tuple[int, int]
"""Neighbouring rows that were admitted together: how many, and how many steps each has made."""

Group = tuple[int, int]
"""A prompt's number, and how many responses to it are wanted."""


def sample_groups(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    owners: Sequence[int],
    decoding: Decoding,
    end_ids: Collection[int],
    *,
    capacity: int,
) -> list[Sampled]:
    """Samples one response for every entry of `owners`, with torch's global generator; the caller turns gradients off.

    Args:
        prompts: read once for all their responses, images and sounds, too.
        owners: B ascending numbers, the prompt of each response.
        decoding: temperature, step limit and rule; `adjust` sees rows that have ended, too, and its choice is ignored.
        end_ids: a response ends with the first of these.
        capacity: sequences that are sampled at the same time.
    """
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=decoder.device)
    sequences = Sequences(len(owners), decoding.max_steps, decoder.device)
    waiting = deque((number, len(list(group))) for number, group in groupby(owners))
    admitted = 0
    running: _Running | None = None
    while waiting or running:
        if groups := _admit(waiting, len(running.rows) if running else 0, capacity):
            texts = [prompts[number] for number, _ in groups]
            new = _start(decoder, texts, [count for _, count in groups], first=admitted)
            admitted += len(new.rows)
            running = running.join(new) if running else new
        if running:
            ids, logps = running.draw(decoder, sequences, decoding)
            sequences.append(running.rows, ids, logps, torch.isin(ids, ends))
            running = running.advance(decoder, ids, sequences.finished, decoding.max_steps)
    return sequences.split()


def _admit(waiting: deque[Group], busy: int, capacity: int) -> list[Group]:
    """Takes the groups that fit into the free places; a group that is larger than the whole batch is cut."""
    free = capacity - busy
    groups: list[Group] = []
    if busy and free < DROP_SHARE * capacity:
        return groups  # each admission copies the cache
    while waiting and waiting[0][1] <= free:
        groups.append(waiting.popleft())
        free -= groups[-1][1]
    if waiting and not groups and not busy:
        number, count = waiting.popleft()
        waiting.appendleft((number, count - capacity))
        groups.append((number, capacity))
    return groups


@dataclass(frozen=True)
class _Running:
    """The sequences that are in the batch.

    Attributes:
        rows: [b], their numbers.
        states: [b, ...], from which their next token is drawn.
        positions: [b], position of that token.
        cohorts: cover the rows in their order.
    """

    rows: Tensor
    states: Tensor
    positions: Tensor
    cohorts: tuple[Cohort, ...]
    cache: GroupCache

    def join(self, other: _Running) -> _Running:
        """Returns both, `other` behind."""
        self.cache.join(other.cache)
        return _Running(
            torch.cat([self.rows, other.rows]),
            torch.cat([self.states, other.states]),
            torch.cat([self.positions, other.positions]),
            self.cohorts + other.cohorts,
            self.cache,
        )

    def draw(self, decoder: Decoder, sequences: Sequences, decoding: Decoding) -> tuple[Tensor, Tensor]:
        """Draws the next token of every row: ids [b] and their log-probs [b]."""
        logits = decoder.logits(self.states)
        drawn = [
            draw(own, sequences.ids[rows, :steps], decoding)
            for own, rows, (_, steps) in zip(self._split(logits), self._split(self.rows), self.cohorts, strict=True)
        ]
        return torch.cat([ids for ids, _ in drawn]), torch.cat([logps for _, logps in drawn])

    def advance(self, decoder: Decoder, ids: Tensor, finished: Tensor, max_steps: int) -> _Running | None:
        """Reads the tokens `ids` [b], without the rows that have ended if they are many; None if all have.

        Args:
            finished: [B] bool.
            max_steps: rows that have made so many end, too.
        """
        done = finished[self.rows]
        at_limit = [steps + 1 == max_steps for _, steps in self.cohorts]
        for own, full in zip(self._split(done), at_limit, strict=True):
            own |= full
        if bool(done.all()):
            return None
        # A row at the limit cannot stay: the others of the batch may have far to go.
        if any(at_limit) or done.float().mean() >= DROP_SHARE:
            kept = (~done).nonzero().flatten()
            counts = [int((~own).sum()) for own in self._split(done)]
            self.cache.keep(kept)
        else:
            kept, counts = torch.arange(len(done), device=done.device), [count for count, _ in self.cohorts]
        positions = self.positions[kept]
        inputs = {"input_ids": ids[kept, None], "position_ids": positions[:, None]}
        states = decoder.run({**inputs, **unmasked(self.cache, done.device)}).states[:, -1]
        self.cache.advance()
        steps = [made + 1 for _, made in self.cohorts]
        cohorts = tuple((count, made) for count, made in zip(counts, steps, strict=True) if count)
        return _Running(self.rows[kept], states, positions + 1, cohorts, self.cache)

    def _split(self, values: Tensor) -> Sequence[Tensor]:
        return torch.split(values, [count for count, _ in self.cohorts])


def _start(decoder: Decoder, prompts: Sequence[Prompt], counts: Sequence[int], *, first: int) -> _Running:
    """Reads prompts; `counts` responses to each begin, and get the numbers from `first` on."""
    row = pack_prompts(prompts)
    inputs = decoder.fit(packed_inputs(row))
    reader = PromptReader(inputs["layout"])
    states = decoder.run({**inputs, "layout": reader}).states[0]
    owners = torch.repeat_interleave(torch.tensor(list(counts))).to(decoder.device)
    following = torch.tensor([prompt.next_position for prompt in prompts])
    return _Running(
        rows=torch.arange(first, first + len(owners), device=decoder.device),
        states=states[row.prompt_ends.to(decoder.device)][owners],
        positions=following.to(decoder.device)[owners],
        cohorts=((len(owners), 0),),
        cache=GroupCache(reader, [len(prompt.ids) for prompt in prompts], owners),
    )
