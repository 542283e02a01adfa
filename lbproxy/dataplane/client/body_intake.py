"""The body of one request while it is read: its framing, how fast it comes, and in pieces of which size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lbproxy.dataplane.client.upload_rate import UploadRate
from lbproxy.dataplane.net import bulk
from lbproxy.protocol.body import ChunkedReader, LengthReader


class BodyIntake:
    """See the module. rate: None where none is asked for."""

    __slots__ = ("_bulk", "_rate", "reader")

    def __init__(self, reader: LengthReader | ChunkedReader, rate: UploadRate | None) -> None:
        self.reader = reader
        self._rate = rate
        self._bulk: bulk.BulkReader | None = None

    # --- how fast it comes ------------------------------------------------------------------------------------------

    def stop(self, now: float) -> None:
        """lbproxy reads no more of it for now."""
        if self._rate is not None:
            self._rate.stop(now)

    def go(self, now: float) -> None:
        """lbproxy reads again, or has sent 100 Continue."""
        if self._rate is not None:
            self._rate.go(now)

    def is_too_slow(self, n_bytes: int, now: float) -> bool:
        """Have these bytes of it, all so far, taken too long?"""
        return self._rate is not None and self._rate.is_too_slow(n_bytes, now)

    # --- in large pieces --------------------------------------------------------------------------------------------

    def grow(self, owner: bulk.Owner, sink: Callable[[], asyncio.Transport | None]) -> None:
        """Much of it came at once: read the rest in large pieces, if enough is left. owner: whose connection it is."""
        if self._bulk is None and bulk.is_much_left(self.reader):
            self._bulk = bulk.BulkReader(owner, sink)

    def end_bulk(self) -> None:
        """The owner reads for itself again."""
        if self._bulk is not None:
            self._bulk.end()
            self._bulk = None
