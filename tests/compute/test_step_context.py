"""What a batch-coupled quantity may use: values of all processes, and means over steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mmalign.compute.step_context import StepContext
from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.training.assembling import load_assembly
from mmalign.training.loop import train
from mmalign.training.startup import build_run


def make_context(rank: int = 0, others: Tensor | None = None, processes: int = 1, **fields: Any) -> StepContext:
    """A context of one of several processes; sums get what the others would add."""
    pending = iter(() if others is None else others)
    backend = SimpleNamespace(
        device=torch.device("cpu"),
        process_index=rank,
        processes=processes,
        running_sums=fields.pop("running_sums", {}),
        sum_over_processes=lambda value: value + next(pending, torch.zeros_like(value)),
    )
    return StepContext(cast("Any", backend), cast("Any", None), **fields)


def test_values_are_joined_in_the_order_of_the_processes() -> None:
    """The second of three processes: the first has one value, the third two."""
    counts = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    values = torch.tensor([7.0, 0.0, 0.0, 8.0, 9.0], dtype=torch.float64)
    joined, own = make_context(1, cast("Any", [counts, values]), 3).gather(torch.tensor([1.0, 2.0]))
    assert joined.tolist() == [7.0, 1.0, 2.0, 8.0, 9.0]
    assert joined[own].tolist() == [1.0, 2.0]


def test_a_process_without_values_takes_part() -> None:
    others = [torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([5.0, 6.0], dtype=torch.float64)]
    joined, own = make_context(1, cast("Any", others), 2).gather(torch.zeros(0))
    assert joined.tolist() == [5.0, 6.0]
    assert joined[own].tolist() == []


def test_a_running_mean_weighs_every_value_alike() -> None:
    context = make_context()
    assert context.running_mean("m", torch.tensor([1.0, 2.0])).item() == 1.5
    assert context.running_mean("m", torch.tensor([6.0])).item() == 3.0
    assert context.running_mean("other", torch.tensor([8.0])).item() == 8.0
    assert context.backend.running_sums == {"m": [9.0, 3.0], "other": [8.0, 1.0]}


def test_an_evaluation_reads_a_running_mean_and_leaves_it_alone() -> None:
    sums: dict[str, list[float]] = {}
    evaluation = make_context(training=False, running_sums=sums)
    assert evaluation.running_mean("m", torch.tensor([4.0])).item() == 4.0
    assert sums == {}
    make_context(running_sums=sums).running_mean("m", torch.tensor([1.0]))
    assert evaluation.running_mean("m", torch.tensor([4.0])).item() == 1.0
    assert sums == {"m": [1.0, 1.0]}


def test_running_means_are_part_of_a_checkpoint(toy_config: Any, write_config: Any, tmp_path: Any) -> None:
    config = load_assembly(write_config(toy_config(objective={"name": "bco"})))
    run = build_run(config, tmp_path / "run")
    train(run)
    assert run.backend.running_sums["mean_log_ratio"][1] == 4 * 4 * 2
    latest = find_latest(tmp_path / "run" / "checkpoints")
    assert latest is not None
    checkpoint = load_checkpoint(latest)
    fresh = build_run(config, tmp_path / "other")
    fresh.restore(checkpoint.tensors, checkpoint.state)
    assert fresh.backend.running_sums == run.backend.running_sums


def test_scores_of_the_share_are_those_of_the_policy(toy_config: Any, write_config: Any, tmp_path: Any) -> None:
    run = build_run(load_assembly(write_config(toy_config())), tmp_path / "run")
    batch = run.backend.prepare(run.backend.encode(run.held_out))
    scores = StepContext(run.backend, batch).policy_sequence_logps()
    assert not scores.requires_grad
    assert scores.tolist() == pytest.approx(batch.quantities["reference_logps"].sum(dim=1).tolist(), rel=1e-6)


def _illustrated(id: str, prompt: str, response: str) -> Record:
    """A record whose prompt and response are an image each; a third medium is named by neither."""
    return Record.from_dict(
        {
            "id": id,
            "prompt": [{"role": "user", "content": [{"type": "image", "media": prompt}]}],
            "responses": [
                {"rid": "r0", "messages": [{"role": "assistant", "content": [{"type": "image", "media": response}]}]}
            ],
            "media": [{"mid": mid, "type": "image", "uri": f"{id}-{mid}.png"} for mid in (prompt, response, "spare")],
        }
    )


def test_a_response_takes_its_media_to_another_prompt() -> None:
    records = (_illustrated("a", "asked", "drawn"), _illustrated("b", "asked", "drawn"))
    batch = SimpleNamespace(records=records, quantities={"prompt_index": torch.tensor([0, 1])})
    context = StepContext(cast("Any", SimpleNamespace(process_index=0)), cast("Any", batch))
    first, second = context._shifted_records()
    assert [one.uri for one in first.media] == ["a-asked.png", "b-drawn.png"]
    assert [one.uri for one in second.media] == ["b-asked.png", "a-drawn.png"]
    assert first.prompt == records[0].prompt


def test_media_of_one_name_are_not_mixed_up() -> None:
    records = (_illustrated("a", "one", "two"), _illustrated("b", "two", "one"))
    batch = SimpleNamespace(records=records, quantities={"prompt_index": torch.tensor([0, 1])})
    context = StepContext(cast("Any", SimpleNamespace(process_index=0)), cast("Any", batch))
    with pytest.raises(DataError, match="records 'a' and 'b': prompt of one and response of the other"):
        context._shifted_records()
