"""The `openai` engine against `transformers serve`, the server that comes with transformers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from multimodal_models import build_tiny_multimodal_model
from multimodal_records import media_record

from mmalign import DataError, Decoding, Record
from mmalign.import_strings import load_object
from mmalign.testing import build_tiny_text_model

RECORDS = [Record.from_text("Count to ten.", id="a"), Record.from_text("What is the capital of France?", id="b")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose own settings say that it samples: the server does not take that from the request."""
    folder = build_tiny_text_model(tmp_path_factory.mktemp("served") / "model")
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_sample": True, "top_k": 0}))
    return folder


@pytest.mark.slow
def test_transformers_serve(folder: Path) -> None:
    """It takes chats only and tells no log-probs: the texts are encoded again, to steps that can be scored."""
    for module in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(module)
    modality = load_object("mmalign_text.modality:TextModality")(model=str(folder))
    network = modality.load(device=torch.device("cpu"), dtype=torch.float32).network.eval()
    with running_server(folder) as url:
        engine = load_object("mmalign_engines.openai:OpenAIEngine")(
            model=str(folder), base_url=url, prompts="chat", logprobs="off"
        )
        groups = engine.generate(modality, network, RECORDS, Decoding(temperature=0.7, max_steps=6), 2)
    generated = [one for group in groups for one in group]
    assert [len(group) for group in groups] == [2, 2] and all(one.behaviour_logps is None for one in generated)
    assert len({one.response.text for one in generated}) > 1
    with torch.no_grad():
        logps, mask = modality.step_log_probs(network, [one.encoded for one in generated])
    assert mask.sum(dim=1).tolist() == [one.encoded.steps for one in generated] and bool((logps[mask] < 0).all())


@pytest.mark.slow
def test_transformers_serve_sees_the_images_of_a_chat(tmp_path: Path) -> None:
    """Almost without chance, it answers to each image as the same weights do here."""
    for module in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(module)
    folder = build_tiny_multimodal_model(tmp_path / "model", "llava")
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_sample": True, "top_k": 0}))
    modality = load_object("mmalign_vision_language.modality:VisionLanguageModality")(model=str(folder))
    network = modality.load(device=torch.device("cpu"), dtype=torch.float32).network.eval()
    records = [media_record(tmp_path, "image", seeds, []) for seeds in ([1], [3], [1, 3], [])]
    decoding = Decoding(temperature=1e-4, max_steps=6)
    with running_server(folder) as url:
        engine = load_object("mmalign_engines.openai:OpenAIEngine")(
            model=str(folder), base_url=url, prompts="chat", logprobs="off"
        )
        served = engine.generate(modality, network, records, decoding, 1)
    here = modality.generate(network, records, decoding, 1)
    texts = [one.response.text for [one] in served]
    assert texts == [one.response.text for [one] in here]
    assert len(set(texts)) > 1


def test_tokens_carry_no_images(tmp_path: Path) -> None:
    folder = build_tiny_multimodal_model(tmp_path / "model", "llava")
    modality = load_object("mmalign_vision_language.modality:VisionLanguageModality")(model=str(folder))
    engine = load_object("mmalign_engines.openai:OpenAIEngine")(model="any", base_url="http://127.0.0.1:9/v1")
    record = media_record(tmp_path, "image", [1], [])
    with pytest.raises(DataError, match=r"tokens carry no images; set engine\.prompts: chat"):
        engine.generate(modality, torch.nn.Identity(), [record], Decoding(), 1)


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Runs the server on a free port, offline; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, *options], env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Waits up to two minutes for an answer."""
    for _ in range(600):
        try:
            with urlopen(url, timeout=5):
                return
        except URLError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
    pytest.fail("the server did not start in two minutes")
