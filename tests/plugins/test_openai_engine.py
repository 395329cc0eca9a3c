"""The `openai` engine against a server on loopback that speaks the protocol and really samples a tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_server import DIGITS, TinyServer
from torch import Tensor, nn

from mmalign import ConfigError, Generated, Record, RequestConfig, TrainingError, load_run, train
from mmalign.import_strings import load_object

RECORDS = [Record.from_text("Count to ten.", id="a"), Record.from_text("What is the capital of France?", id="b")]

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]
Loaded = tuple[Any, nn.Module]


@pytest.fixture(scope="module")
def running(tiny_text_model: Path) -> Iterator[TinyServer]:
    with TinyServer(tiny_text_model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(running: TinyServer) -> TinyServer:
    running.offset, running.spoil = 0.0, lambda answer: answer
    running.requests.clear()
    return running


@pytest.fixture(scope="module")
def loaded(tiny_text_model: Path) -> Loaded:
    modality = load_object("mmalign_text.modality:TextModality")(model=str(tiny_text_model))
    return modality, modality.load(device=torch.device("cpu"), dtype=torch.float32).network.eval()


def sample(loaded: Loaded, server: TinyServer, **parameters: Any) -> list[Generated]:
    """Eight responses to each of two prompts, of at most six tokens, at temperature 0.7 or another."""
    temperature = parameters.pop("temperature", 0.7)
    requests = RequestConfig(retries=0, **parameters.pop("requests", {}))
    settings = {"model": "tiny", "base_url": server.url, "requests": requests, "logprobs": "sampled", **parameters}
    engine = load_object("mmalign_engines.openai:OpenAIEngine")(**settings)
    decoding = load_object("mmalign_decodings.sampling:SampleDecoding")(temperature=temperature, max_steps=6)
    modality, network = loaded
    engine.check(modality, decoding)
    torch.manual_seed(0)
    groups = engine.generate(modality, network, RECORDS, decoding, 8)
    assert [len(group) for group in groups] == [8, 8]
    return [one for group in groups for one in group]


def policy_logps(loaded: Loaded, generated: list[Generated], temperature: float = 0.7) -> list[Tensor]:
    """The log-probs of the sampled steps, one response at a time."""
    modality, network = loaded
    modality.temperature = temperature
    try:
        with torch.no_grad():
            return [modality.step_log_probs(network, [one.encoded])[0][0] for one in generated]
    finally:
        modality.temperature = 1.0


@pytest.mark.parametrize(("prompts", "path"), [("tokens", "/v1/completions"), ("chat", "/v1/chat/completions")])
def test_the_servers_log_probs_are_those_of_the_policy(
    loaded: Loaded, server: TinyServer, prompts: str, path: str
) -> None:
    """Same weights, same prompt, same temperature: what the server says is what the trainer computes."""
    generated = sample(loaded, server, prompts=prompts)
    for one, expected in zip(generated, policy_logps(loaded, generated), strict=True):
        torch.testing.assert_close(one.behaviour_logps, expected, atol=1e-4, rtol=0)
    assert {asked for asked, _, _ in server.requests} == {path}


@pytest.mark.parametrize("extra", [{}, {"return_token_ids": True}])
def test_the_servers_log_probs_are_used_and_not_computed_again(
    loaded: Loaded, server: TinyServer, extra: dict[str, Any]
) -> None:
    server.offset = -0.25
    generated = sample(loaded, server, extra_body=extra)
    for one, expected in zip(generated, policy_logps(loaded, generated), strict=True):
        torch.testing.assert_close(one.behaviour_logps, expected - 0.25, atol=1e-4, rtol=0)


def test_responses_end_as_they_were_sampled(loaded: Loaded, server: TinyServer) -> None:
    modality, _ = loaded
    generated = sample(loaded, server)
    assert {one.finished for one in generated} == {True, False}
    for one in generated:
        ids = one.encoded.tensors["response_ids"].tolist()
        assert len(ids) == one.encoded.steps == len(one.behaviour_logps)
        assert (ids[-1] in modality.end_ids) == one.finished
        assert not modality.end_ids & set(ids[:-1])
        assert one.finished or len(ids) == 6
        assert set(one.response.text) <= set(DIGITS)


def test_a_seed_is_sent_from_torchs_generator(loaded: Loaded, server: TinyServer) -> None:
    one_by_one, at_once = (sample(loaded, server, requests={"concurrency": count}) for count in (1, 16))
    assert [one.response for one in one_by_one] == [one.response for one in at_once]
    assert len({body["seed"] for _, body, _ in server.requests}) == 16


def drop_logprobs(answer: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{**answer["choices"][0], "logprobs": None}]}


def one_is_missing(answer: dict[str, Any]) -> dict[str, Any]:
    for column in answer["choices"][0]["logprobs"].values():
        column.pop()
    return answer


def one_is_null(answer: dict[str, Any]) -> dict[str, Any]:
    answer["choices"][0]["logprobs"]["token_logprobs"][0] = None
    return answer


def other_strings(answer: dict[str, Any]) -> dict[str, Any]:
    answer["choices"][0]["logprobs"]["tokens"][0] = "x"
    return answer


@pytest.mark.parametrize("spoil", [drop_logprobs, one_is_missing, one_is_null, other_strings])
def test_log_probs_that_do_not_fit_are_computed_by_the_policy(
    online: WriteConfig, loaded: Loaded, server: TinyServer, spoil: Callable[..., Any]
) -> None:
    server.offset, server.spoil = -0.25, spoil
    run = load_run(online(logprobs="sampled"), {"decoding.temperature": 0.7, "train.micro_batch_size": 3})
    generated = [one for group in run.backend.generate(RECORDS, 8) for one in group]
    long = [one for one in generated if one.encoded.steps > 1]
    assert long and all(one.rescored for one in long)
    for one, expected in zip(long, policy_logps(loaded, long), strict=True):
        torch.testing.assert_close(one.behaviour_logps, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("logprobs", "temperature", "used"), [("raw", 1.0, True), ("raw", 0.7, False), ("off", 1.0, False)]
)
def test_log_probs_at_another_temperature_are_not_asked_for(
    online: WriteConfig, loaded: Loaded, server: TinyServer, logprobs: str, temperature: float, used: bool
) -> None:
    run = load_run(online(logprobs=logprobs), {"decoding.temperature": temperature})
    generated = [one for group in run.backend.generate(RECORDS, 8) for one in group]
    assert [one.rescored for one in generated] == [not used] * 16
    assert all(("logprobs" in body) == used for _, body, _ in server.requests)
    for one, expected in zip(generated, policy_logps(loaded, generated, temperature), strict=True):
        torch.testing.assert_close(one.behaviour_logps, expected, atol=1e-4, rtol=0)


def test_top_k_and_greedy_are_asked_of_the_server(loaded: Loaded, server: TinyServer) -> None:
    engine = load_object("mmalign_engines.openai:OpenAIEngine")(model="tiny", base_url=server.url)
    parts: list[tuple[str, dict[str, Any]]] = [("Sample", {"top_k": 5, "top_p": 0.9}), ("Greedy", {"max_steps": 3})]
    for name, arguments in parts:
        decoding = load_object(f"mmalign_decodings.sampling:{name}Decoding")(**arguments)
        engine.generate(*loaded, RECORDS[:1], decoding, 1)
    (_, first, _), (_, second, _) = server.requests
    assert (first["top_k"], first["top_p"], first["temperature"], first["max_tokens"]) == (5, 0.9, 1.0, 64)
    assert (second["temperature"], second["max_tokens"]) == (0.0, 3)


@pytest.fixture
def online(tiny_text_model: Path, server: TinyServer, toy_online: Build, write_config: WriteConfig) -> WriteConfig:
    """Writes an online run of three steps that samples by the server; keywords are settings of the engine."""

    def write(**engine: Any) -> Path:
        sections = {
            "modality": {"name": "text", "model": str(tiny_text_model)},
            "rewards": [{"name": "length", "target": 2, "unit": "characters"}],
            "engine": {"name": "openai", "model": "tiny", "base_url": server.url, **engine},
            "train": {"steps": 3, "batch_size": 4, "learning_rate": 1e-4},
            "evaluation": {"evaluators": [{"name": "generation"}]},
        }
        return write_config(toy_online(**sections))

    return write


def test_an_online_run_learns_from_the_server(online: WriteConfig, server: TinyServer, tmp_path: Path) -> None:
    """The first round agrees; the policy then moves away from the server's weights, and the gap shows it."""
    train(online())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert [step["sampler_gap/rescored"] for step in steps] == [0.0] * 3
    first, second, third = (step["sampler_gap/mean"] for step in steps)
    assert first < 1e-4 < second < third < 0.1
    assert all(step["sampler_gap/max"] > step["sampler_gap/mean"] for step in steps)
    assert len(server.requests) == 3 * 4 * 4  # held-out evaluation asks the policy, not the server


def test_a_server_with_other_weights_stops_the_run(online: WriteConfig, server: TinyServer) -> None:
    server.offset = -0.25
    with pytest.raises(
        TrainingError, match=r"differ by 0\.25 nats a step .* the engine is a server with other weights"
    ):
        train(online())


def test_the_key_is_sent_and_stored_nowhere(
    online: WriteConfig, server: TinyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = online(api_key_env="TINY_KEY")
    with pytest.raises(ConfigError, match=r"engine\.api_key_env: the environment variable 'TINY_KEY' is not set"):
        train(path)
    monkeypatch.setenv("TINY_KEY", "sesame-4711")
    train(path)
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer sesame-4711"}
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert files and not any(b"sesame-4711" in path.read_bytes() for path in files)
