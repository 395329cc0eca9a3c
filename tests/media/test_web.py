"""Which machines media are fetched from, after every redirect, and what a malformed address gets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from mmalign import MediaError
from mmalign.media.addresses import is_public, resolve_public
from mmalign.media.limits import MediaLimits
from mmalign.media.web import fetch

NAMED = MediaLimits(remote=True, timeout=2, private_hosts=("127.0.0.1",))


class Web(BaseHTTPRequestHandler):
    """Redirects to what the path names, or answers with its `Host` header."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        target = "/loop" if self.path == "/loop" else self.path.partition("?to=")[2]
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.end_headers()
        self.wfile.write(str(self.headers["Host"]).encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    Web.asked.clear()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_an_address_inside_a_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "127.1", "0", "017700000001", "::1"]
)
def test_this_machine_has_to_be_named_in_whatever_notation(host: str) -> None:
    with pytest.raises(MediaError, match=r"have to be named in data\.private_media_hosts"):
        resolve_public(host, 80, ())
    assert resolve_public(host, 80, (host,))


def test_a_named_host_is_fetched_under_its_own_name(port: int) -> None:
    limits = MediaLimits(remote=True, private_hosts=("localhost",))
    assert fetch(f"http://localhost:{port}/a?b=c", limits) == f"localhost:{port}".encode()
    assert Web.asked == ["/a?b=c"]


def test_nothing_is_asked_of_a_host_that_is_not_named(port: int) -> None:
    with pytest.raises(MediaError, match=r"'localhost' is (127\.0\.0\.1|::1), an address inside a network"):
        fetch(f"http://localhost:{port}/", NAMED)
    assert Web.asked == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_redirect_to_another_host_inside_is_refused(port: int, host: str) -> None:
    with pytest.raises(MediaError, match=r"have to be named"):
        fetch(f"http://127.0.0.1:{port}/?to=http://{host}:{port}/secret", NAMED)
    assert [one for one in Web.asked if one == "/secret"] == []


def test_redirects_on_a_named_host_are_followed_but_not_for_ever(port: int) -> None:
    assert fetch(f"http://127.0.0.1:{port}/?to=/there", NAMED)
    with pytest.raises(MediaError, match="more than 5 redirects"):
        fetch(f"http://127.0.0.1:{port}/?to=/loop", NAMED)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(port: int, target: str) -> None:
    with pytest.raises(MediaError, match="expected http:// or https://"):
        fetch(f"http://127.0.0.1:{port}/?to={target}", NAMED)


def test_a_name_that_changes_its_address_reaches_nothing(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer of the name server is public, every later one is this machine."""
    asked: list[str] = []

    def resolve(host: str, number: int, *rest: Any, **more: Any) -> list[Any]:
        asked.append(host)
        address = "192.0.2.1" if host != "rebound.example" else "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, number))]

    connected: list[str] = []

    def connect(address: tuple[str, int], *rest: Any, **more: Any) -> socket.socket:
        connected.append(address[0])
        raise OSError("no route")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(MediaError, match="cannot be fetched"):
        fetch(f"http://rebound.example:{port}/", MediaLimits(remote=True))
    assert connected == ["8.8.8.8"]


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://h:99999/",
        "http://h:x/",
        "http:///a",
        "http://",
        "http://a b/",
        "http://\u2028/",
        "http://[v1.x]/",
    ],
)
def test_a_malformed_address_is_one_message(url: str) -> None:
    with pytest.raises(MediaError):
        fetch(url, NAMED)
