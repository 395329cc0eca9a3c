"""A real HTTP server on this machine that answers as a test tells it to: late, wrongly, or not at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server does with a request.

    Attributes:
        body: sent as JSON, or as it is if it is bytes.
        delay: seconds before the answer.
        drop: close the connection instead.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False


def score_lengths(payload: dict[str, Any], earlier: int) -> Answer:
    """Answers as a scoring server does: every response is worth its length."""
    return Answer({"scores": [len(response) for response in payload["responses"]]})


class ScoringServer:
    """Serves until closed.

    Attributes:
        behave: from a request's JSON and the number of equal requests before it to an answer.
        requests: the JSON of every request so far.
        headers: of every request so far.
        most: requests that were under way at the same time.
    """

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, Any], int], Answer] = score_lengths
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = server._receive(payload, dict(self.headers))
                time.sleep(answer.delay)
                server._leave()
                if answer.drop:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Says nothing."""

        return Handler

    def _receive(self, payload: dict[str, Any], headers: dict[str, str]) -> Answer:
        with self._lock:
            earlier = self.requests.count(payload)
            self.requests.append(payload)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
        return self.behave(payload, earlier)

    def _leave(self) -> None:
        with self._lock:
            self._now -= 1


def use(server: ScoringServer, **keys: Any) -> dict[str, Any]:
    """The configuration of a reward that asks the server, one response a request and once only."""
    return {"name": "http", "url": server.url, "batch_size": 1, "requests": {"retries": 0}, **keys}
