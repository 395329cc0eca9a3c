"""Measures TRL's DPOTrainer on prompts with images.

TRL reads a column of images and rendered prompts with a placeholder for each; its collator runs the processor in every
step, on each image twice: for the chosen and for the rejected response.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from image_workload import ask
from measure_trl import StepClock, build_arguments
from measuring import LORA_ALPHA, LORA_RANK, Case, Trace
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer

TARGETS = r".*\.language_model\..*_proj"
"""All linear layers of the language model but its output layer, and none of the vision tower."""


def train(case: Case, model: Path, rows: list[dict[str, str]], folder: Path) -> Trace:
    """Trains for a warm-up step and `case.steps` more."""
    processor = AutoProcessor.from_pretrained(model)
    clock = StepClock()
    trainer = DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.bfloat16),
        args=DPOConfig(output_dir=str(folder), **build_arguments(case)),
        train_dataset=_build_dataset(rows, processor),
        processing_class=processor,
        callbacks=[clock],
        peft_config=LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM"),
    )
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    # A running count of the tokens that are not padding.
    tokens = log[-1]["num_tokens"] - log[0]["num_tokens"]
    return Trace(clock.ends, [entry["loss"] for entry in log], tokens)


def _build_dataset(rows: list[dict[str, str]], processor: Any) -> Dataset:
    """Builds the rows as TRL reads them; images are read from their files when a step asks for them."""
    end = processor.tokenizer.eos_token
    columns = [
        {
            "images": [row["image"]],
            "prompt": processor.apply_chat_template(ask(row), tokenize=False, add_generation_prompt=True),
            "chosen": row["chosen"] + end,
            "rejected": row["rejected"] + end,
        }
        for row in rows
    ]
    return Dataset.from_list(columns).cast_column("images", List(Image()))
