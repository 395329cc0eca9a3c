"""500 mutated configurations: each is read or one error, soon, and with little memory; nothing is written."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_mutations import mutate_configs
from conftest import TOY_PLUGIN

from mmalign import MmalignError
from mmalign.api import load_assembly
from mmalign.planning.early_checks import check_early
from mmalign.shown_text import show_controls

ROOT = Path(__file__).resolve().parents[2]
BASES = (
    "text/dpo",
    "text/grpo-sentiment",
    "text/spo_degree",
    "diffusion/ddpo",
    "actions/prefer",
    "vision_language/grpo",
)
SEEDS = range(5)
COUNT = 100
LONGEST = 10.0  # seconds a file, on a busy machine; they take milliseconds


@pytest.fixture
def bases(tiny_text_model: Path, toy_online: Any) -> list[dict[str, Any]]:
    """What is mutated: configurations of every kind of run, those of text on a small model."""
    shipped = [yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8")) for name in BASES]
    for config in shipped[:3]:
        config["modality"]["model"] = str(tiny_text_model)
    return [*shipped, toy_online(plugins=[str(TOY_PLUGIN)])]


def read(path: Path) -> str:
    """Does what `check` does before anything heavy is loaded; returns what is wrong, an empty text if nothing."""
    try:
        check_early(path)
        load_assembly(path)
    except MmalignError as error:
        told = str(error)
        # It can be shown and printed, and is no more than a screen of text.
        assert told.strip() and len(show_controls(told).encode()) < 20_000
        return told
    return ""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_configuration_is_read_or_one_error(
    seed: int, bases: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None
) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "mutated.yaml"
    before = {entry.name for entry in tmp_path.iterdir()}
    failed: dict[int, str] = {}
    refused = 0
    for number, content in enumerate(mutate_configs(bases, COUNT, f"configurations {seed}")):
        path.write_bytes(content)
        begun = time.monotonic()
        try:
            refused += bool(read(path))
        except Exception:  # noqa: BLE001
            failed[number] = traceback.format_exc(limit=-6)
        assert time.monotonic() - begun < LONGEST, f"{number} takes long"
    assert not failed, f"{len(failed)} fail:\n" + "\n".join(f"{number}: {told}" for number, told in failed.items())
    assert {entry.name for entry in tmp_path.iterdir()} == before | {path.name}
    # The mutations are neither harmless nor hopeless.
    assert COUNT / 4 < refused < COUNT


def test_the_configurations_are_the_same_on_every_machine(bases: list[dict[str, Any]]) -> None:
    one, other = (list(mutate_configs(bases, 40, "configurations")) for _ in range(2))
    assert one == other and len(set(one)) > 35
