"""Runs of every registered objective on tiny models: what is particular about one stands in the tables.

A new objective needs no entry as long as its parameters have defaults and the records of `feedback_records` carry the
feedback that it asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import TOY_PLUGIN

from mmalign.config.run_config import RunConfig
from mmalign.contract.binding import needs_of
from mmalign.contract.quantities import find_teachers
from mmalign.contract.specs import ObjectiveSpec
from mmalign.plugins.registry import load_registry
from mmalign.run import Run
from mmalign.testing import build_tiny_text_model
from mmalign.training.assembling import load_assembly
from mmalign.training.startup import build_run

SPECS: dict[str, ObjectiveSpec] = {entry.spec.name: entry.spec for entry in load_registry().entries("objective")}

_DENOISING = ("diffusion_dpo", "inpo", "smpo", "seppo", "diffusion_kto")
PARAMETERS: dict[str, dict[str, Any]] = {
    "dr_grpo": {"horizon": 8},
    "hpt_reinforcement": {"horizon": 8},
    "modpo": {"margin_weights": [0.5]},
    **{name: {"beta": 0.1} for name in _DENOISING},
    "mapo": {"margin_scale": 1.0},
    **{name: {"clip_low": 0.2, "clip_high": 0.2} for name in ("ddpo_is", "flow_grpo", "dance_grpo")},
}
"""Parameters without a default, and scales that are made for the small log-probs of denoising steps."""
PARAMETERS["smpo"] |= {"lowest_rating": 0.0, "highest_rating": 1.0}

QUANTITIES: dict[str, list[dict[str, Any]]] = {
    "modpo": [{"name": "margin_rewards", "scores": ["relevance"]}],
    "sparsepo": [{"name": "reward_mask", "dropout": 0.0}, {"name": "divergence_mask", "dropout": 0.0}],
    "sparsepo_common": [{"name": "token_mask", "dropout": 0.0}],
    "hpt_imitation": [{"name": "imitated_prompts", "gate": 4}],
    "hpt_reinforcement": [{"name": "imitated_prompts", "gate": -1}],
}
"""Parameters of quantities without a default, such that losses are not noisy and something is left to train on."""

PENALTIES = {
    "kl_penalty": "dpo",
    "forward_kl": "dpo",
    "reverse_kl": "dpo",
    "behaviour_kl_penalty": "copg_online",
    "sampled_kl": "copg_online",
}
"""Objectives that start at their minimum, since the policy starts where it is held, and what they are added to."""

OF_TEXT = {
    "rationale_dpo": "record 'p[0-9]+', response 'rationale': expected one image part",
    "rationale": "record 'p[0-9]+', response 'rationale': expected one image part",
    "in_context_ranking": "objective 'in_context_ranking' trains on responses, but the first batch has none",
    "srpo": "record 'p[0-9]+': expected the prompt to name one class",
}
"""Objectives that read or write words in prompts or responses, and what is said where these are classes and images."""

BEYOND_LOGPS = {
    "reward_model": "scores",
    "oreo": "values",
    "forward_kl": "reference_forward_kl",
    "reverse_kl": "reference_reverse_kl",
    "tdpo1": "reference_forward_kl",
    "tdpo2": "reference_forward_kl",
    "dckd": "teacher_forward_kl",
    "adpa": "expected_logps",
    "sparsepo": "reference_forward_kl",
    "sparsepo_common": "reference_forward_kl",
    "sparsepo_activations": "reference_forward_kl",
    "spo_degree": "policy_hidden",
    "prompt_value": "reference_context",
    "pair_classifier": "scores",
    "tpo_tree": "reference_states",
}
"""Objectives that need more of a modality than log-probs, so not of the toy one, and what."""

TAUGHT = {"dckd", "adpa"}
"""Objectives that compare with teachers: models of the same vocabulary and other weights."""

SURROGATE = {"toy_bound", "diffusion"}
"""Modalities whose log-probs are bounds."""

ROLLOUTS = {"advantages", "behaviour_logps", "composite_rewards", "sampled", "imitated"}
"""An objective that needs one of these, or is over it, is trained on samples."""

MIXED = {"hpt_imitation"}
"""Objectives on stored responses that samples have a say in, so that both are there."""


RATES = {"text": 0.01, "diffusion": 0.001}
"""Learning rates of other than the toys."""

REWARDS: dict[str, dict[str, Any]] = {
    "text": {"name": "length", "unit": "characters", "target": 5},
    "diffusion": {"name": "python", "function": "image_records:darkness"},
}
"""Rewards of other than the toys."""


def is_online(name: str) -> bool:
    """Returns whether an objective is trained on samples: by its needs, or by what it is added to."""
    specs = [SPECS[one] for one in (name, PENALTIES.get(name, name))]
    return any(not ROLLOUTS.isdisjoint((*needs_of(spec), spec.over)) for spec in specs)


def is_bound(name: str) -> bool:
    """Returns whether an objective is for log-probs that are bounds, and for those alone."""
    return SPECS[name].log_prob_kinds == ("surrogate",)


def refusal(name: str, modality: str) -> str:
    """What the engine says against an objective on a modality, beside its name; empty if nothing."""
    kind = "surrogate" if modality in SURROGATE else "exact"
    if kind not in SPECS[name].log_prob_kinds:
        return f"gives {kind} ones"
    return BEYOND_LOGPS.get(name, "") if modality != "text" else ""


def build_config(
    name: str, modality: str, data: Path, model: Path, output: Path, *, alone: bool = False, **train: Any
) -> RunConfig:
    """Makes the configuration of a run of three steps.

    Args:
        modality: `text` with the tiny language model in the folder `model`, `diffusion` with the tiny denoiser in
            it and images in `data`, `toy`, or `toy_bound`.
        alone: a penalty is not added to anything.
        train: further keys of the section.
    """
    models: dict[str, dict[str, Any]] = {
        "text": {"model": str(model), "lora": {"rank": 4}},
        "diffusion": {"model": str(model), "family": {"name": "class_unet", "null_class": 3}},
    }
    objectives = [{"name": name, **PARAMETERS.get(name, {})}]
    teachers = find_teachers(needs_of(SPECS[name])) if name in TAUGHT and modality == "text" else ()
    if name in PENALTIES and not alone:
        objectives.append({"name": PENALTIES[name]})
    config: dict[str, Any] = {
        "modality": {"name": modality, **models.get(modality, {})},
        "data": {"train": {"path": str(data)}},
        "objective": objectives,
        "quantities": QUANTITIES.get(name, []),
        "decoding": {"name": "sample", "max_steps": 6},
        "train": {"steps": 3, "batch_size": 4, "learning_rate": RATES.get(modality, 0.05), **train},
        "teachers": {teacher: {"model": str(_build_teacher(model, seed))} for seed, teacher in enumerate(teachers, 1)},
        "plugins": [str(TOY_PLUGIN)],
        "output": str(output),
    }
    if is_online(name):
        config["collector"] = {"name": "mixed" if name in MIXED else "group", "group_size": 4}
        config["rewards"] = [REWARDS.get(modality, {"name": "zeros"})]
        config["train"]["epochs_per_round"] = 2
        if "advantages" in needs_of(SPECS[name]):
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
