"""A classifier of pairs: a score head on the question whether the first of two responses is better.

UPO asks it several times with dropout (`mmalign score --passes`): how much the answers differ says how uncertain a pair
is. Every pair is asked about in both orders, so that the place of a response tells nothing.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from mmalign import Message, ObjectiveSpec, Parameters, Part, QuantitySpec, Record, Response
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.shapes import check_shapes

_PAPER = (
    "Self-Evolutionary Large Language Models through Uncertainty-Enhanced Preference Optimization (arXiv:2409.11212)"
)
_IN_ORDER_ROW = QuantitySpec(
    name="in_order_row",
    summary="The question whether the first of two responses is better, the chosen one first.",
    compute=f"{__name__}:ask_in_order",
    config=f"{__name__}:QuestionConfig",
    axes="MI",
    stage="companion",
    paper=_PAPER,
)
SPECS = (
    ObjectiveSpec(
        name="pair_classifier",
        summary="Trains a score head to tell which of two responses is better: the estimator of UPO.",
        loss=f"{__name__}:pair_classifier_loss",
        per="pair",
        equation="-(logsigmoid(s(x, w, l)) + logsigmoid(-s(x, l, w))) / 2",
        paper=_PAPER,
    ),
    _IN_ORDER_ROW,
    replace(
        _IN_ORDER_ROW,
        name="swapped_row",
        summary="The question whether the first of two responses is better, the rejected one first.",
        compute=f"{__name__}:ask_swapped",
    ),
    QuantitySpec(
        name="pair_probabilities",
        summary="Probability that the chosen response is better, by the score head.",
        compute=f"{__name__}:compute_pair_probabilities",
        axes="M",
        paper=_PAPER,
    ),
)


class QuestionConfig(Parameters):
    """What the classifier reads of a pair."""

    question: str = "First answer: {first}\nSecond answer: {second}\nIs the first answer better?"
    """The message of the user that follows the prompt; {first} and {second} are replaced by the responses."""
    verdict: str = Field(default="Yes.", min_length=1)
    """The answer on whose last token the head reads; always the same."""


def ask_in_order(record: Record, chosen: int, rejected: int, *, question: str, verdict: str) -> Record:
    """Asks whether the chosen response is better than the rejected one; see stage `companion`."""
    return _ask(record, (chosen, rejected), question, verdict)


def ask_swapped(record: Record, chosen: int, rejected: int, *, question: str, verdict: str) -> Record:
    """Asks whether the rejected response is better than the chosen one."""
    return _ask(record, (rejected, chosen), question, verdict)


def compute_pair_probabilities(in_order_scores: Tensor) -> Tensor:
    """Turns scores [M] of pairs, the chosen response first, into the probability that it is better."""
    return in_order_scores.sigmoid()


def pair_classifier_loss(
    in_order_scores: Tensor, swapped_scores: Tensor, pair_probabilities: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the cross-entropy of the right answer, averaged over both orders.

    Args:
        in_order_scores: [M], log-odds that the first response is better, the chosen one first.
        swapped_scores: [M], likewise, the rejected one first.
        pair_probabilities: [M], of the chosen response, for the metrics.

    Returns:
        losses [M], and detached metrics [M]: `pair_probabilities`, and `classifier_accuracies`, the share of orders
        that are answered rightly.

    Source: arXiv:2409.11212, the estimator of UPO.
    Differs: both orders are asked about; the paper's template was not checked.
    """
    check_shapes(1, in_order=in_order_scores, swapped=swapped_scores, probabilities=pair_probabilities)
    losses = (logistic(in_order_scores) + logistic(-swapped_scores)) / 2
    right = ((in_order_scores > 0).float() + (swapped_scores < 0).float()) / 2
    return losses, {"pair_probabilities": pair_probabilities.detach(), "classifier_accuracies": right}


def _ask(record: Record, order: tuple[int, int], question: str, verdict: str) -> Record:
    first, second = (record.responses[place].text for place in order)
    told = "\n\n".join(message.text for message in record.prompt)
    text = question.replace("{first}", first).replace("{second}", second)
    asked = Message(role="user", content=(Part(type="text", text=f"{told}\n\n{text}"),))
    answered = record.with_responses([Response.from_text("verdict", verdict)])
    return answered.model_copy(update={"prompt": (asked,)})
