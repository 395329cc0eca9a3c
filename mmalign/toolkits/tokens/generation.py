"""Batched sampling of tokens with transformers' key-value cache, for networks that cannot read packed rows.

A prompt goes through the network once for all of its responses. Rows that have ended are dropped from the batch as soon
as they are a quarter of it.

Shapes: P prompts, B sequences, b of them still in the batch, V vocabulary, L prompt positions, t steps so far.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.contract.decoding import Decoding
from mmalign.toolkits.tokens.decoders import Decoder

DROP_SHARE = 0.25
"""Ended rows are dropped when they are this share of the batch; each drop copies the cache."""


@dataclass(frozen=True)
class Sampled:
    """One sampled response.

    Attributes:
        ids: [T], on the CPU, with the end token if there is one.
        logps: [T], float32, on the CPU, under the tempered distribution before `Decoding.adjust`.
        finished: True if it ends with an end token.
    """

    ids: Tensor
    logps: Tensor
    finished: bool


class Excluding(Decoding):
    """A decoding that never chooses some tokens, such as those that a network takes for the place of an image."""

    def __init__(self, decoding: Decoding, ids: Collection[int]) -> None:
        super().__init__(decoding.temperature, decoding.max_steps)
        self._decoding = decoding
        self._ids = torch.tensor(sorted(ids))

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Adjusts as the decoding does, and leaves those tokens no probability."""
        adjusted = self._decoding.adjust(logits, generated)
        return adjusted.index_fill(1, self._ids.to(logits.device), -torch.inf)


class Sequences:
    """What has been sampled so far.

    Attributes:
        ids: [B, max_steps].
        logps: [B, max_steps].
        lengths: [B], steps of each, the end token included.
        finished: [B] bool.
    """

    def __init__(self, count: int, max_steps: int, device: torch.device) -> None:
        self.ids = torch.zeros(count, max_steps, dtype=torch.long, device=device)
        self.logps = torch.zeros(count, max_steps, device=device)
        self.lengths = torch.zeros(count, dtype=torch.long, device=device)
        self.finished = torch.zeros(count, dtype=torch.bool, device=device)

    def append(self, rows: Tensor, ids: Tensor, logps: Tensor, ended: Tensor) -> None:
        """Adds one step to those of `rows` [b] that have not ended."""
        going = ~self.finished[rows]
        rows = rows[going]
        self.ids[rows, self.lengths[rows]] = ids[going]
        self.logps[rows, self.lengths[rows]] = logps[going]
        self.lengths[rows] += 1
        self.finished[rows] = ended[going]

    def split(self) -> list[Sampled]:
        """Returns the sequences by themselves."""
        ids, logps = self.ids.cpu(), self.logps.cpu()
        lengths, finished = self.lengths.tolist(), self.finished.tolist()
        return [
            Sampled(ids[row, :length].clone(), logps[row, :length].clone(), finished[row])
            for row, length in enumerate(lengths)
        ]


def sample_tokens(
    decoder: Decoder, prompts: Mapping[str, Tensor], owners: Tensor, decoding: Decoding, end_ids: Collection[int]
) -> list[Sampled]:
    """Samples one response for every entry of `owners`, with torch's global generator; the caller turns gradients off.

    Args:
        prompts: left-padded inputs of P prompts, on the network's device.
        owners: [B], the prompt of each response.
        decoding: temperature, step limit and rule; `adjust` sees rows that have ended, too, and its choice is ignored.
        end_ids: a response ends with the first of these.
    """
    device = owners.device
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
    sequences = Sequences(len(owners), decoding.max_steps, device)
    rows = torch.arange(len(owners), device=device)  # [b], which sequence each row of the batch is
    states, cache = _read(decoder, prompts)
    states = states[owners]
    cache.batch_select_indices(owners)
    mask = prompts["attention_mask"][owners]  # [b, L + t]
    # [b], position of the next token: behind all of the prompt's, on all axes
    positions = prompts["position_ids"].view(-1, *prompts["input_ids"].shape).amax(dim=(0, 2))[owners] + 1
    for step in range(decoding.max_steps):
        ids, logps = draw(decoder.logits(states), sequences.ids[rows, :step], decoding)
        sequences.append(rows, ids, logps, torch.isin(ids, ends))
        ended = sequences.finished[rows]
        if step + 1 == decoding.max_steps or bool(ended.all()):
            break
        if ended.float().mean() >= DROP_SHARE:
            kept = (~ended).nonzero().flatten()
            rows, ids, mask, positions = rows[kept], ids[kept], mask[kept], positions[kept]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        inputs = {"input_ids": ids[:, None], "attention_mask": mask, "position_ids": positions[:, None]}
        states, cache = _read(decoder, {**inputs, "past_key_values": cache})
        positions = positions + 1
    return sequences.split()


def _read(decoder: Decoder, inputs: Mapping[str, Any]) -> tuple[Tensor, Any]:
    output = decoder.run(inputs, use_cache=True)
    return output.states[:, -1], output.cache


def draw(logits: Tensor, generated: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """Draws one token a row from logits [b, V]; returns ids [b] and their log-probs [b] before `adjust`."""
    tempered = logits.float() / decoding.temperature
    log_probs = tempered.log_softmax(dim=-1)
    adjusted = decoding.adjust(tempered, generated)
    ids = _choose(adjusted.softmax(dim=-1))  # [b, 1]
    return ids.squeeze(1), log_probs.gather(1, ids).squeeze(1)


def _choose(probabilities: Tensor) -> Tensor:
    """Draws one index a row, [b, V] to [b, 1], from one random number a row; `torch.multinomial` takes V of them."""
    sums = probabilities.double().cumsum(dim=1)
    thresholds = sums[:, -1:] * torch.rand(len(sums), 1, dtype=sums.dtype, device=sums.device)
    # To the right of equal sums: what has probability 0 is never drawn.
    return torch.searchsorted(sums, thresholds, right=True).clamp(max=sums.shape[1] - 1)
