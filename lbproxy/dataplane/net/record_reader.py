"""Reading many TLS records at once, in a bounded buffer.

A loop reads up to 250 KB at once into a Protocol, as bytes of its own. For small messages that is the cheapest way; of
a stream of full records it would mean one copy more, and that much kept for every connection whose application pauses.
So once a read of a TlsTransport is large, the raw transport is given to a RecordReader until a read is small again.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from lbproxy.dataplane.net import stand_in
from lbproxy.dataplane.net.stand_in import StandIn

SIZE: Final = 64 * 1024
_LITTLE: Final = 4 * 1024  # a read of so little is not followed by another at once
# All of them read into this: what was read is handed on before the loop reads again.
_BUFFER: Final = memoryview(bytearray(SIZE))


class Owner(stand_in.Owner, Protocol):
    """The TlsTransport."""

    def records_received(self, data: memoryview) -> None: ...


class RecordReader(StandIn):
    """Stands in for its owner, which is an asyncio.Protocol, as the protocol of its raw transport."""

    __slots__ = ("_owner", "_raw")

    def __init__(self, owner: Owner, raw: asyncio.Transport) -> None:
        super().__init__(owner)
        self._owner = owner
        self._raw = raw

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes < _LITTLE and not self._raw.is_closing():
            self._raw.set_protocol(self._owner)  # type: ignore[arg-type]
        self._owner.records_received(_BUFFER[:nbytes])
