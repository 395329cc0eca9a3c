"""Measures mmalign through its public interface; the times are those of its own metrics log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from measuring import (
    GROUP_SIZE,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    RESPONSE_STEPS,
    Case,
    Measurement,
    build_measurement,
)
from workloads import build_pairs, write_rows

import mmalign
from mmalign.backend import Backend
from mmalign.config import RunConfig


def measure(case: Case, network: Path, tokenizer: Path, folder: Path) -> Measurement:
    """Trains for a warm-up step and `case.steps` more.

    Args:
        network: folder of the model.
        tokenizer: folder of its tokenizer.
        folder: where the run may write.
    """
    rows: list[dict[str, Any]] = [*build_pairs(case.mix, case.prompts * (case.steps + 1))]
    if case.method == "grpo":
        rows = [{"prompt": row["prompt"]} for row in rows]
    data = write_rows(folder / "data.jsonl", rows)
    config = RunConfig.model_validate(build_config(case, network, tokenizer, data, folder / "run"))
    generation: list[float] = []
    _time_generation(generation)
    run = mmalign.train(config)
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    tokens = _count_tokens(case, run, steps)
    return build_measurement(case, [line["time"] for line in steps], [x["loss"] for x in steps], tokens, generation)


def build_config(case: Case, network: Path, tokenizer: Path, data: Path, output: Path) -> dict[str, Any]:
    """Builds the configuration of a case."""
    modality = {"name": "text", "model": str(network), "tokenizer": str(tokenizer)}
    modality["packing"] = "off" if case.system == "mmalign-padded" else "auto"
    online = {
        "collector": {"name": "group", "group_size": GROUP_SIZE},
        "rewards": [{"name": "length", "target": 20}],
        "advantage": {"name": "grpo"},
        "decoding": {"name": "sample", "temperature": 1.0, "max_steps": RESPONSE_STEPS},
    }
    responses = case.prompts * (GROUP_SIZE if case.method == "grpo" else 2)
    train = {
        "steps": case.steps + 1,
        "batch_size": case.prompts,
        "micro_batch_size": responses,
        "learning_rate": LEARNING_RATE,
        "dtype": "bfloat16" if case.lora else "float32",
        "mixed_precision": "bf16" if torch.cuda.is_available() and not case.lora else "auto",
    }
    return {
        "modality": modality | ({"lora": {"rank": LORA_RANK, "alpha": LORA_ALPHA}} if case.lora else {}),
        "data": {"train": {"path": str(data), "shuffle": False}},
        "objective": {"name": case.method},
        # A cache of an earlier measurement would save the reference's passes.
        "reference": {"cache": False},
        "train": train,
        "output": str(output),
        **(online if case.method == "grpo" else {}),
    }


def _count_tokens(case: Case, run: Any, steps: list[dict[str, Any]]) -> float:
    modality, records = run.assembly.modality, list(run.source)[case.prompts :]
    if case.method != "grpo":
        return float(sum(response.size for record in records for response in modality.encode(record)))
    prompts = sum(len(modality.encode_prompt(record)[0]["prompt_ids"]) for record in records)
    return GROUP_SIZE * (prompts + case.prompts * sum(step["length"] for step in steps[1:]))


def _time_generation(seconds: list[float]) -> None:
    generate = Backend.generate

    def timed(self: Backend, *arguments: Any) -> Any:
        start = time.perf_counter()
        result = generate(self, *arguments)
        seconds.append(time.perf_counter() - start)
        return result

    Backend.generate = timed  # type: ignore[method-assign]
