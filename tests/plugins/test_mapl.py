"""MAPL, the inter-sample loss: margins of pairs of one record, compared by their strength."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign import Record
from mmalign.contract.batch import build_batch
from mmalign.contract.values import EncodedResponse
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.mapl import mapl_inter_loss, mark_ordered_pairs

BETA = 0.5
CHOSEN = torch.tensor([-1.0, -2.0, -3.0, -1.5], dtype=torch.float64)
REJECTED = torch.tensor([-2.0, -2.4, -2.0, -1.0], dtype=torch.float64)
ZEROS = torch.zeros(4, dtype=torch.float64)
OWNERS, PROMPTS = torch.tensor([0, 0, 2, 2]), torch.tensor([0, 0, 0, 0, 2, 2, 2, 5])


def loss(strength: list[float], chosen: torch.Tensor = CHOSEN, rejected: torch.Tensor = REJECTED):
    values = torch.tensor(strength, dtype=torch.float64)
    return mapl_inter_loss(chosen, rejected, ZEROS, ZEROS, values, OWNERS, PROMPTS, beta=BETA)


def test_a_loss_by_hand() -> None:
    """Margins 1, 0.4 and -1, -0.5, times 0.5. The first pair is the stronger one, then the fourth; no third prompt."""
    losses, metrics = loss([2.0, 1.0, 0.0, 3.0])
    expected = [math.log1p(math.exp(-0.5 * (1 - 0.4))), math.log1p(math.exp(-0.5 * (-0.5 + 1.0))), 0.0]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert metrics["margin_accuracies"].tolist() == [1.0, 1.0, 0.0]


def test_margins_are_those_against_the_reference() -> None:
    strength = torch.tensor([2.0, 1.0, 0.0, 3.0], dtype=torch.float64)
    references = torch.tensor([0.1, -0.4, 0.2, 0.7]).double(), torch.tensor([-0.3, 0.2, 0.5, -0.1]).double()
    losses, _ = mapl_inter_loss(CHOSEN, REJECTED, *references, strength, OWNERS, PROMPTS, beta=BETA)
    shifted = mapl_inter_loss(
        CHOSEN - references[0], REJECTED - references[1], ZEROS, ZEROS, strength, OWNERS, PROMPTS, beta=BETA
    )
    assert losses.tolist() == pytest.approx(shifted[0].tolist(), rel=1e-12)


def test_several_comparisons_are_averaged() -> None:
    owners, prompts = torch.zeros(4, dtype=torch.long), torch.zeros(8, dtype=torch.long)
    strength = torch.tensor([3.0, 2.0, 1.0, math.nan], dtype=torch.float64)
    losses, metrics = mapl_inter_loss(CHOSEN, REJECTED, ZEROS, ZEROS, strength, owners, prompts, beta=BETA)
    gaps = [1.0 - 0.4, 1.0 + 1.0, 0.4 + 1.0]
    assert losses.tolist() == pytest.approx([sum(math.log1p(math.exp(-BETA * gap)) for gap in gaps) / 3], rel=1e-12)
    assert metrics["margin_accuracies"].tolist() == [1.0]


def test_equal_and_unknown_strengths_teach_nothing() -> None:
    chosen = CHOSEN.clone().requires_grad_()
    losses, _ = loss([1.0, 1.0, math.nan, 2.0], chosen)
    losses.sum().backward()
    assert losses.tolist() == [0.0] * 3
    assert chosen.grad.tolist() == [0.0] * 4


def test_a_second_pair_of_one_response_with_itself_makes_it_dpo() -> None:
    chosen, rejected = CHOSEN.clone(), REJECTED.clone()
    chosen[1] = rejected[1]
    losses, _ = loss([1.0, 0.0, math.nan, math.nan], chosen, rejected)
    dpo, _ = dpo_loss(chosen[:1], rejected[:1], ZEROS[:1], ZEROS[:1], beta=BETA, label_smoothing=0.0)
    assert losses[0].item() == pytest.approx(dpo.item(), rel=1e-13)


def test_what_ignores_the_instructions_is_at_ln_2() -> None:
    chosen, rejected = CHOSEN[[0, 0, 2, 2]], REJECTED[[0, 0, 2, 2]]
    losses, _ = loss([1.0, 0.0, 0.0, 1.0], chosen, rejected)
    assert losses[:2].tolist() == pytest.approx([math.log(2)] * 2, rel=1e-13)


@pytest.mark.parametrize(
    ("strengths", "expected"), [((1.0, 2.0), True), ((1.0, 1.0), False), ((None, 1.0), False), ((None, None), False)]
)
def test_records_with_pairs_of_different_strength_are_marked(
    strengths: tuple[float | None, float | None], expected: bool
) -> None:
    labels = [{"kind": "pair", "order": [["r0"], ["r1"]], "strength": strength} for strength in strengths]
    record = Record.from_dict({**Record.from_text("a", ["x", "y"]).to_dict(), "labels": labels})
    other = Record.from_text("b", ["z"])
    encoded = [[EncodedResponse({}, steps=1, size=1) for _ in one.responses] for one in (record, other)]
    batch = build_batch([record, other], encoded, targets_only=False)
    values = {name: batch.quantities[name] for name in ("pairs", "pair_strength", "prompt_index")}
    assert mark_ordered_pairs(**values).tolist() == [expected, expected, False]
