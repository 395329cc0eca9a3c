"""Measures mmalign through its public interface; the times are those of its own metrics log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from arithmetic import count_tokens
from measuring import GROUP_SIZE, LEARNING_RATE, LORA_ALPHA, LORA_RANK, RESPONSE_STEPS, Case, Trace, training_dtype
from workloads import build_case_pairs, write_rows

import mmalign
from mmalign.config.run_config import RunConfig

MICRO_BATCH_TOKENS = 1024
"""Bound of a training pass on a CPU, between time and memory; a GPU gets all of a step at once."""


def measure(case: Case, network: Path, tokenizer: Path, folder: Path) -> Trace:
    """Trains for a warm-up step and `case.steps` more.

    Args:
        network: folder of the model.
        tokenizer: folder of its tokenizer.
        folder: where the run may write.
    """
    rows: list[dict[str, Any]] = [*build_case_pairs(case)]
    if case.method == "grpo":
        rows = [{"prompt": row["prompt"]} for row in rows]
    data = write_rows(folder / "data.jsonl", rows)
    config = RunConfig.model_validate(build_config(case, network, tokenizer, data, folder / "run"))
    return read_trace(case, mmalign.train(config))


def read_trace(case: Case, run: Any) -> Trace:
    """Reads what a finished run tells of itself."""
    lines = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    ends, losses = [line["time"] for line in steps], [line["loss"] for line in steps]
    if case.method != "grpo":
        return Trace(ends, losses, _count_tokens(case, run))
    engine: Any = run.assembly.engine
    return Trace(ends, losses, sum(map(count_tokens, engine.sampled[1:])), engine.seconds, engine.sampled)


def build_config(case: Case, network: Path, tokenizer: Path, data: Path, output: Path) -> dict[str, Any]:
    """Builds the configuration of a case."""
    modality = {"name": "text", "model": str(network), "tokenizer": str(tokenizer)}
    modality["packing"] = "off" if case.system == "mmalign-padded" else "auto"
    online = {
        "collector": {"name": "group", "group_size": GROUP_SIZE},
        "rewards": [{"name": "length", "target": 20}],
        "advantage": {"name": "grpo"},
        "decoding": {"name": "sample", "temperature": 1.0, "max_steps": RESPONSE_STEPS},
        "engine": {"name": "timed"},
    }
    responses = case.prompts * (GROUP_SIZE if case.method == "grpo" else 2)
    train = {
        "steps": case.steps + 1,
        "batch_size": case.prompts,
        "micro_batch_size": responses,
        "micro_batch_tokens": _bound_tokens(case),
        "learning_rate": LEARNING_RATE,
        "dtype": str(training_dtype(lora=case.lora)).removeprefix("torch."),
        "mixed_precision": "bf16" if torch.cuda.is_available() and not case.lora else "auto",
    }
    return {
        "modality": modality | ({"lora": {"rank": LORA_RANK, "alpha": LORA_ALPHA}} if case.lora else {}),
        "data": {"train": {"path": str(data), "shuffle": False}},
        "objective": {"name": case.method},
        # A cache of an earlier measurement would save the reference's passes.
        "reference": {"cache": False},
        "train": train,
        "plugins": [str(Path(__file__).with_name("benchmark_plugin.py"))],
        "output": str(output),
        **(online if case.method == "grpo" else {}),
    }


def _bound_tokens(case: Case) -> int | None:
    return MICRO_BATCH_TOKENS if case.system == "mmalign" and not torch.cuda.is_available() else None


def _count_tokens(case: Case, run: Any) -> int:
    records = list(run.source)[case.prompts :]
    return sum(response.size for record in records for response in run.assembly.modality.encode(record))
