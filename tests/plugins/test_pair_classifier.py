"""UPO's classifier of pairs: its questions, its loss, and what a run learns."""

from __future__ import annotations

import math

import pytest
import torch
from transforming import compared

from mmalign import Record
from mmalign_objectives.heads.pair_classifier import (
    QuestionConfig,
    ask_in_order,
    ask_swapped,
    compute_pair_probabilities,
    pair_classifier_loss,
)


def test_loss_by_hand() -> None:
    """Probability 3/4 of the right answer in order, 1/2 swapped: the mean of ln 4/3 and ln 2."""
    in_order, swapped = torch.tensor([math.log(3), -1.0]), torch.tensor([0.0, 1.0])
    losses, metrics = pair_classifier_loss(in_order, swapped, in_order.sigmoid())
    assert losses[0].item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert metrics["classifier_accuracies"].tolist() == [0.5, 0.0]
    assert metrics["pair_probabilities"][0].item() == pytest.approx(0.75)


def test_both_orders_are_pulled_apart() -> None:
    in_order, swapped = torch.tensor([0.3], requires_grad=True), torch.tensor([0.3], requires_grad=True)
    losses, _ = pair_classifier_loss(in_order, swapped, in_order.detach().sigmoid())
    losses.sum().backward()
    assert in_order.grad < 0 < swapped.grad


def test_questions_name_both_responses_in_their_order() -> None:
    record = compared(Record.from_text("Why?", ["So.", "No {first}."], id="p"), ("r0", "r1"))
    options = QuestionConfig().model_dump()
    for ask, order in ((ask_in_order, ("So.", "No {first}.")), (ask_swapped, ("No {first}.", "So."))):
        asked = ask(record, 0, 1, **options)
        text = asked.prompt_text
        assert text.startswith("Why?\n\nFirst answer:")
        assert text.index(f"First answer: {order[0]}") < text.index(f"Second answer: {order[1]}")
        assert [one.text for one in asked.responses] == ["Yes."]


def test_probabilities_are_those_of_log_odds() -> None:
    assert compute_pair_probabilities(torch.tensor([0.0, math.log(3)])).tolist() == pytest.approx([0.5, 0.75])
