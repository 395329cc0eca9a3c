"""Many JSON requests to a server at once: limits, time-outs, retries. For rewards and engines behind a server.

Too many requests (429), server errors (5xx), time-outs, lost connections and answers that are no JSON (a proxy's page)
are tried again, after a pause that doubles each time and is shortened by chance, so that many clients do not come back
together. Other failures would only repeat.

A redirect is followed if it keeps the request and the server (307 or 308 to the same host and port, or from http to
https of one host); any other is a failure that names where it points to, since neither texts nor keys go to a server
that the configuration does not name.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from mmalign.addresses import show_address
from mmalign.contract.specs import Parameters
from mmalign.errors import ConfigError
from mmalign.masking import remember_secret

if TYPE_CHECKING:
    import httpx2

LONGEST_PAUSE = 60.0
"""Seconds; no pause before a retry is longer, whatever the server asks for."""

_SHOWN = 120  # characters of an answer that a message quotes


_REDIRECTS = 5


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        # `port` raises for what is no port.
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"no address, {error}: {show_address(url)!r}") from None
    if not usable or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise ValueError(f"expected http://... or https://..., got {show_address(url)!r}")
    if "@" in parts.netloc:
        raise ValueError("holds a password, which would be written to the run's folder; use api_key_env")
    return url


Url = Annotated[str, AfterValidator(_check_url)]


class RequestConfig(Parameters):
    """How requests are made."""

    concurrency: int = Field(default=8, ge=1)
    """Requests that are under way at a time."""
    per_second: float | None = Field(default=None, gt=0)
    """Requests that are started in a second, retries included; null for no limit."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds an answer may take."""
    retries: int = Field(default=4, ge=0)
    """How often a request is tried again."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the first retry, at most; doubles with each."""


class RequestFailed(Exception):
    """A request without a usable answer.

    Attributes:
        status: HTTP status of the answer; None if there was none, or if it was not the status that was wrong.
    """

    status: int | None = None


