"""Measures TRL's trainers on the same tokens: rendered prompts, and responses that end with the template's end token.

`trl` is TRL as it comes: autocast in bfloat16 and gradient checkpointing on. `trl-tuned` turns gradient checkpointing
off, as mmalign has it; `trl-precomputed` is `trl-tuned` with the reference computed before the first step, whose time
is shared out over the steps; `trl-liger` is `trl-tuned` with Liger's kernels, which need a GPU.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from arithmetic import Step, count_tokens, group_lengths
from datasets import Dataset
from measuring import (
    GROUP_SIZE,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    RESPONSE_STEPS,
    Case,
    Trace,
    start_score_head,
    training_dtype,
)
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
)
from workloads import build_case_pairs, render

PADDING = "<|endoftext|>"
"""A token of SmolLM2 that no text of ours has; its own padding token is the end token."""

TRAINERS: dict[str, tuple[Any, Any]] = {
    "dpo": (DPOConfig, DPOTrainer),
    "kto": (KTOConfig, KTOTrainer),
    "reward_model": (RewardConfig, RewardTrainer),
    "grpo": (GRPOConfig, GRPOTrainer),
}


class StepClock(TrainerCallback):
    """Notes when every step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Is called by the trainer after the optimiser's step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.time())


def measure(case: Case, network: Path, tokenizer: Path, folder: Path) -> Trace:
    """Trains for a warm-up step and `case.steps` more; see `measure_mmalign.measure`."""
    config, build_trainer = TRAINERS[case.method]
    tokenise = AutoTokenizer.from_pretrained(tokenizer)
    if case.method == "reward_model":
        # The score is read at the last token that is not padding; by default that would not be the end token.
        tokenise.pad_token = PADDING
    clock = StepClock()
    generation = _TimedMethod(GRPOTrainer, "_generate")
    precomputing = [_TimedMethod(owner, "_precompute_ref_logps") for owner in (DPOTrainer, KTOTrainer)]
    trainer = build_trainer(
        model=_load(case, network, tokenise),
        args=config(output_dir=str(folder), **build_arguments(case)),
        train_dataset=Dataset.from_list(_build_rows(case, tokenise)),
        processing_class=tokenise,
        callbacks=[clock],
        peft_config=_build_lora(case),
        **({"reward_funcs": _length_reward} if case.method == "grpo" else {}),
    )
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    share = sum(second for timed in precomputing for second in timed.seconds) / (case.steps + 1)
    ends = [end + share * step for step, end in enumerate(clock.ends)]
    sampled = [_group_sampled(*result[:2]) for result in generation.results]
    tokens = sum(map(count_tokens, sampled[1:])) if sampled else _count_tokens(case, trainer)
    return Trace(ends, [entry["loss"] for entry in log], tokens, generation.seconds, sampled)


def _load(case: Case, network: Path, tokenise: Any) -> Any:
    dtype = training_dtype(lora=case.lora)
    if case.method != "reward_model":
        return AutoModelForCausalLM.from_pretrained(network, dtype=dtype)
    model = AutoModelForSequenceClassification.from_pretrained(network, num_labels=1, dtype=dtype)
    model.config.pad_token_id = tokenise.pad_token_id
    start_score_head(model.score.weight)
    return model


def build_arguments(case: Case) -> dict[str, Any]:
    """Builds the arguments of TRL's configuration of a case."""
    rows = case.prompts * {"kto": 2, "grpo": GROUP_SIZE}.get(case.method, 1)
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": rows,
        "max_steps": case.steps + 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "bf16": torch.cuda.is_available() or training_dtype(lora=case.lora) == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }
    if case.method == "grpo":
        arguments |= {
            "num_generations": GROUP_SIZE,
            "max_completion_length": RESPONSE_STEPS,
            "temperature": 1.0,
            # All responses are of the same length in every system.
            "generation_kwargs": {"min_new_tokens": RESPONSE_STEPS},
            "shuffle_dataset": False,
        }
    else:
        arguments["max_length"] = None
    if case.system != "trl":
        arguments["gradient_checkpointing"] = False
    if case.system == "trl-precomputed":
        arguments["precompute_ref_log_probs"] = True
    if case.system == "trl-liger":
        arguments["use_liger_kernel"] = True
    return arguments


def _build_rows(case: Case, tokenise: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for pair in build_case_pairs(case):
        prompt, chosen, rejected = render(pair, tokenise)
        if case.method == "grpo":
            rows.append({"prompt": prompt})
        elif case.method == "kto":
            rows.append({"prompt": prompt, "completion": chosen, "label": True})
            rows.append({"prompt": prompt, "completion": rejected, "label": False})
        elif case.method == "reward_model":
            rows.append({"chosen": prompt + chosen, "rejected": prompt + rejected})
        else:
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def _build_lora(case: Case) -> LoraConfig | None:
    if not case.lora:
        return None
    task = "SEQ_CLS" if case.method == "reward_model" else "CAUSAL_LM"
    return LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type=task)


def _length_reward(completions: list[str], **_: Any) -> list[float]:
    return [-abs(len(text.split()) - 20) / 20 for text in completions]


def _count_tokens(case: Case, trainer: Any) -> int:
    total = 0
    rows = list(trainer.train_dataset)
    for row in rows[len(rows) // (case.steps + 1) :]:
        answers = [row[name] for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in row]
        total += sum(len(answer) + len(row.get("prompt_ids", ())) for answer in answers)
    return total


def _group_sampled(prompts: list[list[int]], responses: list[list[int]]) -> Step:
    pairs = zip(prompts, responses, strict=True)
    return group_lengths((tuple(prompt), len(prompt), len(response)) for prompt, response in pairs)


class _TimedMethod:
    """Keeps the duration and the result of every call of a method of TRL."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds: list[float] = []
        self.results: list[Any] = []
        method = getattr(owner, name)

        def timed(trainer: Any, *arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = method(trainer, *arguments, **options)
            self.seconds.append(time.perf_counter() - start)
            self.results.append(result)
            return result

        setattr(owner, name, timed)
