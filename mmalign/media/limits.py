"""Which media of records are accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MediaLevel = Literal["header", "full", "off"]
"""How media are checked when the data are read: by what a file says of itself, by decoding it, or not at all."""

LARGEST_PIXELS = 178_956_970
"""Pixels above which Pillow itself refuses."""


@dataclass(frozen=True)
class MediaLimits:
    """What is accepted.

    Attributes:
        pixels: width times height.
        size: bytes of the file.
        remote: True if http and https may be fetched.
        timeout: seconds that fetching one file may take.
        samples: of a sound, over all channels.
        private_hosts: hosts with a private or loopback address that may be fetched from, by the name in the address.
    """

    pixels: int = 64_000_000
    size: int = 64 * 2**20
    remote: bool = False
    timeout: float = 30.0
    samples: int = 250_000_000
    private_hosts: tuple[str, ...] = ()


DEFAULT_LIMITS = MediaLimits()
