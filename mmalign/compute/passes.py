"""Forward passes without gradient over any number of responses, a part of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmalign.contract.forward_plan import ForwardPlan, Output
from mmalign.contract.values import EncodedResponse


@torch.no_grad()
def score_responses(
    network: Callable[..., Any], responses: Sequence[EncodedResponse], parts: Iterable[Sequence[int]], output: Output
) -> Tensor:
    """Runs `network` over N responses without gradient, in parts.

    Args:
        network: a policy module, e.g. that of the reference.
        parts: the rows of each pass; every row is in one of them.
        output: what to compute.

    Returns:
        the output [N, T, ...] in the given order, float32.
    """
    rows: list[Tensor] = [torch.empty(0)] * len(responses)
    plan = ForwardPlan.of(output)
    for part in parts:
        values = network([responses[row] for row in part], plan)[output].float()
        for row, own in zip(part, values, strict=True):
            rows[row] = own if output is Output.CONTEXT else own[: responses[row].steps]
    return pad_rows(rows, nan if output is Output.CONTEXT else 0.0)


def cut_rows(responses: Sequence[EncodedResponse], size: int, positions: int | None) -> Iterator[list[int]]:
    """Cuts rows into parts, a prompt's side by side; responses to one prompt are those that share a tensor.

    Args:
        size: responses in a part.
        positions: positions in a part, a shared prompt counted once; None for no bound.
    """
    part: list[int] = []
    total = 0
    for row in sorted(range(len(responses)), key=lambda row: -responses[row].shared or -responses[row].size):
        response = responses[row]
        alike = part and _share_prompt(responses[part[-1]], response)
        added = response.size - response.shared if alike else response.size
        if part and (len(part) == size or (positions is not None and total + added > positions)):
            yield part
            part, total, added = [], 0, response.size
        part.append(row)
        total += added
    if part:
        yield part


def _share_prompt(one: EncodedResponse, other: EncodedResponse) -> bool:
    known = set(map(id, one.tensors.values()))
    return one.shared == other.shared > 0 and any(id(tensor) in known for tensor in other.tensors.values())


def pad_rows(rows: Sequence[Tensor], padding: float = 0.0) -> Tensor:
    """Pads rows of several lengths: [N, T]; [0, 0] where a batch has no response."""
    return pad_sequence(list(rows), batch_first=True, padding_value=padding) if rows else torch.zeros(0, 0)
