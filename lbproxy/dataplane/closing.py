"""A transport that is closed before the kernel has taken all that was written to it.

Its protocol is done and no longer swept, so somebody else must see that the rest leaves: that a stop waits for it, that
it is counted as buffered, and that a peer that takes nothing does not keep the connection for ever.
"""

from __future__ import annotations

from lbproxy.dataplane.services import Services, abort
from lbproxy.dataplane.tls_transport import StreamTransport


class Closing:
    """Swept (services.Swept) until the rest has left; reset after `write_s` seconds without progress."""

    __slots__ = ("_services", "_since", "_transport", "_unsent", "_write_s")

    def __init__(self, services: Services, transport: StreamTransport, write_s: float) -> None:
        self._services = services
        self._transport = transport
        self._write_s = write_s
        self._unsent = transport.get_write_buffer_size()
        self._since = services.clock()
        services.swept.add(self)

    def sweep(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if not unsent:
            self._services.swept.discard(self)
        elif unsent != self._unsent:
            self._unsent = unsent
            self._since = now
        elif now - self._since >= self._write_s:
            self._end()

    def buffered_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def begin_drain(self, now: float) -> None:
        """It is on its way out already."""

    def shut_down(self) -> None:
        """The grace period is over."""
        if self._transport.get_write_buffer_size():
            self._services.n_cut += 1
        self._end()

    def _end(self) -> None:
        self._services.swept.discard(self)
        abort(self._transport)


def close(services: Services, transport: StreamTransport, write_s: float) -> None:
    """Close it, and see to what is left."""
    transport.close()
    if transport.get_write_buffer_size():
        Closing(services, transport, write_s)
