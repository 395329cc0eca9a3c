"""Posts JSON to a server and tries again where that can help; whatever goes wrong in the end is one readable error."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mmalign import TrainingError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be gone at the next attempt; any other one is a mistake in the request."""

FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each pause is twice the one before."""


class _PassingFailure(Exception):
    """A failure that another attempt may mend."""


@dataclass(frozen=True)
class JsonClient:
    """A client of one server.

    Attributes:
        base_url: e.g. `http://localhost:8000/v1`.
        api_key: sent as a bearer token; empty sends none. Never part of a message or a representation.
        timeout: seconds without an answer after which an attempt has failed.
        retries: attempts after the first one.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    timeout: float = 120.0
    retries: int = 3

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Posts `body` and returns the answer, decoded.

        Raises:
            TrainingError: the server refused the request, or the last attempt failed, too.
        """
        url = f"{self.base_url.rstrip('/')}/{path}"
        pause = FIRST_PAUSE
        for attempt in range(self.retries + 1):
            try:
                return self._post_once(url, body)
            except _PassingFailure as failure:
                if attempt == self.retries:
                    raise TrainingError(
                        f"engine.base_url: {url}: {failure}, in {self.retries + 1} attempts; "
                        "is the server running, and is engine.timeout long enough?"
                    ) from None
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def _post_once(self, url: str, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
        try:
            with urlopen(request, timeout=self.timeout) as answer:
                raw = answer.read()
        except HTTPError as error:
            shown = error.read().decode("utf-8", errors="replace")[:300]
            if error.code in PASSING:
                raise _PassingFailure(f"HTTP {error.code}: {shown}") from None
            raise TrainingError(f"engine.base_url: {url}: the server refused, HTTP {error.code}: {shown}") from None
        except TimeoutError:
            raise _PassingFailure(f"no answer within {self.timeout:g} s") from None
        except (OSError, HTTPException) as error:
            raise _PassingFailure(f"no answer: {getattr(error, 'reason', error)}") from None
        try:
            return json.loads(raw)
        except ValueError:
            raise _PassingFailure(f"the answer is not JSON: {raw[:80]!r}") from None
