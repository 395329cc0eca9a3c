"""Media from other machines: http and https, only where it is allowed, never from inside a network unless named."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mmalign.errors import MediaError
from mmalign.media.addresses import resolve_public

if TYPE_CHECKING:
    import httpx2

    from mmalign.media.limits import MediaLimits

_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


def fetch(url: str, limits: MediaLimits) -> bytes:
    """Fetches at most one byte more than `limits.size`; every host on the way is checked.

    Proxies of the environment are not used: they would resolve names themselves.

    Raises:
        MediaError: it is not allowed, nothing is there, or it takes too long; the message holds no query of an address.
    """
    if not limits.remote:
        raise MediaError("on another machine; save it beside the data, or set data.allow_remote_media: true")
    import httpx2

    deadline = time.monotonic() + limits.timeout
    try:
        with httpx2.Client(timeout=limits.timeout, trust_env=False) as client:
            return _follow(client, httpx2.URL(url), limits, deadline)
    except httpx2.InvalidURL as error:
        raise MediaError(f"not an address: {error}") from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise MediaError(f"cannot be fetched: {type(error).__name__}: {error}") from None


def _follow(client: httpx2.Client, url: httpx2.URL, limits: MediaLimits, deadline: float) -> bytes:
    for _ in range(_REDIRECTS + 1):
        response = client.send(_build_request(client, url, limits), stream=True)
        try:
            if not response.has_redirect_location:
                return _receive(response, limits, deadline)
            url = url.join(response.headers["Location"])
        finally:
            response.close()
    raise MediaError(f"cannot be fetched: more than {_REDIRECTS} redirects")


def _build_request(client: httpx2.Client, url: httpx2.URL, limits: MediaLimits) -> httpx2.Request:
    """Builds a request to the checked address of a host, under the host's name."""
    if url.scheme not in _PORTS or not url.host:
        raise MediaError(f"cannot be fetched: redirected to {url.scheme}://, expected http:// or https://")
    address = resolve_public(url.host, url.port or _PORTS[url.scheme], limits.private_hosts)
    # A compressed answer could unpack to more than the limit before it is counted.
    headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"}
    extensions = {"sni_hostname": url.host}
    return client.build_request("GET", url.copy_with(host=address), headers=headers, extensions=extensions)


def _receive(response: httpx2.Response, limits: MediaLimits, deadline: float) -> bytes:
    if not response.is_success:
        raise MediaError(f"cannot be fetched: HTTP {response.status_code}")
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > limits.size:
            break
        if time.monotonic() > deadline:
            raise MediaError(f"cannot be fetched: not done within {limits.timeout:g} s")
    return bytes(content)
