"""Every recipe of the embedded digit model passes `check` and makes two steps; those of large models are validated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmalign
from mmalign.monitoring.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs/diffusion").glob("*.yaml"))
LARGE = [path for path in CONFIGS if "_sd" in path.stem]
SMALL = [path for path in CONFIGS if path not in LARGE]


@pytest.mark.slow
@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_digit_recipe_trains(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    overrides: dict[str, Any] = {
        "data.eval.limit": 4,
        "decoding.max_steps": 2,
        "train.steps": 2,
        "train.batch_size": 3,
        "train.warmup_steps": 0,
        "evaluation.every": 0,
        "output": str(tmp_path / "run"),
    }
    written = yaml.safe_load(path.read_text())
    if "collector" in written:
        overrides["collector.group_size"] = 2
    assert mmalign.check(path, overrides).parameters == (1_114_209, 1_114_209)
    run = mmalign.train(path, overrides)
    assert run.step == 2
    rows = read_metrics(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["eval", "train", "train", "eval"]
    assert all(math.isfinite(row["loss"]) for row in rows if row["kind"] == "train")
    assert {"gain/ink", "gain/digit_seen", "gain/digit_judge", "gain/reward/gain_low"} <= rows[-1].keys()
    assert rows[0]["gain/reward/gain"] == 0


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_a_recipe_of_a_large_model_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.config.validation import validate_parameters
    from mmalign.plugins.registry import load_registry
    from mmalign_diffusion.config import DiffusionConfig
    from mmalign_diffusion.families import FAMILIES

    config = mmalign.load_config(path)
    registry = load_registry()
    parts = [("objective", one) for one in config.objective] + [("reward", one) for one in config.rewards]
    parts += [("decoding", config.decoding), *(("evaluator", one) for one in config.evaluation.evaluators)]
    for kind, part in parts:
        validate_parameters(registry.find(kind, part.name, kind).spec, part.parameters, kind, str(path))
    # What the family's own keys are is known where the family is there.
    family = config.modality.parameters["family"]
    known = family if family in FAMILIES else {"name": "custom", "target": "a:b"}
    DiffusionConfig.model_validate({**config.modality.parameters, "family": known})


def test_the_shipped_pairs_are_pairs() -> None:
    sizes = {}
    for name in ("pairs_train", "pairs_heldout"):
        file = ROOT / f"configs/diffusion/data/{name}.jsonl"
        records = [mmalign.Record.from_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
        sizes[name] = len(records), sum(len(record.pair_indices()) for record in records)
        assert file.stat().st_size < 1_000_000
    assert sizes["pairs_heldout"] == (400, 200)
    assert sizes["pairs_train"][0] == sizes["pairs_train"][1] > 350


def test_a_gain_is_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    from runpy import run_path

    paired_gain = run_path(str(ROOT / "configs/diffusion/digit_rewards.py"))["paired_gain"]
    # Differences 1, 2, 3: mean 2, deviation 1, half width 1.96 / sqrt(3).
    mean, low, high = paired_gain([0.0, 5.0, 1.0], [1.0, 7.0, 4.0])
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 1.1316, 2 + 1.1316), abs=1e-4)


PICK = {
    "ranking_id": 7,
    "user_id": 3,
    "caption": "a red boat",
    "image_0_uid": "aa",
    "image_1_uid": "bb",
    "jpg_0": b"first",
    "jpg_1": b"second",
    "label_0": 0.0,
    "label_1": 1.0,
}


def test_pick_a_pic_becomes_records(tmp_path: Path) -> None:
    from runpy import run_path

    iter_records = run_path(str(ROOT / "configs/diffusion/pickapic.py"))["iter_records"]
    rows = [PICK, {**PICK, "ranking_id": 8, "label_0": 0.5, "label_1": 0.5}, {**PICK, "ranking_id": 9, "label_0": 2.0}]
    first, second = iter_records(rows, tmp_path, None)
    assert (first.id, second.id) == ("7", "9")
    assert first.prompt_text == "a red boat"
    assert first.pair_indices()[0][:2] == (1, 0)
    assert second.pair_indices()[0][:2] == (0, 1)
    assert (tmp_path / first.media[1].uri).read_bytes() == b"second"
    assert mmalign.Record.from_json(json.dumps(first.to_dict())) == first
