"""Pairs of responses under other prompts, through the engine: what is known of pairs is known of these, too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from feedback_records import build_record
from objective_runs import build_config, start

from mmalign.data.records import Record
from mmalign.training.loop import accumulate_gradients
from mmalign.training.rounds import begin_round


@pytest.mark.parametrize("name", ["bvpo", "irepo"])
def test_objectives_that_know_something_of_pairs_take_those_of_variant_prompts(name: str, tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": [{"type": "text", "text": "yy"}]}]
    further = {"kind": "pair", "order": [["a"], ["a@v"]], "context": "trace"}
    rows = [build_record(index).to_dict() for index in range(4)]
    records = [
        Record.from_dict({**row, "variants": [{"vid": "v", "prompt": prompt}], "labels": [*row["labels"], further]})
        for row in rows
    ]
    data = tmp_path / "records.jsonl"
    data.write_text("".join(record.to_json() + "\n" for record in records), encoding="utf-8")
    run = start(build_config(name, "toy", data, tmp_path, tmp_path / "run"))
    batch, _ = begin_round(run)
    assert len(batch.quantities["pairs"]) == 4 * 8
    assert not batch.quantities["trace_pairs" if name == "bvpo" else "preference_probabilities"].isnan().any()
    assert math.isfinite(accumulate_gradients(run, batch).compute(lambda value: value)["loss"])
