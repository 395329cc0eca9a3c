"""Web addresses in messages: the part that holds no secret."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"([^:/?#]*://)([^/?#]*)([^?#]*)")


def show_address(url: str) -> str:
    """Words an address, malformed or not, without user, password, query and fragment.

    >>> show_address("https://me:word@host:8000/a/b?key=secret#c")
    'https://host:8000/a/b'
    """
    found = _ADDRESS.match(url)
    return f"{found[1]}{found[2].rpartition('@')[2]}{found[3]}" if found else url
