"""Runs of every registered objective on tiny models: what is particular about one stands in the tables.

A new objective needs no entry as long as its parameters have defaults and the records of `feedback_records` carry the
feedback that it asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import TOY_PLUGIN

from mmalign.api import load_assembly
from mmalign.config import RunConfig
from mmalign.quantities import find_teachers
from mmalign.registry import load_registry
from mmalign.run import Run
from mmalign.specs import ObjectiveSpec
from mmalign.startup import build_run
from mmalign.testing import build_tiny_text_model

SPECS: dict[str, ObjectiveSpec] = {entry.spec.name: entry.spec for entry in load_registry().entries("objective")}

PARAMETERS: dict[str, dict[str, Any]] = {
    "dr_grpo": {"horizon": 8},
    "hpt_reinforcement": {"horizon": 8},
    "modpo": {"margin_weights": [0.5]},
}
"""Parameters without a default."""

QUANTITIES: dict[str, dict[str, Any]] = {
    "modpo": {"name": "margin_rewards", "scores": ["relevance"]},
    "hpt_imitation": {"name": "imitated_prompts", "gate": 4},
    "hpt_reinforcement": {"name": "imitated_prompts", "gate": -1},
}
"""Parameters of quantities without a default, or with one that would leave nothing to train on."""

PENALTIES = {
    "kl_penalty": "dpo",
    "forward_kl": "dpo",
    "reverse_kl": "dpo",
    "behaviour_kl_penalty": "copg_online",
    "sampled_kl": "copg_online",
}
"""Objectives that start at their minimum, since the policy starts where it is held, and what they are added to."""

BEYOND_LOGPS = {
    "reward_model": "scores",
    "oreo": "values",
    "forward_kl": "reference_forward_kl",
    "reverse_kl": "reference_reverse_kl",
    "tdpo1": "reference_forward_kl",
    "tdpo2": "reference_forward_kl",
    "dckd": "teacher_forward_kl",
    "adpa": "expected_logps",
    "tpo_tree": "reference_states",
}
"""Objectives that need more of a modality than log-probs, so not of the toy one, and what."""

TAUGHT = {"dckd", "adpa"}
"""Objectives that compare with teachers: models of the same vocabulary and other weights."""

ROLLOUTS = {"advantages", "behaviour_logps", "composite_rewards", "sampled", "imitated"}
"""An objective that needs one of these, or is over it, is trained on samples."""

MIXED = {"hpt_imitation"}
"""Objectives on stored responses that samples have a say in, so that both are there."""


def is_online(name: str) -> bool:
    """Tells whether an objective is trained on samples: by its needs, or by what it is added to."""
    specs = [SPECS[one] for one in (name, PENALTIES.get(name, name))]
    return any(not ROLLOUTS.isdisjoint((*spec.needs, spec.over)) for spec in specs)


def refusal(name: str, modality: str) -> str:
    """What the engine says against an objective on a modality, beside its name; empty if nothing."""
    kind = "surrogate" if modality == "toy_bound" else "exact"
    if kind not in SPECS[name].log_prob_kinds:
        return f"gives {kind} ones"
    return BEYOND_LOGPS.get(name, "") if modality != "text" else ""


def build_config(
    name: str, modality: str, data: Path, model: Path, output: Path, *, alone: bool = False, **train: Any
) -> RunConfig:
    """Makes the configuration of a run of three steps.

    Args:
        modality: `text` with the tiny language model in the folder `model`, `toy`, or `toy_bound`.
        alone: a penalty is not added to anything.
        train: further keys of the section.
    """
    text = {"name": "text", "model": str(model), "lora": {"rank": 4}}
    objectives = [{"name": name, **PARAMETERS.get(name, {})}]
    teachers = find_teachers(SPECS[name].needs) if name in TAUGHT and modality == "text" else ()
    if name in PENALTIES and not alone:
        objectives.append({"name": PENALTIES[name]})
    config: dict[str, Any] = {
        "modality": text if modality == "text" else {"name": modality},
        "data": {"train": {"path": str(data)}},
        "objective": objectives,
        "quantities": [QUANTITIES[name]] if name in QUANTITIES else [],
        "decoding": {"name": "sample", "max_steps": 6},
        "train": {"steps": 3, "batch_size": 4, "learning_rate": 0.01 if modality == "text" else 0.05, **train},
        "teachers": {teacher: {"model": str(_build_teacher(model, seed))} for seed, teacher in enumerate(teachers, 1)},
        "plugins": [str(TOY_PLUGIN)],
        "output": str(output),
    }
    if is_online(name):
        config["collector"] = {"name": "mixed" if name in MIXED else "group", "group_size": 4}
        config["rewards"] = [
            {"name": "length", "unit": "characters", "target": 5} if modality == "text" else {"name": "zeros"}
        ]
        config["train"]["epochs_per_round"] = 2
        if "advantages" in SPECS[name].needs:
            config["advantage"] = {"name": "rloo"}
    return RunConfig.model_validate(config)


def _build_teacher(model: Path, seed: int) -> Path:
    folder = model.with_name(f"teacher-{seed}")
    return folder if folder.exists() else build_tiny_text_model(folder, seed=seed)


def start(config: RunConfig) -> Run:
    """Builds a run; nothing is trained yet."""
    return build_run(load_assembly(config), Path(config.output))


def move_away(run: Run, noise: float) -> None:
    """Moves the policy away from the reference, and the run on, as the sentinel of the first step would notice."""
    torch.manual_seed(3)
    for weight in run.trainable().values():
        weight.data += noise * torch.randn_like(weight)
    run.step += 1
