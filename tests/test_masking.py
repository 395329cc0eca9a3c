"""Secrets are masked, in whatever form they come, and nothing else is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmalign import ConfigError, train
from mmalign.config.run_config import COMPONENT_KINDS, RunConfig, dump_config
from mmalign.config.schema import json_schema
from mmalign.masking import _SECRET_KEY, mask_logs, mask_text, mask_values, remember_secret
from mmalign.plugins.registry import load_registry

SECRETS = [
    "http://me:WORD-123@host/score",
    "https://WORD-123@host",
    "http://host/s?key=WORD-123",
    "http://host/s?a=1&api_token=WORD-123&b=2",
    "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=WORD-123",
    "https://account.blob.core.windows.net/x?sig=WORD-123&se=2027",
    "http://host/#access_token=WORD-123",
    "Authorization: Bearer WORD-123",
    "OPENAI_API_KEY=WORD-123",
    "{'password': 'WORD-123'}",
    '{"api_key": "WORD-123"}',
]
PLAIN = [
    "http://host:8000/v1?model=a&temperature=0.5",
    "modality.api_key: unknown key; did you mean 'api_key_env'?",
    "eos_token=<|im_end|>, pad_token: <pad>",
    "the key is in the door; a secret to nobody",
    "hf_model, sk-learn, me@example.org",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_masked(text: str) -> None:
    masked = mask_text(f"cannot reach {text}; try again")
    assert "WORD" not in masked and "***" in masked
    assert masked.startswith("cannot reach ") and masked.endswith("; try again")
    assert mask_text(masked) == masked


@pytest.mark.parametrize("form", ["hf_" + "aB3" * 8, "sk-" + "aB3-" * 8, "AKIA" + "A2" * 8, "ghp_" + "aB3" * 12])
def test_keys_of_known_forms_are_masked(form: str) -> None:
    assert mask_text(f"got {form}") == "got ***"


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text: str) -> None:
    assert mask_text(text) == text


def test_values_of_the_environment_are_masked_wherever_they_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_KEY", "plainword77")
    monkeypatch.setenv("SERVICE_TOKEN", "on")  # too short to be one
    monkeypatch.setenv("GOOGLE_CREDENTIALS", "/home/me/key.json")
    monkeypatch.setenv("COLOUR", "turquoise")
    text = "http://host/plainword77/score turned on, /home/me/key.json, turquoise"
    assert mask_text(text) == "http://host/***/score turned on, /home/me/key.json, turquoise"


def test_a_remembered_value_is_masked() -> None:
    remember_secret("tiger-lily-9")
    assert mask_text("HTTP 401: no such key tiger-lily-9") == "HTTP 401: no such key ***"


def test_values_under_names_of_secrets_are_masked() -> None:
    values = {"api_key": "x", "api_key_env": "KEY", "nested": [{"password": "y", "url": "http://a:b@c/"}], "n": 1}
    masked = {"api_key": "***", "api_key_env": "KEY", "nested": [{"password": "***", "url": "http://***@c/"}], "n": 1}
    assert mask_values(values) == masked


def test_no_key_of_a_configuration_is_taken_for_a_secret() -> None:
    """Masked, it would not load to itself."""
    names: set[str] = set()

    def collect(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            for value in schema.values():
                collect(value)
        elif isinstance(schema, list):
            for value in schema:
                collect(value)

    collect(json_schema(RunConfig, COMPONENT_KINDS, load_registry()))
    assert len(names) > 100 and not [name for name in names if _SECRET_KEY.match(name)]


def test_errors_are_masked() -> None:
    assert str(ConfigError("rewards[0].url: http://me:word@host/ is not reached")).count("***") == 1


@pytest.fixture
def masked_logs() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    mask_logs()
    mask_logs()
    yield
    logging.setLogRecordFactory(factory)


def test_logs_are_masked(masked_logs: None, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("mmalign.data").warning("%s: %d bad rows", "http://me:word@host/d.jsonl", 3)
    assert caplog.messages == ["http://***@host/d.jsonl: 3 bad rows"]


def test_no_file_of_a_run_holds_a_secret(
    toy_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "SECRET-abc123")
    rewards = [
        {"name": "http", "url": "http://127.0.0.1:9/s?key=SECRET-query", "requests": {"retries": 0}},
        {"name": "http", "url": "http://127.0.0.1:9/SECRET-abc123/s"},
    ]
    config = RunConfig.model_validate(toy_config(rewards=rewards, train={"steps": 1, "batch_size": 4}))
    run = train(config)
    files = [path for path in run.output.rglob("*") if path.is_file()]
    assert {"config.yaml", "run.json", "README.md", "state.json"} <= {path.name for path in files}
    assert not [path for path in files if b"SECRET" in path.read_bytes()]
    assert dump_config(config).count("***") == 2
    assert "***" in json.loads(next(run.output.rglob("state.json")).read_text())["state"]["config"]["rewards"][0]["url"]


def test_a_file_of_a_run_holds_the_masked_configuration(toy_config: Callable[..., dict[str, Any]]) -> None:
    run = train(RunConfig.model_validate(toy_config(train={"steps": 1, "batch_size": 4})))
    assert "***" not in Path(run.output, "config.yaml").read_text()
