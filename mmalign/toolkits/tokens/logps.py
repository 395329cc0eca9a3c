"""Log-probs of tokens without a [tokens, vocabulary] tensor of the batch.

The head is applied only where a step is scored, a few positions at a time, and again in the backward pass.

Shapes: S scored steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from mmalign.contract.forward_plan import Divergence, ForwardPlan, Output
from mmalign.contract.values import Anchor
from mmalign.toolkits.tokens.decoders import Decoder

_OWN_OUTPUTS = (Output.LOGPS, Output.ENTROPY)
"""What is computed of each step's distribution alone, in this order."""
_LOGPS_ALONE = ForwardPlan.of(Output.LOGPS)


def score_steps(
    decoder: Decoder,
    states: Tensor,
    targets: Tensor,
    plan: ForwardPlan,
    *,
    temperature: float,
    chunk: int,
    anchors: Mapping[str, Anchor] | None = None,
) -> dict[str, Tensor]:
    """Scores steps, `chunk` at a time; logits are computed again in the backward pass instead of being kept.

    Args:
        states: [S, ...], what predicts each step.
        targets: [S], the token of each step.
        plan: its log-probs, entropies and divergences are computed; other outputs are left alone.
        temperature: divides the logits, the anchors', too.
        chunk: positions whose logits exist at the same time.
        anchors: what the policy is compared with, by name; their states are [S, ...] here.

    Returns:
        the planned outputs [S], nats, float32.
    """
    scored = replace(plan, outputs=plan.outputs.intersection(_OWN_OUTPUTS))
    if not scored:
        return {}
    scoring = _Scoring(decoder, targets, scored, temperature, chunk, anchors or {})
    apply: Callable[..., tuple[Tensor, ...]] = _InChunks.apply
    return dict(zip(scored.axes(), apply(scoring, states, *decoder.head_weights()), strict=True))


_COMPARISONS: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    Divergence.FORWARD_KL: lambda policy, other: (other.exp() * (other - policy)).sum(dim=-1),
    Divergence.REVERSE_KL: lambda policy, other: (policy.exp() * (policy - other)).sum(dim=-1),
    Divergence.EXPECTED_LOGPS: lambda policy, other: (policy.exp() * other).sum(dim=-1),
}
"""Divergences from the log-probs [chunk, V] of the policy and of an anchor, in the order of their definition."""


@dataclass(frozen=True)
class _Scoring:
    """Scores the steps at `rows`: their states [chunk, ...] to what is planned [chunk], as `plan.axes()` orders it."""

    decoder: Decoder
    targets: Tensor
    plan: ForwardPlan
    temperature: float
    chunk: int
    anchors: Mapping[str, Anchor]

    def __call__(self, states: Tensor, rows: slice) -> list[Tensor]:
        logits = self._temper(self.decoder.logits(states))  # [chunk, V]
        outputs: list[Tensor] = []
        if Output.LOGPS in self.plan.outputs:
            outputs.append(-cross_entropy(logits, self.targets[rows], reduction="none"))
        if self.plan == _LOGPS_ALONE:
            return outputs
        log_probs = logits.log_softmax(dim=-1)
        if Output.ENTROPY in self.plan.outputs:
            outputs.append(-(log_probs.exp() * log_probs).sum(dim=-1))
        for model, kinds in self.plan.divergences.items():
            other = self._log_probs_of(self.anchors[model], rows)
            outputs += [compare(log_probs, other) for kind, compare in _COMPARISONS.items() if kind in kinds]
        return outputs

    @torch.no_grad()
    def _log_probs_of(self, anchor: Anchor, rows: slice) -> Tensor:
        return self._temper(anchor.logits(anchor.states[rows])).log_softmax(dim=-1)  # [chunk, V]

    def iter_rows(self) -> Iterator[slice]:
        """Cuts the steps into chunks."""
        for start in range(0, len(self.targets), self.chunk):
            yield slice(start, start + self.chunk)

    def _temper(self, logits: Tensor) -> Tensor:
        return logits.float() if self.temperature == 1 else logits.float() / self.temperature


class _InChunks(torch.autograd.Function):
    """States [S, ...] to the planned outputs, each [S], float32; `weights` are the trained ones of the head.

    No chunk leaves anything behind. Were there a part of the graph for each, those small pieces would lie between the
    logits that are freed, and no later chunk would fit into the gaps.
    """

    @staticmethod
    def forward(ctx: Any, scoring: _Scoring, states: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        outputs = tuple(states.new_empty(len(states), dtype=torch.float32) for _ in scoring.plan.axes())
        for rows in scoring.iter_rows():
            for output, values in zip(outputs, scoring(states[rows], rows), strict=True):
                output[rows] = values
        device = states.device.type
        ctx.autocast = {"dtype": torch.get_autocast_dtype(device), "enabled": torch.is_autocast_enabled(device)}
        ctx.save_for_backward(states, *weights)
        ctx.scoring = scoring
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, *weights = ctx.saved_tensors
        states_grad, *weight_grads = (torch.zeros_like(one) for one in ctx.saved_tensors)
        # A cast that is kept would belong to the graph of the first chunk.
        with torch.autocast(states.device.type, **ctx.autocast, cache_enabled=False):
            for rows in ctx.scoring.iter_rows():
                own = states[rows].detach().requires_grad_()
                with torch.enable_grad():
                    values = ctx.scoring(own, rows)
                shares = torch.autograd.grad(values, (own, *weights), [grad[rows] for grad in grads])
                states_grad[rows] = shares[0]
                for total, share in zip(weight_grads, shares[1:], strict=True):
                    total += share
        return None, states_grad, *weight_grads