class JsonPoster:
    """Posts JSON to one address.

    Args:
        url: the address.
        api_key_env: the environment variable that holds the key, sent as a bearer token; None sends none.
        requests: limits and retries.
        where: key path of the component, for errors.

    Raises:
        ConfigError: the environment variable is not set.
    """

    def __init__(self, url: str, api_key_env: str | None, requests: RequestConfig, where: str) -> None:
        self.url = url
        self.requests = requests
        self._key = read_key(api_key_env, where)
        # A generator of its own: chance here must not shift that of training.
        self._random = random.Random()
        self._next_start = 0.0

    def post_all(self, payloads: Sequence[Mapping[str, Any]], *, stop_at_failure: bool = False) -> list[Any]:
        """Posts every payload.

        Args:
            stop_at_failure: raise the first failure and make no more requests, where one missing answer spoils all.

        Returns:
            for each payload the decoded answer, or the `RequestFailed` that says why there is none.

        Raises:
            RequestFailed: a request failed for good, if `stop_at_failure`.
        """
        # A thread of its own: a notebook already runs an event loop in the caller's.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(asyncio.run, self._post_all(payloads, stop_at_failure)).result()

    async def _post_all(self, payloads: Sequence[Mapping[str, Any]], stop_at_failure: bool) -> list[Any]:
        import httpx2

        gate = asyncio.Semaphore(self.requests.concurrency)
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connections = httpx2.Limits(max_connections=self.requests.concurrency)
        async with httpx2.AsyncClient(headers=headers, timeout=self.requests.timeout, limits=connections) as client:
            post = self._post_or_raise if stop_at_failure else self._post
            return await asyncio.gather(*(post(client, gate, payload) for payload in payloads))

    async def _post_or_raise(
        self, client: httpx2.AsyncClient, gate: asyncio.Semaphore, payload: Mapping[str, Any]
    ) -> Any:
        answer = await self._post(client, gate, payload)
        if isinstance(answer, RequestFailed):
            raise answer
        return answer

    async def _post(self, client: httpx2.AsyncClient, gate: asyncio.Semaphore, payload: Mapping[str, Any]) -> Any:
        for attempt in range(self.requests.retries + 1):
            async with gate:
                answer, pause = await self._try(client, payload)
            if pause is None:
                return answer
            if attempt < self.requests.retries:
                chosen = self.requests.backoff * 2**attempt * self._random.uniform(0.5, 1.0)
                await asyncio.sleep(min(max(chosen, pause), LONGEST_PAUSE))
        failure = RequestFailed(f"{answer} (tried {self.requests.retries + 1} times)")
        failure.status = answer.status
        return failure

    async def _try(self, client: httpx2.AsyncClient, payload: Mapping[str, Any]) -> tuple[Any, float | None]:
        """Makes one request: (answer or exception, None), or (exception, shortest pause in seconds) to try again."""
        import httpx2

        await self._wait_for_turn()
        try:
            # In ASCII: half a surrogate pair, which models do write, has no UTF-8.
            response = await asyncio.wait_for(self._send(client, json.dumps(payload)), self.requests.timeout)
        except (asyncio.TimeoutError, httpx2.TimeoutException):
            return RequestFailed(f"no answer within {self.requests.timeout:g} s"), 0.0
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            return RequestFailed(f"{show_address(self.url)!r} is no address: {error}"), None
        except (httpx2.RequestError, OSError) as error:
            return RequestFailed(f"no connection: {type(error).__name__}: {error}"), 0.0
        if response.is_success:
            answer = self._decode(response)
            return answer, 0.0 if isinstance(answer, RequestFailed) else None
        failure = RequestFailed(f"HTTP {response.status_code}: {self._explain(response)}")
        failure.status = response.status_code
        again = response.status_code in (408, 429) or response.is_server_error
        return failure, _asked_pause(response) if again else None

    async def _send(self, client: httpx2.AsyncClient, content: str) -> httpx2.Response:
        """Posts, and follows redirects that keep request and server."""
        import httpx2

        url = httpx2.URL(self.url)
        response = await client.post(url, content=content)
        for _ in range(_REDIRECTS):
            target = _redirect_target(response, url)
            if target is None or response.status_code not in (307, 308) or not _is_same_server(url, target):
                break
            url = target
            response = await client.post(url, content=content)
        return response

    def _explain(self, response: httpx2.Response) -> str:
        target = _redirect_target(response, response.url)
        if target is None:
            return self._quote(response)
        return f"the server points to {show_address(self._hide(str(target)))}; set the address to it if you trust it"

    async def _wait_for_turn(self) -> None:
        if self.requests.per_second is None:
            return
        start = max(time.monotonic(), self._next_start)
        self._next_start = start + 1 / self.requests.per_second
        await asyncio.sleep(start - time.monotonic())

    def _decode(self, response: httpx2.Response) -> Any:
        content = response.content
        try:
            # JSON says by its first bytes how it is encoded; what the header says is often wrong.
            return json.loads(self._hide(content.decode(json.detect_encoding(content))))
        except (ValueError, RecursionError):
            return RequestFailed(f"expected JSON, got {self._quote(response)}")

    def _quote(self, response: httpx2.Response) -> str:
        text = " ".join(self._hide(response.text).split())
        return repr(text[:_SHOWN]) if text else "nothing"

    def _hide(self, text: str) -> str:
        """Takes the key out of what a server says: some send it back, and no log may hold it."""
        return text.replace(self._key, "***") if self._key else text


def read_key(variable: str | None, where: str) -> str | None:
    """Reads a secret from the environment; raises ConfigError if it is named but not set."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"{where}.api_key_env: the environment variable {variable!r} is not set")
    remember_secret(key)
    return key


def _redirect_target(response: httpx2.Response, url: httpx2.URL) -> httpx2.URL | None:
    return url.join(response.headers["Location"]) if response.has_redirect_location else None


def _is_same_server(url: httpx2.URL, other: httpx2.URL) -> bool:
    if url.host != other.host:
        return False
    upgraded = (url.scheme, other.scheme) == ("http", "https") and url.port is None and other.port is None
    return upgraded or (url.scheme, url.port) == (other.scheme, other.port)


def _asked_pause(response: httpx2.Response) -> float:
    """Reads `Retry-After` in seconds; its other form, a date, counts as no wish."""
    value = response.headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else 0.0
