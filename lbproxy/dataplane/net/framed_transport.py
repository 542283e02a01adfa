"""A stream among others on a connection, as the transport of a tunnel.

What a tunnel joins (exchange/relay.py) are transports: it pauses and resumes them, ends their directions, and is told
when they take no more. Here that means frames: a pause holds back the credit of this stream and of no other, the end of
a direction is the last frame of that side, an abort is a reset of the stream. The connection, which others use, stays.

    reading   on       what comes goes to the receiver, and its credit back
              paused   is kept, in the order in which it came, its end included; at most a window of it
    writing   what windows and socket do not take waits with the stream, which says when it is gone (`emptied`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from lbproxy.compiling import mypyc_attr, trait
from lbproxy.dataplane.net.socket_transport import Receiver, SocketTransport
from lbproxy.dataplane.net.tls_transport import TlsTransport
from lbproxy.dataplane.net.unsent import Data

HIGH_WATER: Final = 64 * 1024


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class Carried:
    """A stream, as its transport knows it."""

    __slots__ = ()

    def send(self, data: bytes, *, is_end: bool) -> None:
        """Send it behind what waits already. is_end: nothing follows."""
        raise NotImplementedError

    def taken_back(self, n_flow: int) -> None:
        """So many octets of the stream's window are free again."""
        raise NotImplementedError

    def unsent_size(self) -> int:
        """What waits to be sent; an end that does counts as one octet."""
        raise NotImplementedError

    def sent_size(self) -> int:
        """Octets that were sent so far."""
        raise NotImplementedError

    def let_go_of_stream(self, *, is_abort: bool) -> None:
        """The transport is over, and knows the stream no more. is_abort: the peer must see that it was cut."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class FramedTransport(asyncio.Transport):
    """See the module. n_kept: octets that came and were not passed on yet."""

    __slots__ = (
        "_carried",
        "_defect",
        "_has_eof",
        "_high",
        "_is_blocked",
        "_is_reading",
        "_is_writing_ended",
        "_kept",
        "_loop",
        "_n_owed",
        "_receiver",
        "n_kept",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, carried: Carried, defect: Callable[[str, BaseException], None]
    ) -> None:
        """defect: who is told of exceptions that should not be (Services.internal_error)."""
        self._loop = loop
        self._carried: Carried | None = carried  # None: it is over
        self._defect = defect
        self._receiver: Receiver | None = None
        self._kept: list[tuple[bytes, int, bool]] = []
        self._n_owed = 0  # octets of the window for what was passed on while its receiver took no more
        self._is_reading = True
        self._is_blocked = False  # the receiver was told so
        self._is_writing_ended = False
        self._has_eof = False
        self._high = HIGH_WATER
        self.n_kept = 0

    # --- what the stream says ---------------------------------------------------------------------------------------

    def received(self, data: bytes, n_flow: int, *, is_end: bool) -> None:
        """Octets of the peer, and how many of the window they took; `is_end`: its direction is over."""
        if self._carried is None:
            return
        if self._is_reading and not self._kept and self._receiver is not None:
            self._deliver(data, n_flow, is_end=is_end)
            return
        if self._kept and len(data) + len(self._kept[-1][0]) < HIGH_WATER:  # else each octet would be an object
            before, n_before, _ = self._kept.pop()
            self._kept.append((before + data, n_before + n_flow, is_end))
        else:
            self._kept.append((data, n_flow, is_end))
        self.n_kept += len(data)

    def _deliver(self, data: bytes, n_flow: int, *, is_end: bool) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        if data:
            receiver.data_received(data)
        carried = self._carried
        if carried is None:
            return
        if not self._is_reading:
            self._n_owed += n_flow
        elif n_flow:
            carried.taken_back(n_flow)
        if is_end and not self._has_eof:
            self._has_eof = True
            receiver.eof_received()

    def lost(self, error: Exception) -> None:
        """The peer has reset the stream, or its connection is gone."""
        receiver = self._receiver
        self._over()
        if receiver is not None:
            receiver.connection_lost(error)

    def emptied(self) -> None:
        """All that waited was sent."""
        if self._is_blocked:
            self._is_blocked = False
            if self._receiver is not None:
                self._receiver.resume_writing()

    # --- reading ----------------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._receiver = cast(Receiver, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._receiver is not None
        return self._receiver

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if self._is_reading or self._carried is None:
            return
        self._is_reading = True
        owed, self._n_owed = self._n_owed, 0
        if owed:
            self._carried.taken_back(owed)
        if self._kept:
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        try:
            while self._kept and self._is_reading and self._receiver is not None:
                data, n_flow, is_end = self._kept.pop(0)
                self.n_kept -= len(data)
                self._deliver(data, n_flow, is_end=is_end)
        except Exception as error:  # a defect: confined to this tunnel
            self._defect("tunnel", error)
            receiver = self._receiver
            self.abort()
            if receiver is not None:
                receiver.connection_lost(error)

    def watch_end(self, on_fin: Callable[[], None] | None) -> None:
        """A reset is seen in any case, as the connection is read whatever one of its streams does."""

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: Data) -> None:
        carried = self._carried
        if carried is None or self._is_writing_ended:
            return
        carried.send(data if isinstance(data, bytes) else bytes(data), is_end=False)
        if not self._is_blocked and self._receiver is not None and carried.unsent_size() > self._high:
            self._is_blocked = True
            self._receiver.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._carried is not None and not self._is_writing_ended:
            self._is_writing_ended = True
            self._carried.send(b"", is_end=True)

    def get_write_buffer_size(self) -> int:
        return self._carried.unsent_size() if self._carried is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high

    def taken(self, written: int) -> int:
        """See SocketTransport."""
        return self._carried.sent_size() if self._carried is not None else written

    # --- the end ----------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._carried is None

    def close(self) -> None:
        """Both directions have ended, or nobody needs the rest."""
        carried = self._over()
        if carried is not None:
            carried.let_go_of_stream(is_abort=False)

    def abort(self) -> None:
        """The peer sees a reset."""
        carried = self._over()
        if carried is not None:
            carried.let_go_of_stream(is_abort=True)

    def _over(self) -> Carried | None:
        carried, self._carried = self._carried, None
        owed = self._n_owed + sum([n_flow for _, n_flow, _ in self._kept])
        self._n_owed = self.n_kept = 0
        self._kept.clear()
        if carried is not None and owed:
            carried.taken_back(owed)
        self._receiver = None
        return carried

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing: the socket is not its own."""
        return default


TunnelTransport: TypeAlias = SocketTransport | TlsTransport | FramedTransport
