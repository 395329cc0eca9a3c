"""`docs/rewards.md`: its examples assemble, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mmalign.assembly import assemble
from mmalign.components import RewardComponent
from mmalign.config import RunConfig
from mmalign.registry import load_registry
from mmalign.validation import validate

PAGE = (Path(__file__).parents[1] / "docs" / "rewards.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_key_of_a_reward_is_documented() -> None:
    table = PAGE.partition("## Keys of every reward")[2].partition("\n\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(RewardComponent.model_fields)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_assembles(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (function,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "my_rewards.py").write_text(function, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCORER_KEY", "key")
    run = {
        "modality": {"name": "text", "model": "any"},
        "data": {"train": {"path": "prompts.jsonl"}},
        "objective": {"name": "grpo"},
        "collector": {"name": "group"},
        "advantage": {"name": "grpo"},
        "train": {"steps": 1},
        "output": "run",
    }
    given = yaml.safe_load(example)
    assembly = assemble(validate(RunConfig, run | given, ""), load_registry())
    assert assembly.scorer is not None
    wanted = given["rewards"] if isinstance(given["rewards"], list) else [given["rewards"]]
    assert list(assembly.scorer.names) == [reward["name"] for reward in wanted]
