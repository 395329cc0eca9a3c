"""The model card of a finished run: what was trained, on what, what changed, and whom to cite.

Responses and names are foreign text: they are fenced or escaped, so that no model output can become markup or HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmalign.masking import mask_text
from mmalign.monitoring.progress import format_change

FILE = "README.md"

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~])")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model card says.

    Attributes:
        base_model: name of the model that training started from; empty if there was none.
        objective: names of the objectives.
        config: the resolved run configuration, as YAML text.
        steps: finished optimiser steps.
        adapter: True if the folder holds a peft adapter, False for a whole network.
        plugins: names and versions of the plugins that took part.
        before: held-out metrics at the start, by name.
        after: held-out metrics at the end.
        examples: (prompt, response before, response after).
        grids: (title, path in the folder) of pictures of held-out samples.
        papers: what the parts implement: title and identifier, by part name.
        changes: what was changed while the run went: `step`, `key`, `old` and `new` value.
        notes: what the modality tells of the model and of the records that were encoded.
    """

    base_model: str
    objective: Sequence[str]
    config: str
    steps: int
    adapter: bool
    plugins: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    examples: Sequence[tuple[str, str, str]] = ()
    grids: Sequence[tuple[str, str]] = ()
    papers: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


def write_model_card(directory: Path, card: ModelCard) -> Path:
    """Writes `README.md`, in the format of the Hugging Face hub and with secrets masked, and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    path.write_text(mask_text(render_model_card(card)), encoding="utf-8")
    return path


def render_model_card(card: ModelCard) -> str:
    """Renders the card as Markdown with YAML front matter; a section without content is left out."""
    sections = (
        _render_front_matter(card),
        _render_summary(card),
        _render_metrics(card),
        _render_examples(card),
        _render_grids(card),
        _render_loading(card),
        _render_notes(card),
        _render_training(card),
        _render_papers(card),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _render_front_matter(card: ModelCard) -> str:
    values: dict[str, object] = {"base_model": card.base_model} if card.base_model else {}
    if card.adapter:
        values["library_name"] = "peft"
    values["tags"] = ["mmalign", "alignment", *card.objective]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _render_summary(card: ModelCard) -> str:
    base = f"{_code(card.base_model)} " if card.base_model else "A model "
    objectives = " + ".join(_code(name) for name in card.objective)
    return f"# Aligned model\n\n{base}aligned with {objectives} for {card.steps} optimiser steps by mmalign."


def _render_metrics(card: ModelCard) -> str:
    names = [*card.after, *(name for name in card.before if name not in card.after)]
    if not names:
        return ""
    rows = [
        f"| {_escape(name)} | {' | '.join(format_change(card.before.get(name), card.after.get(name)))} |"
        for name in names
    ]
    head = "| metric | before | after | change |\n|---|---:|---:|---:|"
    return "\n".join(["## Held-out metrics", "", head, *rows])


def _render_examples(card: ModelCard) -> str:
    parts = [
        f"Prompt:\n\n{_fence(prompt)}\n\nBefore:\n\n{_fence(before)}\n\nAfter:\n\n{_fence(after)}"
        for prompt, before, after in card.examples
    ]
    return "\n\n".join(["## Examples", "\n\n---\n\n".join(parts)]) if parts else ""


def _render_grids(card: ModelCard) -> str:
    pictures = [f"![{_escape(title)}]({path})" for title, path in card.grids]
    return "\n\n".join(["## Held-out samples", *pictures]) if pictures else ""


def _render_loading(card: ModelCard) -> str:
    if not card.adapter:
        return "## Loading\n\nThis folder holds the whole network; load it in place of the model it was trained from."
    code = (
        "from peft import PeftModel\n\n"
        "# base: the base model, loaded as usual; directory: this folder\n"
        "model = PeftModel.from_pretrained(base, directory)"
    )
    return f"## Loading\n\nThis folder holds an adapter of the base model.\n\n{_fence(code, 'python')}"


def _render_notes(card: ModelCard) -> str:
    return "\n".join(["## Notes", "", *(f"- {_escape(note)}" for note in card.notes)]) if card.notes else ""


def _render_training(card: ModelCard) -> str:
    versions = ", ".join(f"{_code(name)} {_escape(version)}" for name, version in card.plugins.items())
    plugins = f"Plugins: {versions}.\n\n" if versions else ""
    changes = "\n".join(_render_change(change) for change in card.changes)
    history = f"The run was resumed with other settings; before, they were:\n\n{changes}\n\n" if changes else ""
    return f"## Training\n\n{plugins}{history}{_fence(card.config.rstrip(), 'yaml')}"


def _render_change(change: Mapping[str, Any]) -> str:
    old = json.dumps(change["old"], ensure_ascii=False)
    return f"- {_code(change['key'])} up to step {change['step']}: {_code(old)}"


def _render_papers(card: ModelCard) -> str:
    lines = [f"- {_code(name)}: {_link(_escape(paper))}" for name, paper in card.papers.items()]
    return "\n".join(["## Citations", "", *lines]) if lines else ""


def _fence(text: str, language: str = "") -> str:
    """Puts text into a code fence that is longer than any run of backticks in it."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language or 'text'}\n{text}\n{ticks}"


def _code(text: str) -> str:
    ticks = "`" * (_longest_run(text) + 1)
    padding = " " if "`" in text else ""
    return f"{ticks}{padding}{' '.join(text.split())}{padding}{ticks}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _escape(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _link(text: str) -> str:
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
