"""A real answer that is held back while a better one is sought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.dataplane.net.pieces import add_piece
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field

KEEP_BYTES: Final = 64 * 1024  # of an answer that may be retried


class KeptAnswer:
    """Its head, and what has come of its body so far. size: bytes of the body."""

    __slots__ = ("_pieces", "head", "size", "trailers")

    def __init__(self, head: ResponseHead, body: bytes, trailers: Sequence[Field]) -> None:
        self.head = head
        self.trailers = trailers
        self.size = len(body)
        self._pieces = [body]

    @property
    def is_too_long(self) -> bool:
        """Is it more than may be held?"""
        return self.size > KEEP_BYTES

    def add(self, data: bytes, trailers: Sequence[Field]) -> None:
        """More of the body; trailers come with its end."""
        if data:
            add_piece(self._pieces, data)
            self.size += len(data)
        self.trailers = trailers

    def body(self) -> bytes:
        """All that has come."""
        return b"".join(self._pieces)
