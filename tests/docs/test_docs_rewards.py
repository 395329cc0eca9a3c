"""`docs/rewards.md`: its examples assemble, its tables are complete."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from mmalign import Record, Sample
from mmalign.config.components import RewardComponent
from mmalign.config.run_config import RunConfig
from mmalign.config.validation import validate
from mmalign.import_strings import load_object
from mmalign.planning.assembly import assemble
from mmalign.plugins.registry import load_registry
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.python_function import PythonFunction

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_key_of_a_reward_is_documented() -> None:
    table = PAGE.partition("## Keys of every reward")[2].partition("\n\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(RewardComponent.model_fields)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 8


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_assembles(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(functions) == 2
    (tmp_path / "my_rewards.py").write_text("\n\n".join(functions), encoding="utf-8")
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
    columns = [
        f"{reward.get('label', reward['name'])}/{one}" if one else reward.get("label", reward["name"])
        for reward in wanted
        for one in reward.get("outputs", reward.get("criteria", [""]))
    ]
    assert list(assembly.scorer.names) == columns


def test_the_function_of_several_scores_gives_what_its_example_says(tmp_path: Path) -> None:
    (function,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "def rate" in code]
    (example,) = [yaml.safe_load(block) for block in EXAMPLES if ":rate" in block]
    (tmp_path / "my_rewards.py").write_text(function, encoding="utf-8")
    reward = PythonFunction(f"{tmp_path}/my_rewards.py:rate", outputs=example["rewards"][0]["outputs"])
    record = Record.from_text("Ask.", ["please, please"])
    scorer = RewardScorer([BoundReward(RewardComponent(**example["rewards"][0]), reward)])
    scores = scorer.score([Sample(record, record.responses[0], "please, please")])
    assert scores.tolist() == [[2.0, pytest.approx(0.14)]]
    judge = RewardComponent(**example["rewards"][1])
    assert [judge.shaping(name).counted for name in ("helpful", "honest", "harmless")] == [True, False, False]
    assert judge.shaping("harmless").constraint is not None


def test_the_table_of_overlaps_is_right() -> None:
    """A reward overlaps if its class says so; of `python` the workers decide."""
    table = PAGE.partition("| reward | overlaps |")[2].partition("\n\n")[0].splitlines()[2:]
    told = {name: row.split("|")[2].startswith(" yes") for row in table for name in re.findall(r"`(\w+)`", row)}
    told.pop("workers")
    told.pop("python")
    registry = load_registry()
    rewards = {entry.spec.name: load_object(entry.spec.target).background for entry in registry.entries("reward")}
    assert rewards.pop("python") is False
    assert told == {name: overlaps for name, overlaps in rewards.items() if name in told}
    assert told.keys() == rewards.keys()


def test_the_table_of_image_rewards_is_right() -> None:
    """It says of every reward whose module reads images whether its scores are the same bit for bit."""
    table = PAGE.partition("## Images")[2].partition("\n\n```")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", table, flags=re.MULTILINE)
    told = {name: same == "bit for bit" for name, same in rows}
    rewards = {entry.spec.name: load_object(entry.spec.target) for entry in load_registry().entries("reward")}
    scoring = {
        name: reward for name, reward in rewards.items() if hasattr(sys.modules[reward.__module__], "score_images")
    }
    assert told == {name: reward.deterministic for name, reward in scoring.items()}
    assert len(told) == 7
