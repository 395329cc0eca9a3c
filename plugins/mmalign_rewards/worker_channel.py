"""Whole messages between the run and a worker, over a socket; half a message never keeps the run waiting."""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("!Q")
LARGEST_ANSWER = 16 * 2**20
"""Bytes; a larger answer is no row of scores."""


class Channel:
    """The run's end of a socket pair.

    Args:
        end: a connected stream socket, which belongs to the channel from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()

    def fileno(self) -> int:
        """The descriptor, for waiting until there is something to read."""
        return self._socket.fileno()

    def send(self, content: bytes, seconds: float | None) -> None:
        """Sends a message; raises OSError if the other end is gone, TimeoutError if it does not read it in time."""
        self._socket.settimeout(seconds)
        self._socket.sendall(_HEADER.pack(len(content)) + content)

    def receive_part(self) -> bytes | None:
        """Takes what has arrived; returns a message once it is whole.

        Raises:
            EOFError: the other end is gone.
            ValueError: the message is larger than an answer can be.
        """
        self._socket.setblocking(False)
        try:
            part = self._socket.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not part:
            raise EOFError
        self._buffer += part
        if len(self._buffer) < _HEADER.size:
            return None
        (size,) = _HEADER.unpack_from(self._buffer)
        if size > LARGEST_ANSWER:
            raise ValueError(f"its answer has more than {LARGEST_ANSWER:,} bytes")
        end = _HEADER.size + size
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return message

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def receive_whole(end: socket.socket) -> bytes:
    """Waits for a message; raises EOFError if the other end is gone."""
    (size,) = _HEADER.unpack(_receive_exactly(end, _HEADER.size))
    return _receive_exactly(end, size)


def _receive_exactly(end: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = end.recv(min(1 << 20, size - len(content)))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def send_whole(end: socket.socket, content: bytes) -> None:
    """Sends a message, however long it takes."""
    end.sendall(_HEADER.pack(len(content)) + content)
