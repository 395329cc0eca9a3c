"""The model card: complete, loadable front matter, and model output that stays text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from mmalign.results.report import ModelCard, render_model_card, write_model_card

CARD = ModelCard(
    base_model="org/model-1b",
    objective=("dpo", "sft"),
    config="train:\n  steps: 10\n",
    steps=10,
    adapter=True,
    plugins={"objectives": "mmalign 0.1"},
    before={"reward_accuracy": 0.5},
    after={"reward_accuracy": 0.75},
    examples=(("Say hi", "no", "hi"),),
    papers={"dpo": "Direct Preference Optimization (arXiv:2305.18290)"},
)


def test_the_front_matter_is_yaml_with_base_model_and_tags() -> None:
    _, front, _ = render_model_card(CARD).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "org/model-1b",
        "library_name": "peft",
        "tags": ["mmalign", "alignment", "dpo", "sft"],
    }


def test_an_odd_name_cannot_break_the_front_matter() -> None:
    card = dataclasses.replace(CARD, base_model="x\n---\nlicense: {mine")
    front = render_model_card(card).removeprefix("---\n").split("\n---\n\n# Aligned")[0]
    assert yaml.safe_load(front)["base_model"] == "x\n---\nlicense: {mine"


def test_the_card_is_written(tmp_path: Path) -> None:
    path = write_model_card(tmp_path / "run", CARD)
    assert path == tmp_path / "run" / "README.md"
    assert path.read_text(encoding="utf-8") == render_model_card(CARD)


def test_metrics_config_and_citations_are_there() -> None:
    text = render_model_card(CARD)
    assert "| reward\\_accuracy | 0.5 | 0.75 | +0.25 |" in text
    assert "```yaml\ntrain:\n  steps: 10\n```" in text
    assert "- `dpo`: Direct Preference Optimization ([arXiv:2305.18290](https://arxiv.org/abs/2305.18290))" in text
    assert "`objectives` mmalign 0.1" in text


def test_an_adapter_is_loaded_with_peft_and_a_network_is_not() -> None:
    assert "PeftModel.from_pretrained" in render_model_card(CARD)
    whole = render_model_card(dataclasses.replace(CARD, adapter=False))
    assert "peft" not in whole.lower()
    assert "whole network" in whole


def test_empty_sections_are_left_out() -> None:
    text = render_model_card(ModelCard(base_model="", objective=("dpo",), config="a: 1", steps=1, adapter=False))
    assert not any(title in text for title in ("## Held-out", "## Examples", "## Citations", "base_model"))


def test_model_output_cannot_leave_its_fence() -> None:
    evil = "```\n# Heading\n````\n<script>alert(1)</script>"
    text = render_model_card(dataclasses.replace(CARD, examples=((evil, "a", "b"),)))
    assert f"`````text\n{evil}\n`````\n" in text


def test_names_and_papers_are_escaped() -> None:
    card = dataclasses.replace(CARD, after={"a|b": 1.0}, before={}, papers={"x`y": "<img src=x> [t](javascript:y)"})
    text = render_model_card(card)
    assert "| a\\|b | - | 1 | - |" in text
    assert "- `` x`y ``: &lt;img src=x&gt; \\[t\\](javascript:y)" in text
