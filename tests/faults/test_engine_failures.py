"""A server that fails in every way: what can pass is tried again, what cannot is one clear error."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign import DataError, Decoding, Generated, Record, RequestConfig, TrainingError
from mmalign.import_strings import load_object

GOOD = json.dumps({"choices": [{"text": "42", "finish_reason": "stop"}]})
Answer = tuple[int, str]


class FailingServer(ThreadingHTTPServer):
    """Answers with `script` in order, then with its last entry; `delay` is in seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Answer | None] = []
        self.delay = 0.0
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FailingServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.script[min(self.server.asked, len(self.server.script) - 1)]
        self.server.asked += 1
        time.sleep(self.server.delay)
        if answer is None:  # the connection drops
            return
        with suppress(BrokenPipeError):  # who asked may have given up
            self.send_response(answer[0])
            self.end_headers()
            self.wfile.write(answer[1].encode())

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[FailingServer]:
    with FailingServer() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


Ask = Callable[..., list[list[Generated]]]


@pytest.fixture
def ask(tiny_text_model: Path) -> Ask:
    """Asks for one response; pauses between attempts are skipped."""
    modality = load_object("mmalign_text.modality:TextModality")(model=str(tiny_text_model))
    network = modality.load(device=torch.device("cpu"), dtype=torch.float32).network.eval()

    def generate(
        url: str, record: Record | None = None, prompts: str = "tokens", **requests: Any
    ) -> list[list[Generated]]:
        settings = RequestConfig(**({"retries": 3, "backoff": 0.0} | requests))
        engine = load_object("mmalign_engines.openai:OpenAIEngine")(
            model="tiny", base_url=url, prompts=prompts, requests=settings
        )
        result: list[list[Generated]] = engine.generate(
            modality, network, [record or Record.from_text("What is six times seven?")], Decoding(), 1
        )
        return result

    return generate


@pytest.mark.parametrize("failure", [(500, "busy"), (503, ""), (429, "slow down"), (200, "<html>"), None])
def test_a_failure_that_passes_is_tried_again(ask: Ask, server: FailingServer, failure: Answer | None) -> None:
    server.script = [failure, failure, (200, GOOD)]
    assert ask(server.url)[0][0].response.text == "42"
    assert server.asked == 3


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ((500, "out of memory"), "HTTP 500: 'out of memory' (tried 3 times)"),
        ((200, "<html>"), "expected JSON, got '<html>' (tried 3 times)"),
        (None, "no connection: RemoteProtocolError"),
    ],
)
def test_a_failure_that_stays_is_one_error(
    ask: Ask, server: FailingServer, failure: Answer | None, expected: str
) -> None:
    server.script = [failure]
    with pytest.raises(TrainingError) as caught:
        ask(server.url, retries=2)
    message = str(caught.value)
    assert message.startswith(f"engine.base_url: {server.url}/completions: ") and expected in message
    assert server.asked == 3


@pytest.mark.parametrize(("status", "text"), [(404, "no model 'tiny'"), (401, "wrong key"), (422, "unknown field")])
def test_a_refusal_is_not_tried_again(ask: Ask, server: FailingServer, status: int, text: str) -> None:
    server.script = [(status, text)]
    with pytest.raises(TrainingError, match=re.escape(f"HTTP {status}: {text!r}; is the server running")):
        ask(server.url)
    assert server.asked == 1


@pytest.mark.parametrize("answer", ["{}", '{"choices": []}', "[]", "7", '{"choices": [{"text": null}]}'])
def test_an_answer_without_a_response_is_shown(ask: Ask, server: FailingServer, answer: str) -> None:
    server.script = [(200, answer)]
    with pytest.raises(TrainingError, match=r"expected an answer with choices\[0\]"):
        ask(server.url)


def test_a_server_that_is_down_is_named(ask: Ask) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(
        TrainingError, match=r"no connection: ConnectError: .* \(tried 2 times\); is the server running"
    ):
        ask(url, retries=1)


def test_a_server_that_hangs_is_given_up(ask: Ask, server: FailingServer) -> None:
    server.script, server.delay = [(200, GOOD)], 1.0
    with pytest.raises(TrainingError, match=r"no answer within 0\.1 s \(tried 1 times\)"):
        ask(server.url, timeout=0.1, retries=0)


def test_an_image_that_the_policy_cannot_read_is_not_asked_about(ask: Ask, server: FailingServer) -> None:
    prompt = [{"role": "user", "content": [{"type": "image", "media": "m"}]}]
    media = [{"mid": "m", "type": "image", "uri": "cat.png"}]
    record = Record.from_dict({"id": "cat", "prompt": prompt, "media": media})
    with pytest.raises(
        DataError, match="record 'cat': a part of this user message is of type image; text is read here"
    ):
        ask(server.url, record, prompts="chat")
