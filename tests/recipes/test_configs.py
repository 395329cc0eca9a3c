"""Every shipped text configuration passes `check` and makes two steps, on a tiny model in the place of its own.

Those of other modalities have test files of their own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmalign
from mmalign.monitoring.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TEXT = [path for path in CONFIGS if path.parent.name == "text"]


def test_there_are_as_many_configurations_as_are_tested() -> None:
    assert len(TEXT) == 70
    assert len(CONFIGS) == 92


def test_every_objective_has_a_configuration() -> None:
    from mmalign.plugins.registry import load_registry

    used = {
        component["name"] for path in CONFIGS for component in _listed(yaml.safe_load(path.read_text())["objective"])
    }
    # One word away from the objective of their module that has one.
    presets = {"ipo_sum", "gspo", "ln_dpo", "apo_down", "rpo_sum", "vpo_online", "alpha_po", "cpo_simpo", "sppo"}
    presets |= {"a_lol_ref_free", "a_lol_seq", "a_lol_kl", "weighted_cloning", "reward_gold"}
    presets |= {"sparsepo_common", "sparsepo_activations"}
    presets |= {"tpo_triple_l", "rationale_orpo", "copg_group", "copg_online", "forward_kl", "dckd", "tdpo2"}
    presets |= {"ddpo_sf", "flow_grpo", "dance_grpo", "d3po"}
    lipo = ("point_square", "point_sigmoid", "pair_logistic", "pair_hinge", "pair_square", "list_mle", "softmax")
    presets |= {
        "aot_unpaired",
        "apo_zero_unpaired",
        "behaviour_kl_penalty",
        "info_nca",
        *(f"lipo_{name}" for name in lipo),
    }
    assert set(load_registry().names("objective")) - used == presets


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_starts_with_its_command(path: Path) -> None:
    assert path.read_text().startswith(f"# mmalign train {path.relative_to(ROOT)}\n")


@pytest.mark.parametrize("path", TEXT, ids=lambda path: path.stem)
def test_a_configuration_trains(
    path: Path, tiny_text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    overrides: dict[str, Any] = {
        "modality.model": str(tiny_text_model),
        "modality.lora": {"rank": 2, "last_layers": None},
        "data.eval.limit": 3,
        "train.steps": 2,
        "train.warmup_steps": 0,
        "output": str(tmp_path / "run"),
    }
    written = yaml.safe_load(path.read_text())
    if "decoding" in written:
        overrides["decoding.max_steps"] = 4
    overrides |= {f"teachers.{name}.model": str(tiny_text_model) for name in written.get("teachers", {})}
    inspection = mmalign.check(path, overrides)
    assert inspection.parameters is not None
    run = mmalign.train(path, overrides)
    assert run.step == 2
    rows = read_metrics(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["eval", "train", "train", "eval"]
    assert all(math.isfinite(row["loss"]) for row in rows if row["kind"] == "train")
    assert rows[1]["grad_norm"] > 0
    assert (tmp_path / "run" / "model" / "README.md").is_file()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
