"""`mmalign export`: what plain transformers, peft and diffusers load of it, and that a folder is whole or absent."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_records import write_image_pairs
from safetensors.torch import load_file
from typer.testing import CliRunner

import mmalign
from mmalign import ConfigError, Record, RunConfig
from mmalign.cli.main import app
from mmalign.results import model_folder
from mmalign.run import Run

ROWS = [{"prompt": f"Say {index}", "chosen": "good and kind", "rejected": "bad"} for index in range(4)]


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refused(*arguments: str | Path) -> str:
    error = CliRunner().invoke(app, list(map(str, arguments))).exception
    assert isinstance(error, ConfigError), error
    return str(error)


@pytest.fixture(scope="module")
def run(tiny_text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config: dict[str, Any] = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 4}},
        "data": {name: {"path": str(folder / "data.jsonl")} for name in ("train", "eval")},
        "objective": {"name": "dpo"},
        "train": {"steps": 6, "batch_size": 4, "learning_rate": 0.02, "dtype": "float32"},
        "output": str(folder / "run"),
    }
    return mmalign.train(RunConfig.model_validate(config))


def log_probs(network: Any, run: Run) -> torch.Tensor:
    """Log-probs of the responses by plain transformers: one by one, teacher forced."""
    sums = []
    for row in ROWS:
        for encoded in run.assembly.modality.encode(Record.from_text(row["prompt"], [row["chosen"], row["rejected"]])):
            prompt, response = encoded.tensors["prompt_ids"], encoded.tensors["response_ids"]
            with torch.no_grad():
                logits = network(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
            sums.append(logits.float().log_softmax(-1).gather(1, response[:, None]).sum())
    return torch.stack(sums)


def scored(run: Run) -> torch.Tensor:
    records = [Record.from_text(row["prompt"], [row["chosen"], row["rejected"]]) for row in ROWS]
    responses = [one for record in records for one in run.assembly.modality.encode(record)]
    run.policy.eval()
    with torch.no_grad():
        logps, mask = run.assembly.modality.step_log_probs(run.policy.network, responses)
    return torch.where(mask, logps, 0).sum(dim=1)


def test_plain_transformers_loads_a_merged_network_with_the_same_log_probs(run: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = tmp_path / "merged"
    assert str(output) in invoke("export", run.output, "--merged", "--output", output)
    network = AutoModelForCausalLM.from_pretrained(output, dtype="float32").eval()
    base = AutoModelForCausalLM.from_pretrained(run.model.name, dtype="float32").eval()
    torch.testing.assert_close(log_probs(network, run), scored(run), atol=1e-4, rtol=1e-5)
    assert (log_probs(base, run) - scored(run)).abs().max() > 0.1, "training has changed something"
    tokenizer = AutoTokenizer.from_pretrained(output)
    own = run.assembly.modality.loaded_tokenizer  # type: ignore[attr-defined]
    chat = [{"role": "user", "content": "Say 1"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == own.apply_chat_template(chat, tokenize=False)
    card = (output / "README.md").read_text()
    assert "holds the whole network" in card and "accuracies" in card
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_an_adapter_is_loaded_by_peft(run: Run, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    invoke("export", run.output, "--output", tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(run.model.name, dtype="float32")
    network = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(log_probs(network, run), scored(run), atol=1e-4, rtol=1e-5)
    assert "holds an adapter" in (tmp_path / "adapter" / "README.md").read_text()


def test_weights_are_merged_in_float32_and_rounded_once(run: Run, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        invoke("export", run.output, "--merged", "--dtype", dtype, "--output", tmp_path / dtype)
    exact, rounded = (load_file(tmp_path / name / "model.safetensors") for name in ("float32", "bfloat16"))
    assert exact.keys() == rounded.keys()
    for name, value in exact.items():
        assert torch.equal(value.bfloat16(), rounded[name]), name
    assert json.loads((tmp_path / "bfloat16" / "config.json").read_text())["dtype"] == "bfloat16"


def test_existing_folders_are_left_alone(run: Run, tmp_path: Path) -> None:
    assert "exists; give another folder" in refused("export", run.output)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert "exists; give another folder" in refused("export", run.output, "--merged", "-o", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_failure_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folder, "write_card", fail)
    said = refused("export", run.output, "--merged", "--output", tmp_path / "deep" / "merged")
    assert "No space left on device" in said
    assert list((tmp_path / "deep").iterdir()) == []


def test_what_cannot_be_exported_is_refused_by_name(run: Run, tmp_path: Path, toy_config: Any) -> None:
    assert "not the folder of a run" in refused("export", tmp_path, "--output", tmp_path / "x")
    assert "--dtype: an adapter is written as it was trained" in refused("export", run.output, "--dtype", "float16")
    toy = mmalign.train(RunConfig.model_validate(toy_config())).output
    assert "'toy' has no merged export" in refused("export", toy, "--merged", "--output", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_gguf_needs_the_converter_of_llama_cpp(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter here copies one number of the merged model: what is tested is how it is called."""
    said = refused("export", run.output, "--gguf", "--output", tmp_path / "model")
    assert "convert_hf_to_gguf.py" in said and f"--merged --output {tmp_path / 'model'}" in said
    assert not (tmp_path / "model").exists()
    program = tmp_path / "bin" / "convert_hf_to_gguf.py"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ -f "$1/config.json" ] || exit 1\nwc -c < "$1/model.safetensors" > "$3"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    invoke("export", run.output, "--gguf", "--output", tmp_path / "model")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert int((tmp_path / "model.gguf").read_text()) == size
    program.write_text("#!/bin/sh\necho unknown architecture >&2\nexit 1\n")
    said = refused("export", run.output, "--gguf", "--output", tmp_path / "other")
    assert "failed" in said and "unknown architecture" in said
    assert not (tmp_path / "other.gguf").exists()


def test_diffusers_loads_a_merged_denoiser_with_the_same_outputs(
    tiny_class_unet: Path, tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    from diffusers import UNet2DModel

    data = write_image_pairs(tmp_path, 4)
    config: dict[str, Any] = {
        "modality": {
            "name": "diffusion",
            "model": str(tiny_class_unet),
            "family": {"name": "class_unet", "null_class": 3},
            "lora": {"rank": 2},
        },
        "data": {"train": {"path": str(data)}},
        "objective": {"name": "diffusion_dpo", "beta": 10.0},
        "train": {"steps": 3, "batch_size": 4, "learning_rate": 0.02, "dtype": "float32"},
        "output": str(tmp_path / "run"),
    }
    run = mmalign.train(RunConfig.model_validate(config))
    invoke("export", run.output, "--merged", "--output", tmp_path / "merged", "--dtype", "float32")
    merged = UNet2DModel.from_pretrained(tmp_path / "merged").eval()
    base = UNet2DModel.from_pretrained(tiny_class_unet).eval()
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = (noise, torch.tensor([300, 700]))
    run.policy.eval()
    with torch.no_grad():
        outputs = [
            network(*inputs, class_labels=torch.tensor([0, 1])).sample.float()
            for network in (merged, run.policy.network, base)
        ]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-4)
