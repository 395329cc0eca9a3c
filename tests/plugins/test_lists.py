"""Padded lists and the metrics on them."""

from __future__ import annotations

import pytest
import torch

from mmalign_objectives.support.lists import group_lists, order_best_first, ranking_metrics

PROMPTS = torch.tensor([7, 3, 7, 7, 3])
COUNTED = torch.tensor([True, True, False, True, True])


def test_rows_are_prompts_in_the_order_of_their_index_and_columns_the_order_of_the_data() -> None:
    lists = group_lists(PROMPTS, COUNTED)
    assert lists.pad(torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])).tolist() == [[20.0, 50.0, 0.0], [10.0, 0.0, 40.0]]
    assert lists.mask.tolist() == [[True, True, False], [True, False, True]]


def test_what_does_not_count_reaches_neither_value_nor_gradient() -> None:
    values = torch.tensor([1.0, 2.0, float("nan"), 4.0, 5.0], requires_grad=True)
    (group_lists(PROMPTS, COUNTED).pad(values) ** 2).sum().backward()
    assert values.grad.tolist() == [2.0, 4.0, 0.0, 8.0, 10.0]


def test_the_best_come_first_ties_in_their_order_and_padding_last() -> None:
    grades = torch.tensor([[0.0, 1.0, 1.0, 9.0]])
    assert order_best_first(grades, torch.tensor([[True, True, True, False]])).tolist() == [[1, 2, 0, 3]]


def test_metrics_are_means_over_ordered_pairs() -> None:
    """Grades 2 > 1 > 0 with rewards 1, 3, 1: margins -2, 0 and 2, so the mean is 0 and half of them are right."""
    rewards, grades = torch.tensor([[1.0, 3.0, 1.0, 50.0]]), torch.tensor([[2.0, 1.0, 0.0, 3.0]])
    metrics = ranking_metrics(rewards, grades, torch.tensor([[True, True, True, False]]))
    assert metrics["reward_margins"].tolist() == [0.0]
    assert metrics["reward_accuracies"].tolist() == [0.5]


def test_a_list_of_equal_grades_has_zeros() -> None:
    metrics = ranking_metrics(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert (metrics["reward_margins"].item(), metrics["reward_accuracies"].item()) == (0.0, 0.0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="counted: expected the shape"):
        group_lists(PROMPTS, COUNTED[:3])
