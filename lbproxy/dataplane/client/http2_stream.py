"""One request of a client that speaks HTTP/2, and its answer: a stream among others on a connection (RFC 9113).

    the request    comes in DATA frames; the credit for them is given back when the server's end has taken them, so a
                   slow server slows its own stream and no other
    the answer     leaves as fast as the stream's window, the connection's and the socket allow; what they do not allow
                   is kept here, the server is told to wait, and the connection lets the streams take turns

The stream is over when its exchange is and its last frame is written, or when either side has reset it. Where
the frame that ends the request is all that is missing of it then, the stream waits for that: the client may be about to
send it, and some take a reset in its place for an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy import errors
from lbproxy.compiling import mypyc_attr, trait
from lbproxy.dataplane.client.answers import sent_trailers, untouched_lines
from lbproxy.dataplane.client.http2_heads import answer_lines, own_lines
from lbproxy.dataplane.client.upload_rate import UploadRate
from lbproxy.dataplane.exchange.binding import unbind
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.client_stream import SharingClientStream
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.pieces import SMALL
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.net.unsent import Unsent
from lbproxy.dataplane.services import Services
from lbproxy.errors import Fault
from lbproxy.protocol.h2.codes import CANCEL, INTERNAL_ERROR, NO_ERROR
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import NO_NAMES, Field, Fields, secrets_of

NEVER: Final = float("inf")
FRAME: Final = 16 * 1024
"""What a stream sends before it is another one's turn: the frame that every peer takes (RFC 9113 section 4.2)."""
_NOTHING_UNREAD: Final[list[tuple[bytes, int, bool, Sequence[Field]]]] = []  # it is never added to


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class StreamOwner:
    """The connection, as its streams know it."""

    __slots__ = ("codec", "services", "transport")

    codec: H2Connection
    services: Services
    transport: StreamTransport

    def may_send(self) -> bool:
        """Does the socket take more?"""
        raise NotImplementedError

    def written(self) -> None:
        """Something was given to the codec that should leave now."""
        raise NotImplementedError

    def has_unsent(self, stream: Http2Stream, *, is_stalled: bool) -> None:
        """It keeps something that could not be sent. is_stalled: for want of a window, and not of a turn."""
        raise NotImplementedError

    def holds(self, n_more: int) -> None:
        """So many octets of answers more than before are kept, as they could not be sent. Negative: less."""
        raise NotImplementedError

    def stream_over(self, stream: Http2Stream) -> None:
        """Nothing is left of it."""
        raise NotImplementedError


class _LastTrailers:
    """Those that were sent last, if nothing was taken out for this route or by its answer, and their lines. Servers of
    gRPC say the same behind most of their answers, and equal ones are the same object then."""

    __slots__ = ("_lines", "_trailers")

    def __init__(self) -> None:
        self._trailers: Sequence[Field] = ()
        self._lines = b""

    def lines_of(self, prepared: Prepared, trailers: Sequence[Field], nominated: frozenset[bytes]) -> bytes:
        """See sent_trailers."""
        if len(nominated) or prepared.route.edits_responses or len(secrets_of(trailers)):
            return sent_trailers(prepared, trailers, nominated)
        if trailers is not self._trailers:
            self._trailers = trailers
            self._lines = sent_trailers(prepared, trailers, nominated)
        return self._lines


_LAST: Final = _LastTrailers()


