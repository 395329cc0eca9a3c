"""Objectives: which elements count, and that their weights sum to the mean over the global batch, however it is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign import ConfigError, ObjectiveSpec, PluginError, Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.contract.values import EncodedResponse
from mmalign.losses.metrics import MetricSums
from mmalign.losses.objectives import Objective, bind_axes, bind_objective, element_mask, label_metrics
from mmalign.losses.weighting import weighted_loss


def make_spec(per: Any, **declared: Any) -> ObjectiveSpec:
    return ObjectiveSpec(name=f"mine_{per}", summary="", loss="x:y", per=per, **declared)


def pass_on(values: Tensor, **parameters: Any) -> tuple[Tensor, dict[str, Tensor]]:
    return values, {"seen": values.detach()}


@pytest.fixture
def batch() -> Batch:
    """Four responses of 1, 2, 3 and 4 steps to two prompts; one pair each; the third is not labelled."""
    records = [Record.from_text("a", ["x", "y"]), Record.from_text("b", ["x", "y"])]
    encoded = [[EncodedResponse({}, steps=steps, size=steps) for steps in own] for own in ((1, 2), (3, 4))]
    batch = build_batch(records, encoded, targets_only=False)
    values = {
        "pairs": torch.tensor([[1, 0], [2, 3]]),
        "pair_strength": torch.zeros(2),
        "margins": torch.tensor([1.0, 5.0]),
        "gains": torch.tensor([1.0, 2.0, 4.0, 8.0]),
        "step_gains": torch.arange(16.0).reshape(4, 4),
        "labelled": torch.tensor([True, True, False, True]),
    }
    return batch.with_quantities(values, {"margins": "M", "gains": "N", "step_gains": "NT"})


def compute_loss(objective: Objective, batch: Batch, size: int) -> float:
    """The sum over the micro-batches of `size`."""
    batch = replace(batch, whole_prompts=objective.spec.per == "prompt")
    totals = [objective.totals(batch)]
    sums = MetricSums()
    parts = batch.micro_batches(size)
    return float(sum(weighted_loss([objective], part.quantities, totals, sums) for part in parts))


def sum_over_prompts(gains: Tensor, prompt_index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.stack([gains[prompt_index == prompt].sum() for prompt in prompt_index.unique()]), {}


PER_PROMPT = bind_objective(
    make_spec("prompt", over="labelled"), {one: one for one in ("gains", "prompt_index")}, sum_over_prompts, {}, 1.0
)
PER_PAIR = bind_objective(make_spec("pair"), {"values": "margins"}, pass_on, {}, 1.0)
PER_RESPONSE = bind_objective(make_spec("response", over="labelled"), {"values": "gains"}, pass_on, {}, 1.0)


def per_step(aggregation: str, over: str = "") -> Objective:
    spec = make_spec("step", over=over)
    return bind_objective(spec, {"values": "step_gains"}, pass_on, {"aggregation": aggregation, "horizon": 5.0}, 1.0)


# Rows of step_gains up to their lengths: 0 | 4 5 | 8 9 10 | 12 13 14 15.
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (PER_PAIR, (1 + 5) / 2),
        (PER_RESPONSE, (1 + 2 + 8) / 3),
        (PER_PROMPT, (1 + 2 + 4 + 8) / 2),
        (per_step("step_mean"), (0 + 9 + 27 + 54) / 10),
        (per_step("sequence_mean"), (0 + 4.5 + 9 + 13.5) / 4),
        (per_step("sequence_sum"), (0 + 9 + 27 + 54) / 4),
        (per_step("constant"), (0 + 9 + 27 + 54) / (4 * 5)),
        (per_step("step_mean", over="labelled"), (0 + 9 + 54) / 7),
        (per_step("sequence_mean", over="labelled"), (0 + 4.5 + 13.5) / 3),
    ],
)
def test_the_loss_is_the_mean_over_the_global_batch(
    batch: Batch, objective: Objective, expected: float, size: int
) -> None:
    assert compute_loss(objective, batch, size) == pytest.approx(expected, rel=1e-6)


def test_two_processes_share_one_mean(batch: Batch) -> None:
    halves = [batch.select([0, 1]), batch.select([2, 3])]
    totals = sum(PER_RESPONSE.totals(half) for half in halves)
    assert isinstance(totals, Tensor)
    shares = [weighted_loss([PER_RESPONSE], half.quantities, [totals], MetricSums()) for half in halves]
    assert float(sum(shares)) == pytest.approx((1 + 2 + 8) / 3)


def test_padding_may_hold_anything(batch: Batch) -> None:
    padded = batch.quantities["step_gains"].masked_fill(~batch.quantities["step_mask"], float("nan"))
    spoilt = batch.with_quantities({"step_gains": padded}, {})
    assert compute_loss(per_step("step_mean"), spoilt, 2) == pytest.approx(9.0)


def test_a_prompt_counts_where_one_of_its_responses_does(batch: Batch) -> None:
    for labelled, expected in (([True, False, False, False], 3.0), ([False, False, True, True], 12.0)):
        half = batch.with_quantities({"labelled": torch.tensor(labelled)}, {})
        assert compute_loss(PER_PROMPT, half, 4) == expected


def test_totals_count_elements_and_responses(batch: Batch) -> None:
    assert PER_PAIR.totals(batch).tolist() == [2, 2]
    assert PER_RESPONSE.totals(batch).tolist() == [3, 3]
    assert per_step("step_mean").totals(batch).tolist() == [10, 4]
    assert per_step("step_mean", over="labelled").totals(batch).tolist() == [7, 3]


def test_step_elements_are_covered_steps_only(batch: Batch) -> None:
    mask = element_mask(per_step("step_mean", over="labelled").spec, batch.quantities)
    assert mask.sum(dim=1).tolist() == [1, 2, 0, 4]


def test_a_batch_that_an_objective_does_not_cover_weighs_nothing(batch: Batch) -> None:
    empty = batch.with_quantities({"labelled": torch.zeros(4, dtype=torch.bool)}, {})
    assert compute_loss(PER_RESPONSE, empty, 2) == 0.0


def test_parameters_of_the_engine_do_not_reach_the_loss() -> None:
    seen: dict[str, Any] = {}

    def loss(values: Tensor, **parameters: Any) -> tuple[Tensor, dict[str, Tensor]]:
        seen.update(parameters)
        return values, {}

    parameters = {"aggregation": "constant", "horizon": 3.0, "beta": 0.5}
    objective = bind_objective(make_spec("response"), {"values": "gains"}, loss, parameters, 2.0)
    objective.evaluate({"gains": torch.zeros(2), "lengths": torch.ones(2)})
    assert seen == {"beta": 0.5}
    assert (objective.aggregation, objective.horizon, objective.weight) == ("constant", 3.0, 2.0)


def test_a_loss_gets_its_needs_in_the_declared_order() -> None:
    def loss(second: Tensor, first: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return second - first, {}

    objective = bind_objective(make_spec("response"), {"second": "b", "first": "a"}, loss, {}, 1.0)
    values = {"a": torch.tensor([1.0]), "b": torch.tensor([3.0]), "lengths": torch.ones(1)}
    assert objective.evaluate(values)[0].tolist() == [2.0]


def test_a_loss_of_the_wrong_shape_names_the_objective_and_both_shapes(batch: Batch) -> None:
    objective = bind_objective(make_spec("pair"), {"values": "gains"}, pass_on, {}, 1.0)
    with pytest.raises(PluginError, match=r"'mine_pair'.*shape \(4,\).*one element per pair is \(2,\)"):
        objective.evaluate(batch.quantities)


def test_an_unknown_aggregation_is_refused(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="unknown 'step_maen'; did you mean 'step_mean'"):
        compute_loss(per_step("step_maen"), batch, 4)


def test_objectives_of_a_sum_are_weighted_and_reported_apart(batch: Batch) -> None:
    first = bind_objective(make_spec("response", over="labelled"), {"values": "gains"}, pass_on, {}, 0.5)
    second = bind_objective(make_spec("pair"), {"values": "margins"}, pass_on, {}, 2.0)
    objectives = label_metrics([first, second])
    sums = MetricSums()
    totals = [objective.totals(batch) for objective in objectives]
    loss = sum(weighted_loss(objectives, part.quantities, totals, sums) for part in batch.micro_batches(2))
    metrics = sums.compute(lambda value: value)
    assert float(loss) == pytest.approx(0.5 * 11 / 3 + 2 * 3)
    assert metrics["mine_response/loss"] == pytest.approx(11 / 3)
    assert metrics["mine_pair/loss"] == pytest.approx(3)
    assert metrics["loss"] == pytest.approx(float(loss))


def test_two_objectives_of_one_name_keep_their_metrics_apart() -> None:
    assert [one.prefix for one in label_metrics([PER_PAIR, PER_PAIR])] == ["mine_pair/", "mine_pair_2/"]
    assert [one.prefix for one in label_metrics([PER_PAIR])] == [""]


def test_a_pair_counts_where_the_quantity_that_it_is_over_marks_both_responses(batch: Batch) -> None:
    """The third response is not labelled, so the second pair does not count."""
    spec = make_spec("pair", over="labelled")
    assert element_mask(spec, batch.quantities).tolist() == [True, False]


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_numbers_count_where_they_are_known(batch: Batch, shape: tuple[int, ...]) -> None:
    known = torch.tensor([1.0, float("nan"), 0.0, 2.0]).reshape(shape)
    batch = batch.with_quantities({"known": known}, {"known": "N" if len(shape) == 1 else "NK"})
    spec = make_spec("response", over="known")
    assert element_mask(spec, batch.quantities).tolist() == [True, False, True, True]
    assert element_mask(make_spec("pair", over="known"), batch.quantities).tolist() == [False, True]


def test_a_number_that_is_not_known_reaches_no_gradient(batch: Batch) -> None:
    gains = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    known = torch.tensor([1.0, float("nan"), 3.0, 2.0])
    values = {**batch.quantities, "gains": gains, "known": known}
    spec = make_spec("response", over="known")
    objective = bind_objective(
        spec, {"gains": "gains", "known": "known"}, lambda gains, known: ((gains * known).exp(), {}), {}, 1.0
    )
    objective = bind_axes(objective, {"gains": "N", "known": "N"})
    sums = MetricSums()
    totals = torch.tensor([3.0, 3.0], dtype=torch.float64)
    weighted_loss([objective], values, [totals], sums).backward()
    assert torch.isfinite(gains.grad).all()
    assert gains.grad[1].item() == 0.0
    assert (gains.grad[[0, 2, 3]] != 0).all()


def test_what_is_about_other_things_than_the_elements_stays_as_it_is(batch: Batch) -> None:
    """Two pairs and, by chance, two prompts: the second pair does not count, the second prompt's number stays."""
    seen: dict[str, list[float]] = {}

    def look(margins: Tensor, by_prompt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen.update(margins=margins.tolist(), by_prompt=by_prompt.tolist())
        return margins, {}

    spec = make_spec("pair", over="labelled")
    objective = bind_axes(
        bind_objective(spec, {"margins": "margins", "by_prompt": "by_prompt"}, look, {}, 1.0),
        {"margins": "M", "by_prompt": "P"},
    )
    objective.evaluate({**batch.quantities, "by_prompt": torch.tensor([7.0, 9.0])})
    assert seen == {"margins": [1.0, 0.0], "by_prompt": [7.0, 9.0]}


def test_a_pair_over_a_companion_counts_where_there_is_one(batch: Batch) -> None:
    values = {**batch.quantities, "gold_row": torch.tensor([3, -1])}
    assert element_mask(make_spec("pair", over="gold_row"), values).tolist() == [True, False]
