"""Posting JSON: redirects, addresses, and answers in unexpected encodings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from scoring_server import Answer, ScoringServer

from mmalign.json_requests import JsonPoster, RequestConfig, RequestFailed, Url

ONCE = RequestConfig(retries=0)


def post(server: ScoringServer, requests: RequestConfig = ONCE) -> Any:
    return JsonPoster(server.url, None, requests, "rewards.http").post_all([{"n": 1}])[0]


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_request_and_the_server_is_followed(
    status: int, scoring_server: ScoringServer
) -> None:
    def behave(payload: dict[str, Any], earlier: int) -> Answer:
        return Answer({"scores": [0.5]}) if earlier else Answer(status=status, headers={"Location": "/score/"})

    scoring_server.behave = behave
    assert post(scoring_server) == {"scores": [0.5]}
    assert scoring_server.requests == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_request_names_where_it_points(
    status: int, scoring_server: ScoringServer
) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(
        status=status, headers={"Location": "/score/?key=verysecret"}
    )
    failure = post(scoring_server)
    assert str(failure).startswith(f"HTTP {status}: the server points to http://127.0.0.1:")
    assert "/score/; set the address to it" in str(failure) and "verysecret" not in str(failure)
    assert len(scoring_server.requests) == 1


@pytest.mark.parametrize("target", ["http://localhost:1/x", "https://127.0.0.1/x", "http://127.0.0.2/x"])
def test_nothing_is_sent_to_a_server_that_was_not_named(target: str, scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(status=307, headers={"Location": target})
    assert f"the server points to {target}" in str(post(scoring_server))


def test_redirects_in_a_circle_end(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(status=307, headers={"Location": "/again"})
    assert "HTTP 307" in str(post(scoring_server))
    assert len(scoring_server.requests) == 6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_json_says_itself_how_it_is_encoded(encoding: str, scoring_server: ScoringServer) -> None:
    body = '{"scores": ["é"]}'.encode(encoding)
    headers = {"Content-Type": "application/json; charset=utf-16"}
    scoring_server.behave = lambda payload, earlier: Answer(body, headers=headers)
    assert post(scoring_server) == {"scores": ["é"]}


def test_an_answer_nested_without_end_is_a_failure(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(b"[" * 100_000)
    assert isinstance(post(scoring_server), RequestFailed)


def test_a_failure_has_the_status_of_the_answer(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(status=422)
    assert post(scoring_server).status == 422
    scoring_server.behave = lambda payload, earlier: Answer(status=503)
    assert post(scoring_server, RequestConfig(retries=1, backoff=0)).status == 503


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/", "expected http://... or https://..., got 'ftp://host/'"),
        ("http://", "expected http://... or https://..."),
        ("http:///score", "expected http://... or https://..."),
        ("http://a b/", "expected http://... or https://..."),
        ("http://[::1/", "no address, Invalid IPv6 URL"),
        ("http://host:99999/", "no address, Port out of range"),
        ("http://host:port/", "no address, Port could not be cast"),
        ("http://me:word@host/", "holds a password"),
    ],
)
def test_a_malformed_address_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Url).validate_python(f"{url}?key=verysecret")
    (error,) = caught.value.errors()
    assert message in error["msg"] and "verysecret" not in error["msg"] and "word" not in error["msg"].split()


@pytest.mark.parametrize("url", ["http://[::1]:8000/v1", "https://host", "http://10.0.0.1:8/v1?key=a"])
def test_an_address(url: str) -> None:
    assert TypeAdapter(Url).validate_python(url) == url
