"""A stream of extended CONNECT (RFC 8441): a request without a body first, then a tunnel, of which DATA are the bytes.

asked     what comes already is kept, a window of it at most      101, or 2xx -> tunnel; any answer -> over
tunnel    DATA both ways, each with its END_STREAM; the relay      both ended, a reset -> over
          (exchange/relay.py) owns time-outs and the end
"""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.client.answers import shown_id
from lbproxy.dataplane.client.http2_heads import tunnel_lines
from lbproxy.dataplane.client.http2_stream import Http2Stream, StreamOwner
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.connect import ConnectExchange
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.relay_end import RelayEnd
from lbproxy.dataplane.net.framed_transport import Carried, FramedTransport, TunnelTransport
from lbproxy.dataplane.net.pieces import add_piece
from lbproxy.dataplane.net.unsent import Unsent
from lbproxy.errors import Fault
from lbproxy.protocol.h2.codes import CANCEL, NO_ERROR
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectStream(Http2Stream, Carried):
    """See the module."""

    __slots__ = ("_early", "_has_ended", "_n_early", "_tunnel")

    def __init__(self, owner: StreamOwner, number: int, facts: ClientFacts, *, is_end: bool) -> None:
        """is_end: nothing will come through the tunnel either."""
        super().__init__(owner, number, facts, is_end=True)
        self._has_ended = is_end  # the client's direction
        self._early: list[bytes] = []
        self._n_early = 0
        self._tunnel: FramedTransport | None = None

    def begin(self, prepared: Prepared, identity: tuple[str, bytes], client: str, now: float) -> Exchange:
        exchange = self._exchange = ConnectExchange(self, prepared, identity, client, now)
        return exchange

    # --- what comes -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes, n_flow: int, *, is_end: bool, trailers: Sequence[Field] = ()) -> None:
        self._has_ended = is_end
        if self._tunnel is not None:
            self._tunnel.received(data, n_flow, is_end=is_end)
        elif self._exchange is None:
            self._give_back(n_flow)
        else:
            self._n_owed += n_flow
            if data:
                add_piece(self._early, data)
                self._n_early += len(data)

    def _leave(self, fault: Fault, phase: str = "") -> None:
        """The client is gone."""
        if not self._end_tunnel(fault):
            super()._leave(fault, phase)

    def _end_tunnel(self, fault: Fault) -> bool:
        """With a reset at both sides, if there is one."""
        tunnel = self._tunnel
        if tunnel is None:
            return False
        end = tunnel.get_protocol()
        assert isinstance(end, RelayEnd)
        end.relay.fail(fault.word, fault.side)
        return True

    def broke(self, error: Exception) -> None:
        if self._tunnel is None:
            super().broke(error)
            return
        self.services.internal_error("downstream", error)
        self._end_tunnel(errors.INTERNAL_ERROR)

    def _drop(self) -> None:
        self._tunnel = None  # which knows this object
        self._early.clear()
        self._n_early = 0
        super()._drop()

    def _answered(self, request: Underway) -> None:
        super()._answered(request)
        self._is_early = not self._has_ended  # no tunnel, so nothing more is wanted

    # --- the tunnel (ClientStream) ----------------------------------------------------------------------------------

    def give_stream(self, request: Underway, head: ResponseHead) -> tuple[TunnelTransport, bytes, bool]:
        """The 200 that opens it (RFC 8441 section 5), and what came already."""
        own = request.cookie_line + shown_id(request.prepared, request.id_line)
        lines = tunnel_lines(request.prepared, head)
        self._owner.codec.send_answer(self.number, 200, lines, own, False, head.secrets)
        tunnel = self._tunnel = FramedTransport(self.services.loop, self, self.services.internal_error)
        ahead = b"".join(self._early)
        self._early.clear()
        self._n_early = 0
        owed, self._n_owed = self._n_owed, 0
        self._give_back(owed)
        self._owner.written()
        return tunnel, ahead, self._has_ended

    def stream_over(self) -> None:
        """The relay is done, and will close or abort the transport."""
        self._exchange = None

    # --- what the transport asks (Carried) --------------------------------------------------------------------------

    def send(self, data: bytes, *, is_end: bool) -> None:
        if self._is_over:
            return
        owner = self._owner
        self._ends = is_end
        sent, is_stalled = 0, False
        if self._unsent is None and owner.may_send():
            sent = self._send_now(data)
            if sent == len(data):
                owner.written()
                return
            is_stalled = owner.may_send()
        if self._unsent is None:
            self._unsent = Unsent()
        self._unsent.add(data, sent)
        owner.holds(len(data) - sent)
        owner.has_unsent(self, is_stalled=is_stalled)
        owner.written()

    def _emptied(self) -> None:
        if self._tunnel is not None:
            self._tunnel.emptied()
        else:
            super()._emptied()

    def taken_back(self, n_flow: int) -> None:
        self._give_back(n_flow)

    def unsent_size(self) -> int:
        unsent = self._unsent
        return 0 if unsent is None else max(1, unsent.size)

    def sent_size(self) -> int:
        return self._n_sent

    def let_go_of_stream(self, *, is_abort: bool) -> None:
        """RFC 8441 section 5: what is a reset of TCP there is one of the stream with CANCEL here."""
        is_whole = self._ends and self._unsent is None
        if is_abort or not is_whole or not self._has_ended:
            self._owner.codec.reset(self.number, CANCEL if is_abort or not is_whole else NO_ERROR)
        self._drop()
        self._owner.written()

    # --- what time does ---------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        if self._tunnel is None:  # else the relay is swept itself
            super().sweep(now)

    def shut_down(self) -> bool:
        return self._end_tunnel(errors.SHUTDOWN_CUT) or super().shut_down()

    def buffered_bytes(self) -> int:
        if self._tunnel is not None:
            return self._tunnel.n_kept  # what waits to be sent the relay counts
        return self._n_early + super().buffered_bytes()
