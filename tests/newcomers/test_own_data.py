"""A newcomer brings JSON lines with a misspelt column, and ends with a merged model in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from typer.testing import CliRunner

from mmalign import DataError
from mmalign.cli.main import app


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return str(result.stdout)


def write_rows(path: Path, rejected: str) -> None:
    rows = [{"prompt": f"Say {index}.", "chosen": "Good and kind.", rejected: "Bad."} for index in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_from_a_misspelt_column_to_a_merged_model(tiny_text_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data, config, run = tmp_path / "mine.jsonl", tmp_path / "mine.yaml", tmp_path / "run"
    sections = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(data)}},
        "objective": {"name": "dpo"},
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 0.05},
        "output": str(run),
    }
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    write_rows(data, "rejcted")
    for command in (["check", config], ["train", config], ["data", "validate", data]):
        result = invoke(*command)
        told = f"{result.output}{result.exception}"
        assert result.exit_code != 0
        assert f"{data}:1: rejcted: " in told and "'rejected'" in told, told
        assert result.exception is None or isinstance(result.exception, DataError | SystemExit)
    assert not run.exists()

    write_rows(data, "rejected")
    assert "dpo" in succeed("check", config)
    succeed("train", config)
    succeed("export", run, "--merged", "-o", tmp_path / "merged", "--dtype", "float32")

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_text_model, dtype="float32")
    messages = [{"role": "user", "content": "Say 1."}]
    read = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        trained, before = merged(**read).logits, base(**read).logits
    assert trained.isfinite().all() and not torch.allclose(trained, before, atol=1e-4)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    written = merged.generate(**read, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert written.shape[1] > read["input_ids"].shape[1]
