"""Scoring in chunks: values and gradients are those of all logits at once, whoever trains the head."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import Anchor
from mmalign.toolkits.tokens.decoders import SplitDecoder
from mmalign.toolkits.tokens.logps import score_steps

STEPS, HIDDEN, WORDS = 7, 6, 11
PLAN = ForwardPlan.of("logps", "entropy", teacher=["forward_kl"])
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float32": nullcontext,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


class AdaptedHead(nn.Module):
    """A frozen head and a trained product of low rank."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(HIDDEN, WORDS, bias=False).requires_grad_(False)
        self.down, self.up = nn.Linear(HIDDEN, 2, bias=False), nn.Linear(2, WORDS, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        adapted: Tensor = self.base_layer(states) + self.up(self.down(states))
        return adapted


HEADS: dict[str, Callable[[], nn.Module]] = {
    "frozen": lambda: nn.Linear(HIDDEN, WORDS).requires_grad_(False),
    "trained": lambda: nn.Linear(HIDDEN, WORDS),
    "adapted": AdaptedHead,
}


TARGETS = torch.tensor([3, 0, 10, 3, 5, 1, 7])


def score(head: nn.Module, states: Tensor, chunk: int, plan: ForwardPlan = PLAN) -> dict[str, Tensor]:
    torch.manual_seed(1)
    teacher = Anchor(torch.randn(STEPS, HIDDEN), nn.Linear(HIDDEN, WORDS).requires_grad_(False))
    decoder = SplitDecoder(nn.Identity(), head, lambda logits: 2 * logits)
    return score_steps(decoder, states, TARGETS, plan, temperature=0.7, chunk=chunk, anchors={"teacher": teacher})


def scores_and_gradients(head: nn.Module, setting: str, chunk: int) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    states = torch.randn(STEPS, HIDDEN, requires_grad=True)
    with SETTINGS[setting]():
        scores = list(score(head, states, chunk).values())
    # Each step and each output has a gradient of its own.
    total = sum((torch.arange(1, STEPS + 1) ** power * one).sum() for power, one in enumerate(scores))
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    assert isinstance(total, Tensor)
    return [one.detach() for one in scores], list(torch.autograd.grad(total, [states, *weights]))


@pytest.mark.parametrize("chunk", [1, 3, STEPS])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("head", HEADS)
def test_chunks_change_neither_values_nor_gradients(head: str, setting: str, chunk: int) -> None:
    torch.manual_seed(2)
    network = HEADS[head]()
    whole, chunked = (scores_and_gradients(network, setting, size) for size in (100, chunk))
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if setting == "autocast" else {"rtol": 1e-5, "atol": 1e-5}
    for own, other in zip(chunked, whole, strict=True):
        torch.testing.assert_close(own, other, **tolerance)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_those_of_the_textbook(head: str) -> None:
    torch.manual_seed(2)
    network = HEADS[head]()
    states = torch.randn(STEPS, HIDDEN, requires_grad=True)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    own = score(network, states, 3, ForwardPlan.of("logps"))["logps"]
    textbook = (2 * network(states) / 0.7).log_softmax(dim=-1)[torch.arange(STEPS), TARGETS]
    torch.testing.assert_close(own, textbook)
    grads = [torch.autograd.grad((one**2).sum(), [states, *weights]) for one in (own, textbook)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_the_way_back_computes_in_the_precision_of_the_way_there() -> None:
    head, seen = HEADS["trained"](), []
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    scores_and_gradients(head, "autocast", STEPS)
    assert seen == [torch.bfloat16, torch.bfloat16]


def test_a_pass_leaves_one_piece_of_graph_however_many_chunks_there_are() -> None:
    states = torch.randn(STEPS, HIDDEN, requires_grad=True)
    scores = score(HEADS["trained"](), states, 1)
    assert len({score.grad_fn for score in scores.values()}) == 1


def test_no_step_has_no_score() -> None:
    decoder = SplitDecoder(nn.Identity(), HEADS["trained"](), lambda logits: logits)
    states = torch.zeros(0, HIDDEN, requires_grad=True)
    scores = score_steps(
        decoder, states, torch.zeros(0, dtype=torch.long), ForwardPlan.of("logps"), temperature=1.0, chunk=4
    )
    assert scores["logps"].shape == (0,)
    scores["logps"].sum().backward()
    assert states.grad is not None
