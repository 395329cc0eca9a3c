"""Options of a run that change how it computes, not what: each trains, one after the other in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mmalign

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16 autocast": {"train.mixed_precision": "bf16"},
    "gradient checkpointing": {"train.gradient_checkpointing": True},
    "bfloat16 weights under the adapter": {"train.dtype": "bfloat16"},
    "bfloat16 weights, several passes": {"train.dtype": "bfloat16", "train.micro_batch_tokens": 60},
    "no clipping": {"train.max_grad_norm": None},
    "no adapter": {"modality.lora": None},
    "no adapter, bf16 autocast": {"modality.lora": None, "train.mixed_precision": "bf16"},
    "no adapter, gradient checkpointing": {"modality.lora": None, "train.gradient_checkpointing": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_trains_and_starts_at_the_reference(
    name: str, tiny_text_model: Path, toy_pairs: Path, tmp_path: Path
) -> None:
    config = mmalign.RunConfig.model_validate(
        {
            "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
            "data": {"train": {"path": str(toy_pairs)}, "eval": {"path": str(toy_pairs)}},
            "objective": {"name": "dpo"},
            "train": {"steps": 4, "batch_size": 5, "learning_rate": 1e-2},
            "output": str(tmp_path / "run"),
        }
    )
    (tmp_path / "config.yaml").write_text(config.model_dump_json())
    run = mmalign.train(tmp_path / "config.yaml", OPTIONS[name])
    # ln 2: policy and reference agree, in bfloat16, too, since the passes of both hold the same responses.
    assert run.before["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert run.after["loss"] < run.before["loss"] - 0.05
