"""A finished run as a reward: the scores of `mmalign score`, bit for bit, and never those of a random head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from transforming import compared

import mmalign
from mmalign import ConfigError, Record, Sample
from mmalign.config.components import RewardComponent
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign.training.annotation import score_records
from mmalign_rewards.classifier import Classifier
from mmalign_rewards.trained_run import TrainedRun

RECORDS = [
    compared(
        Record.from_text(f"Question {index}?", ["A good answer.", "bad", f"fair {index}"], id=f"p{index}"), ("r0", "r1")
    )
    for index in range(6)
]
SAMPLES = [Sample(record, response, response.text) for record in RECORDS for response in record.responses]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_text_model: Path) -> Path:
    work = tmp_path_factory.mktemp("runs")
    data = work / "pairs.jsonl"
    data.write_text("".join(f"{record.to_json()}\n" for record in RECORDS))
    for objective in ("reward_model", "dpo"):
        config = {
            "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 4}},
            "data": {"train": {"path": str(data)}},
            "objective": {"name": objective},
            "train": {"steps": 3, "batch_size": 6, "learning_rate": 1e-2, "dtype": "float32"},
            "output": str(work / objective),
        }
        (work / f"{objective}.yaml").write_text(yaml.safe_dump(config))
        mmalign.train(work / f"{objective}.yaml")
    return work


def test_the_scores_are_those_of_the_command_bit_for_bit(folder: Path) -> None:
    run = mmalign.load_run(folder / "reward_model")
    scored = [row.value for one in score_records(run, RECORDS, "scores", name="s") for row in one.scores]
    state = torch.random.get_rng_state()
    scorer = RewardScorer([BoundReward(RewardComponent(name="run"), TrainedRun(str(folder / "reward_model")))])
    got = scorer.score(SAMPLES).flatten().tolist()
    assert got == scored and len(set(got)) == len(got)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("path", "quantity", "message"),
    [
        ("nowhere", "scores", "is not the folder of a run"),
        ("reward_model/model", "scores", "is not the folder of a run"),
        ("dpo", "scores", "computes no 'scores' of responses"),
        ("reward_model", "score", "computes no 'score' of responses"),
    ],
)
def test_what_is_no_run_with_scores_is_refused(folder: Path, path: str, quantity: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"rewards\.run\.path: .*{message}"):
        TrainedRun(str(folder / path), quantity).score(SAMPLES)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("reward_model", "is the folder of a run; use the reward {name: run, path: "),
        ("reward_model/model", "is the model of a run with heads of its own; use the reward {name: run, path: "),
        ("dpo/model", "is an adapter; merge it into its base model"),
    ],
)
def test_a_classifier_has_no_random_head(folder: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Classifier(str(folder / path)).score(SAMPLES)
    assert str(caught.value).startswith("rewards.classifier.model: ") and message in str(caught.value)