@mypyc_attr(allow_interpreted_subclasses=True)
class Http2Stream(SharingClientStream):
    """See the module. number: the stream's. is_queued: the connection has it among those that want to send."""

    __slots__ = (
        "_awaits_end",
        "_deadline",
        "_ends",
        "_exchange",
        "_is_early",
        "_is_open",
        "_is_over",
        "_is_paused",
        "_is_started",
        "_n_owed",
        "_n_sent",
        "_nominated",
        "_owner",
        "_progress",
        "_progress_at",
        "_rate",
        "_secrets",
        "_trailers",
        "_unread",
        "_unsent",
        "is_queued",
        "number",
    )

    def __init__(self, owner: StreamOwner, number: int, facts: ClientFacts, *, is_end: bool) -> None:
        """is_end: the request has no body."""
        self._owner = owner
        self.number = number
        self.facts = facts
        self.services = owner.services
        self.transport = owner.transport
        self.bound = None
        self.is_queued = False
        self._exchange: Exchange | None = None
        self._is_started = False
        self._is_open = not is_end  # more of the request may come
        self._is_over = False
        self._is_early = False  # the answer was complete before the request was
        self._is_paused = False
        self._awaits_end = False  # of the request, of which nothing else is missing; the answer is sent
        self._deadline = NEVER  # of the request's body
        self._rate: UploadRate | None = None
        self._unread = _NOTHING_UNREAD  # came while the server takes no more
        self._n_owed = 0  # octets of windows that are not given back
        self._unsent: Unsent | None = None
        self._ends = False  # behind what is unsent
        self._trailers = b""  # lines, behind the last DATA
        self._secrets = NO_NAMES  # among these
        self._nominated = NO_NAMES
        self._n_sent = 0
        self._progress = -1
        self._progress_at = 0.0

    # --- the request ------------------------------------------------------------------------------------------------

    def begin(self, prepared: Prepared, identity: tuple[str, bytes], client: str, now: float) -> Exchange:
        """Its head is there; `start` must follow. client: whose request it is."""
        exchange = self._exchange = Exchange(self, prepared, identity, client, now)
        if self._is_open:
            listener = self.facts.listener
            if not prepared.expects_continue:  # else the client may wait for its 100, and the exchange for a server
                self._deadline = now + listener.timeouts.request_body
            if listener.min_rate:
                self._rate = UploadRate(listener.min_rate, now, waits=prepared.expects_continue)
        return exchange

    def start(self, body: bytes = b"", *, is_end: bool, trailers: Sequence[Field] = ()) -> None:
        """Have the exchange begin, with what came of the body already. Once."""
        exchange = self._exchange
        if exchange is not None and not self._is_started:
            self._is_started = True
            if is_end:
                self._request_ended()
            exchange.start(body, is_done=is_end, trailers=trailers)

    def data_received(self, data: bytes, n_flow: int, *, is_end: bool, trailers: Sequence[Field] = ()) -> None:
        """More of the request. n_flow: octets of the windows, to be given back."""
        exchange = self._exchange
        if exchange is None:
            self._give_back(n_flow)
            if is_end and self._awaits_end:
                self._drop()
            return
        if not self._is_started:
            if float(len(data)) <= self.facts.listener.body_bytes:
                self.start(data, is_end=is_end, trailers=trailers)
                self._took(n_flow)
                return
            self.start(is_end=False)
        if self._is_paused or self._unread:
            self._keep(data, n_flow, is_end, trailers)
        else:
            self._deliver(data, n_flow, is_end, trailers)

    def _keep(self, data: bytes, n_flow: int, is_end: bool, trailers: Sequence[Field]) -> None:
        """Until the server takes more. Small pieces are joined: an object for each octet is more than is counted."""
        if self._unread and len(self._unread[-1][0]) < SMALL:
            before, n_before, _, _ = self._unread[-1]
            self._unread[-1] = (before + data, n_before + n_flow, is_end, trailers)
        elif self._unread:
            self._unread.append((data, n_flow, is_end, trailers))
        else:
            self._unread = [(data, n_flow, is_end, trailers)]

    def is_coming(self, now: float) -> None:
        """A part of a frame of it came."""
        if self._deadline != NEVER and self._exchange is not None:
            self._deadline = now + self.facts.listener.timeouts.request_body

    def _deliver(self, data: bytes, n_flow: int, is_end: bool, trailers: Sequence[Field]) -> None:
        exchange = self._exchange
        if exchange is None:
            self._give_back(n_flow)
            return
        listener = self.facts.listener
        if float(exchange.bytes_in + len(data)) > listener.body_bytes:
            self._give_back(n_flow)
            exchange.fail(errors.BODY_TOO_LARGE, f"more than {listener.body_bytes:.0f} bytes of body")
            return
        if is_end:
            self._request_ended()
        elif data:
            self._deadline = self.services.clock() + listener.timeouts.request_body
        exchange.request_body(data, is_done=is_end, trailers=trailers)
        self._took(n_flow)

    def refuse(self, fault: errors.Fault, detail: str) -> None:
        """What came of the request can't go on."""
        if self._exchange is not None:
            self.start(is_end=False)
        if self._exchange is not None:
            self._exchange.fail(fault, detail)
        elif self._awaits_end:
            self._drop()

    def _took(self, n_flow: int) -> None:
        """The server's end has taken it, unless it has just said that it takes no more."""
        if self._is_paused:
            self._n_owed += n_flow
            self._deadline = NEVER
        else:
            self._give_back(n_flow)

    def _give_back(self, n_flow: int) -> None:
        if n_flow:
            self._owner.codec.consumed(self.number, n_flow)
            self._owner.written()

    def _request_ended(self) -> None:
        self._is_open = False
        self._deadline = NEVER
        self._rate = None

    def pause_body(self) -> None:
        if self._is_paused or self._is_over:
            return
        self._is_paused = True
        self._deadline = NEVER
        if self._rate is not None:
            self._rate.stop(self.services.clock())

    def resume_body(self) -> None:
        if not self._is_paused:
            return
        self._is_paused = False
        if self._is_open and not self._unread:
            now = self.services.clock()
            self._deadline = now + self.facts.listener.timeouts.request_body
            if self._rate is not None:
                self._rate.go(now)
        if self._unread:
            self.services.loop.call_soon(self._read_on)
        owed, self._n_owed = self._n_owed, 0
        self._give_back(owed)

    def _read_on(self) -> None:
        try:
            while self._unread and not self._is_paused:
                self._deliver(*self._unread.pop(0))
        except Exception as error:  # a defect: confined to this request
            self.broke(error)

    # --- its end ----------------------------------------------------------------------------------------------------

    def client_reset(self) -> None:
        """RST_STREAM from the client: it wants no answer any more."""
        self._leave(errors.CLIENT_ABORT)

    def let_go(self) -> None:
        """Nothing can be sent any more; `connection_lost` follows when there is time for it."""
        self._drop()

    def connection_lost(self, fault: errors.Fault) -> None:
        """Nothing can be sent any more. fault: why."""
        self._leave(fault)

    def _leave(self, fault: errors.Fault, phase: str = "") -> None:
        exchange, self._exchange = self._exchange, None
        self._drop()
        if exchange is not None and not exchange.is_done:  # it may have ended by itself since `let_go`
            exchange.client_left(fault, phase)

    def broke(self, error: Exception) -> None:
        """A defect: the request ends."""
        self.services.internal_error("downstream", error)
        exchange = self._exchange
        if exchange is not None and not exchange.is_done:
            exchange.fail(errors.INTERNAL_ERROR, "internal error")
        elif not self._is_over:
            self.reset(INTERNAL_ERROR)

    def cut(self, fault: Fault) -> None:
        """The answer is not whole: its end must not look as if it were. Who gives up says so: CANCEL stays CANCEL."""
        if not self._is_over:
            self.reset(CANCEL if fault is errors.STREAM_CANCELLED else INTERNAL_ERROR)

    def reset(self, code: int) -> None:
        """Tell the client that there is no more, and let go of everything."""
        self._exchange = None
        self._owner.codec.reset(self.number, code)
        self._drop()
        self._owner.written()

    def _drop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._unsent is not None:
            self._owner.holds(-self._unsent.size)
            self._unsent = None
        self._release()
        self._owner.stream_over(self)

    def _release(self) -> None:
        """Nothing of the request is looked at any more."""
        self._is_open = False
        self._deadline = NEVER
        if self.bound is not None:
            unbind(self)
        owed = self._n_owed
        if self._unread:
            for _, n_flow, _, _ in self._unread:
                owed += n_flow
            self._unread = _NOTHING_UNREAD
        self._n_owed = 0
        if owed:
            self._owner.codec.consumed(self.number, owed)

    # --- the answer (ClientStream) ----------------------------------------------------------------------------------

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        if self._is_over:
            return
        prepared = request.prepared
        self._nominated = head.nominated
        behind = b""
        if trailers:
            behind = _LAST.lines_of(prepared, trailers, head.nominated)
            self._secrets = secrets_of(trailers)
        is_end = is_done and not len(body) and not len(behind)
        lines, aside, own = answer_lines(prepared, head, request.id_line)
        if len(request.cookie_line):
            own = request.cookie_line + own
        self._owner.codec.send_answer(self.number, head.status, lines, own, is_end, head.secrets, aside)
        if is_end:
            self._answered(request)
            self._all_sent()
        else:
            self._send(request, body, is_done=is_done, trailers=behind)

    def send_body(self, request: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        if not self._is_over:
            behind = b""
            if trailers:
                behind = _LAST.lines_of(request.prepared, trailers, self._nominated)
                self._secrets = secrets_of(trailers)
            self._send(request, data, is_done=is_done, trailers=behind)

    def answer(self, request: Underway, status: int, fields: Fields, body: bytes, *, closes: bool) -> None:
        """closes: means nothing here. What follows on other streams is none of this request's business."""
        if self._is_over:
            return
        lines = own_lines(request.prepared, status, fields, len(body), request.id_line)
        if request.is_head or status in (204, 304):
            body = b""
        self._send_head(status, b"", lines, is_end=not body)
        if body:
            self._send(request, body, is_done=True, trailers=b"")
        else:
            self._answered(request)
            self._all_sent()

    def send_interim(self, head: ResponseHead | None) -> None:
        exchange = self._exchange
        if exchange is None or self._is_over:
            return
        if (head is None or head.status == 100) and self._is_open and not self._is_paused:
            now = self.services.clock()  # the client has its 100: from now on it is the one who takes time
            self._deadline = now + self.facts.listener.timeouts.request_body
            if self._rate is not None:
                self._rate.go(now)
        if head is None:
            self._send_head(100, b"", b"", is_end=False)
        else:
            lines = untouched_lines(exchange.prepared, head)
            self._owner.codec.send_answer(self.number, head.status, lines, b"", False, head.secrets)
        self._owner.written()

    def _send_head(self, status: int, lines: bytes, own: bytes, *, is_end: bool) -> None:
        self._owner.codec.send_answer(self.number, status, lines, own, is_end)

    def _send(self, request: Underway, data: bytes, *, is_done: bool, trailers: bytes) -> None:
        exchange = self._exchange
        if is_done:
            self._answered(request)
        self._ends = is_done
        self._trailers = trailers
        sent, is_stalled = 0, False
        if self._unsent is None and self._owner.may_send():
            sent = self._send_now(data)
            if sent == len(data):
                if is_done:
                    self._all_sent()
                else:
                    self._owner.written()
                return
            is_stalled = self._owner.may_send()
        elif not data and not is_done:
            return
        if self._unsent is None:
            self._unsent = Unsent()
            self._progress_at = self.services.clock()
        self._unsent.add(data, sent)
        self._owner.holds(len(data) - sent)
        self._owner.has_unsent(self, is_stalled=is_stalled)
        self._owner.written()
        if exchange is not None and not is_done and not exchange.client_is_blocked:
            exchange.client_blocked()

    def read_at_most(self, size: int) -> None:
        """See ServerStream."""
        if self._exchange is not None:
            self._exchange.read_at_most(size)

    def _send_now(self, data: bytes) -> int:
        """How much of it the windows and the socket allow; with its end if that is all of it."""
        owner = self._owner
        codec = owner.codec
        size = len(data)
        is_last = self._ends and not self._trailers
        at = 0
        while at < size or (is_last and not size):
            end = min(at + FRAME, size)
            piece = data if size <= FRAME else memoryview(data)[at:end]
            taken = codec.send_data(self.number, piece, is_last and end == size)
            self._n_sent += taken
            at += taken
            if at < end or not size or (at < size and not owner.may_send()):
                break
        return at

    def send_some(self) -> bool:
        """Send a frame of what is unsent: its turn has come. False: the windows allow nothing."""
        unsent = self._unsent
        if unsent is None:
            return True
        codec = self._owner.codec
        taken = 0
        if unsent.size:
            piece = memoryview(unsent.first()[0])[:FRAME]
            is_last = self._ends and not self._trailers and len(piece) == unsent.size
            taken = codec.send_data(self.number, piece, is_last)
            if not taken:
                return False
            self._n_sent += taken
            unsent.take(taken)
            self._owner.holds(-taken)
        elif self._ends and not self._trailers:
            codec.send_data(self.number, b"", True)
        if unsent.size:
            return True
        self._unsent = None
        self._emptied()
        return True

    def _emptied(self) -> None:
        """All that waited is sent."""
        if self._ends:
            self._all_sent()
        elif self._exchange is not None:
            self._exchange.client_unblocked()

    def _answered(self, request: Underway) -> None:
        """The answer is complete, if not sent."""
        self._exchange = None
        self._is_early = not request.request_done

    def _all_sent(self) -> None:
        """Up to the trailers."""
        codec = self._owner.codec
        if len(self._trailers):
            codec.send_trailers(self.number, self._trailers, self._secrets)
        if self._is_early and codec.lacks_only_end(self.number):
            self._release()
            self._awaits_end = True
            self._deadline = self.services.clock() + self.facts.listener.timeouts.request_body
        else:
            self._end_early()
        self._owner.written()

    def _end_early(self) -> None:
        if self._is_early:
            self._owner.codec.reset(self.number, NO_ERROR)  # RFC 9113 section 8.1: no more of the request is wanted
        self._drop()

    # --- what time does ---------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called a few times a second."""
        if self._unsent is not None:
            self._check_progress(now)
        exchange = self._exchange
        if exchange is None:
            if self._awaits_end and now >= self._deadline:
                self._end_early()
                self._owner.written()
            return
        exchange.sweep(now)
        rate = self._rate
        if rate is not None and not exchange.response_started and rate.is_too_slow(exchange.bytes_in, now):
            exchange.fail(errors.BODY_TOO_SLOW, f"less than {self.facts.listener.min_rate:g} bytes a second")
        elif now >= self._deadline:
            self._deadline = NEVER
            if not exchange.response_started:  # a client may stop when it sees an early answer
                exchange.fail(errors.BODY_TIMEOUT, "the body stalled")

    def _check_progress(self, now: float) -> None:
        """A client that does not take its answer; one that still sends its request has not stopped."""
        progress = self._n_sent
        if self._is_open and self._exchange is not None:
            progress += self._exchange.bytes_in
        if progress != self._progress:
            self._progress = progress
            self._progress_at = now
        elif now - self._progress_at >= self.facts.listener.timeouts.write:
            self._owner.codec.reset(self.number, CANCEL)
            self._leave(errors.CLIENT_WRITE_TIMEOUT, "write_timeout")
            self._owner.written()

    def shut_down(self) -> bool:
        """The grace period is over. True: something was cut."""
        exchange = self._exchange
        if exchange is None:
            if self._unsent is None:
                return False
            self.reset(INTERNAL_ERROR)
        elif exchange.response_started:
            exchange.shut_down()
            self.reset(INTERNAL_ERROR)
        else:
            exchange.fail(errors.DRAINING, "the grace period is over")
        return True

    # --- counts -----------------------------------------------------------------------------------------------------

    @property
    def n_unsent(self) -> int:
        """Octets of the answer that wait here."""
        return self._unsent.size if self._unsent is not None else 0

    def buffered_bytes(self) -> int:
        size = self.n_unsent
        for data, _, _, _ in self._unread:
            size += len(data)
        return size + self._exchange.buffered_bytes() if self._exchange is not None else size
