"""Passes without gradient: how responses are cut into parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import objective_runs
import pytest
import torch
from torch import Tensor

from mmalign.compute.passes import cut_rows, score_responses
from mmalign.config.run_config import RunConfig
from mmalign.contract.forward_plan import ForwardPlan, Output
from mmalign.contract.values import EncodedResponse
from mmalign.training.rounds import begin_round


def test_passes_without_gradient_keep_to_the_token_budget_too() -> None:
    """Prompts of 6 tokens with responses of 2, then of 3 with 1: 8, 10 and 12 positions, then 4 and 5."""
    long, short = encoded(2, prompt=torch.arange(6)), encoded(1, prompt=torch.arange(3))
    responses = [short, long, long, short, long]
    assert list(cut_rows(responses, 9, None)) == [[1, 2, 4, 0, 3]]
    assert list(cut_rows(responses, 9, 12)) == [[1, 2, 4], [0, 3]]
    assert list(cut_rows(responses, 9, 11)) == [[1, 2], [4], [0, 3]]
    assert list(cut_rows(responses, 2, 100)) == [[1, 2], [4, 0], [3]]
    assert list(cut_rows(responses, 9, 1)) == [[1], [2], [4], [0], [3]]


def test_prompts_of_one_size_are_not_one_prompt() -> None:
    """As where each asks the same about another image: of 8 positions only 2 are added by a second response."""
    responses = [encoded(2, prompt=torch.arange(6)), encoded(2, prompt=torch.arange(6))]
    assert list(cut_rows(responses, 9, 16)) == [[0, 1]]
    assert list(cut_rows(responses, 9, 15)) == [[0], [1]]


def encoded(steps: int, prompt: Tensor) -> EncodedResponse:
    return EncodedResponse({"prompt_ids": prompt}, steps, size=len(prompt) + steps, shared=len(prompt))


@pytest.mark.parametrize("budget", [None, 100, 300])
def test_the_reference_is_scored_in_the_same_passes_as_the_policy(
    budget: int | None, tiny_text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 a pass over other responses rounds otherwise, and the first log-ratios would not be 0."""
    words = "a new cat sat on the old mat and saw the sun go down by the sea".split()
    rows = [
        {"prompt": " ".join(words[: 3 + n % 2]), "chosen": " ".join(words[n:]), "rejected": " ".join(words[2 * n :])}
        for n in range(1, 8)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(tmp_path / "pairs.jsonl")}},
        "objective": {"name": "dpo"},
        "reference": {"cache": False},
        "train": {"steps": 1, "batch_size": 7, "dtype": "bfloat16", "micro_batch_tokens": budget},
        "output": str(tmp_path / "run"),
    }
    run = objective_runs.start(RunConfig.model_validate(config))
    passes: list[list[int]] = []
    step_outputs = run.assembly.modality.step_outputs

    def watched(policy: Any, responses: Any, *arguments: Any) -> Any:
        passes.append([id(one) for one in responses])
        return step_outputs(policy, responses, *arguments)

    monkeypatch.setattr(run.assembly.modality, "step_outputs", watched)
    batch, _ = begin_round(run)
    parts = batch.micro_batches(run.backend.micro_batch_size.value, budget)
    assert len(parts) > 1
    assert passes == [[id(one) for one in part.responses] for part in parts]
    for part in parts:
        with torch.no_grad():
            policy = run.backend.policy_values(part)["policy_logps"]
        mask = part.quantities["step_mask"]
        assert torch.equal(policy[mask], part.quantities["reference_logps"][mask])


def test_outputs_of_parts_are_joined_steps_with_zeros_and_prompts_with_nan() -> None:
    """Prompts of 3 positions and 1, responses of 1 step and 2: a state is its length."""
    responses = [EncodedResponse({}, 1, size=4, shared=3), EncodedResponse({}, 2, size=3, shared=1)]

    def network(part: list[EncodedResponse], plan: ForwardPlan) -> dict[str, Tensor]:
        (own,) = part
        lengths = {"context": own.shared, "logps": own.steps}
        return {name: torch.full((1, lengths[name]), float(lengths[name])) for name in plan.axes()}

    context, logps = (score_responses(network, responses, [[1], [0]], name) for name in (Output.CONTEXT, Output.LOGPS))
    assert logps.tolist() == [[1.0, 0.0], [2.0, 2.0]]
    assert context[0].tolist() == [3.0, 3.0, 3.0]
    assert context[1, 0] == 1.0 and context[1, 1:].isnan().all()
