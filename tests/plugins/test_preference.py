"""The preference evaluator on log-probs written by hand, and in a run on the toy modality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import mmalign
from mmalign import DataError, EncodedResponse, EvaluationContext, Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.data.records import Label
from mmalign_evaluators.preference import PreferenceEvaluator, render_histogram

STEPS = 2
# Per response: its policy and its reference log-prob of one step, and its steps.
FIRST = {"a0": (-1.0, -2.0, 1), "a1": (-3.0, -2.5, 2), "a2": (-4.0, -3.0, 1)}
SECOND = {"b0": (-5.0, -4.0, 2), "b1": (-6.0, -3.0, 1)}
LOGPS = FIRST | SECOND


def make_record(texts: Sequence[str], source: str, strength: float, model: str | None = None) -> Record:
    """The first response is preferred to the second; a third is in no pair."""
    record = Record.from_text("say", list(texts), id=source)
    labels = (Label(kind="pair", order=(("r0",), ("r1",)), strength=strength),)
    responses = tuple(one.model_copy(update={"model": model}) for one in record.responses)
    return record.model_copy(update={"labels": labels, "meta": f'{{"from": "{source}"}}', "responses": responses})


RECORDS = [make_record(list(FIRST), "web", 0.8, "big model"), make_record(list(SECOND), "book", 0.3)]


class WrittenBackend:
    """Stands in for the engine's backend: every step of a response has the log-prob written above."""

    def encode(self, records: Sequence[Record], *, targets_only: bool) -> Batch:
        assert not targets_only
        encoded = [
            [EncodedResponse({}, steps=LOGPS[one.text][2], size=LOGPS[one.text][2]) for one in record.responses]
            for record in records
        ]
        self.texts = [one.text for record in records for one in record.responses]
        return build_batch(records, encoded, targets_only=False)

    def policy_logps(self, responses: Sequence[EncodedResponse]) -> Tensor:
        return torch.tensor([[LOGPS[text][0]] * STEPS for text in self.texts])

    def score_with_reference(self, responses: Sequence[EncodedResponse], *, stored: bool) -> Tensor:
        assert stored
        return torch.tensor([[LOGPS[text][1]] * STEPS for text in self.texts])


def evaluate(records: Sequence[Record] = RECORDS, **options: Any) -> dict[str, float]:
    context = EvaluationContext(records, cast("Any", WrittenBackend()), cast("Any", None))
    return PreferenceEvaluator(**options).evaluate(context)


def test_accuracies_of_sums_means_and_rewards() -> None:
    """Sums: -1 beats -6, -10 loses to -6. Means: -1 beats -3, -5 beats -6. Log-ratios: 1 beats -1, -2 beats -3."""
    metrics = evaluate()
    assert metrics["ranking_accuracy"] == 0.5
    assert metrics["ranking_accuracy_per_step"] == 1.0
    assert metrics["reward_accuracy"] == 1.0


def test_raters_who_agree_lift_the_ceiling_and_divided_ones_do_not() -> None:
    """The reference ranks the second pair wrongly by 5 nats; at beta 1, ln 999 = 6.9 mend it, ln(3 / 7) does not."""
    agreed, divided = evaluate(beta=1.0), evaluate(beta=1.0, proportions=True)
    assert (agreed["idealised_accuracy"], divided["idealised_accuracy"]) == (1.0, 0.5)
    assert (agreed["alignment_gap"], divided["alignment_gap"]) == (0.5, 0.0)
    assert agreed["alignment_gap_per_step"] == 0.0
    assert divided["idealised_log_ratio"] == pytest.approx((3 + math.log(4) - 5 + math.log(3 / 7)) / 2)


def test_flip_threshold_is_a_mean_over_pairs() -> None:
    expected = (math.log1p(math.exp(3)) + math.log1p(math.exp(-5))) / 2
    assert evaluate(beta=1.0)["flip_threshold"] == pytest.approx(expected)


def test_margins_are_scaled_by_beta_and_ordered() -> None:
    """Margins 2 and 1 nats."""
    metrics = evaluate(beta=0.5)
    assert metrics["margin/p50"] == pytest.approx(0.75)
    assert metrics["margin/p05"] == pytest.approx(0.5 + 0.05 * 0.5)
    assert metrics["margin/p95"] == pytest.approx(0.5 + 0.95 * 0.5)


def test_likelihoods_show_displacement() -> None:
    """Chosen +1 and -2, rejected -1 and -3, the unpaired one -1: the second pair's margin grew while chosen fell."""
    metrics = evaluate()
    assert (metrics["log_ratio/chosen"], metrics["log_ratio/rejected"]) == (-0.5, -2.0)
    assert metrics["log_ratio/unpaired"] == -1.0
    assert metrics["displaced"] == 0.5
    assert metrics["kl"] == pytest.approx((-1 + 1 + 1 + 2 + 3) / 5)
    assert (metrics["length/chosen"], metrics["length/rejected"]) == (1.5, 1.5)


def test_accuracies_by_source() -> None:
    by_meta, by_model = evaluate(by="from"), evaluate(by="model")
    assert (by_meta["ranking_accuracy/web"], by_meta["ranking_accuracy/book"]) == (1.0, 0.0)
    assert (by_model["reward_accuracy/big_model"], by_model["ranking_accuracy/unknown"]) == (1.0, 0.0)
    assert not [name for name in evaluate() if name.startswith("reward_accuracy/")]


def test_only_the_first_records_are_scored() -> None:
    assert evaluate(limit=1)["ranking_accuracy"] == 1.0


def test_records_without_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="no preference pairs"):
        evaluate([RECORDS[0].model_copy(update={"labels": ()})])


def test_a_histogram_of_one_value_is_one_bar() -> None:
    assert render_histogram(torch.tensor([2.0, 2.0])).count("\n") == 0


def test_a_run_reports_the_diagnostics(toy_config: Any, write_config: Any, tmp_path: Any) -> None:
    """At the start the policy is the reference; the report has the histogram of the end."""
    evaluators = [{"name": "preference"}, {"name": "generation"}]
    config = toy_config(objective={"name": "sft"}, evaluation={"evaluators": evaluators})
    run = mmalign.train(write_config(config))
    assert run.before["preference/reward_accuracy"] == 0.0
    assert run.before["preference/kl"] == pytest.approx(0.0, abs=1e-6)
    assert run.after["preference/log_ratio/chosen"] > 0
    report = (tmp_path / "run" / "preference.md").read_text()
    assert "| displaced |" in report
    assert "#" * 40 in report


def test_nothing_is_written_for_other_evaluators(tmp_path: Any) -> None:
    import mmalign_evaluators

    run = cast("Any", SimpleNamespace(assembly=SimpleNamespace(evaluators={"generation": object()}), after={}))
    mmalign_evaluators.on_report_writing(run, tmp_path)
    assert list(tmp_path.iterdir()) == []
