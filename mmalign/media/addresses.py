"""Which machines media may be fetched from: those of the public internet, and private ones that are named.

A name is resolved once, its addresses are checked, and the connection goes to one that was checked: a name that has
another address a moment later reaches nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from mmalign.errors import MediaError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve_public(host: str, port: int, private_hosts: Collection[str]) -> str:
    """Resolves a host and returns the address to connect to.

    Args:
        host: a name, or an address in any notation that the system's resolver reads (`2130706433`, `0x7f.1`).
        private_hosts: names of hosts that may have any address.

    Raises:
        MediaError: there is no such host, or one of its addresses is private, loopback, link-local or reserved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaError(f"cannot be fetched: no address of {host!r}: {error}") from None
    addresses = [str(row[4][0]) for row in found]
    if not addresses:
        raise MediaError(f"cannot be fetched: no address of {host!r}")
    if host.lower() not in {one.lower().strip("[]") for one in private_hosts}:
        for address in addresses:
            if not is_public(address):
                raise MediaError(
                    f"{host!r} is {address}, an address inside a network or this machine; such hosts have to be named "
                    "in data.private_media_hosts"
                )
    return addresses[0]


def is_public(address: str) -> bool:
    """Returns whether an address belongs to the public internet, also where IPv6 carries an IPv4 address.

    >>> is_public("8.8.8.8"), is_public("169.254.169.254"), is_public("::ffff:127.0.0.1")
    (True, False, False)
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = _embedded(parsed) if isinstance(parsed, IPv6Address) else None
    return _is_public(parsed) if inner is None else _is_public(inner)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
