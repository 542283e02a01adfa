"""One request and its answer on a connection of HTTP/2 to a server, which has others beside it.

What came in one read is told in one piece, its end included, when the read is over: so a short answer is one call of
its sink, and whatever that does (another request, a retry, a pause) happens between two reads.

Bodies wait here, not in the connection: what a server's windows or its kernel do not take is in `_unsent`, and the
client is held back. What is sent to a client who takes no more is held back by not renewing the stream's window; the
connection's window is renewed at once, so that no stream waits for the client of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy import errors
from lbproxy.compiling import join_four, mypyc_attr
from lbproxy.dataplane.exchange.ports import AnswerSink, SharingServerStream
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server.upstream import INTERIM_EVERY_S
from lbproxy.errors import Fault
from lbproxy.protocol import grpc
from lbproxy.protocol.h2.codes import CANCEL, NO_ERROR, PROTOCOL_ERROR
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.request import request_head, trailer_lines
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import NO_NAMES, Field, secrets_of
from lbproxy.protocol.response_head import response_head_of

FRAME: Final = 16 * 1024  # octets that a stream sends before it is another's turn
_EXPECT: Final = b"expect: 100-continue\r\n"
_NOTHING: Final[list[bytes]] = []  # it is never added to


@mypyc_attr(allow_interpreted_subclasses=True)
class Carrier(H2Connection):
    """A connection as its streams know it.

    runtime: the server's. scheme: of what it carries. is_blocked: the kernel takes no more for now. n_written: octets
    given to the transport so far. n_requests: streams so far.
    """

    def __init__(self, own: OwnSettings, runtime: ServerRuntime, scheme: bytes) -> None:
        super().__init__(False, own)
        self.runtime = runtime
        self.scheme = scheme
        self.is_blocked = False
        self.n_written = 0
        self.n_requests = 0
        self.now = 0.0
        self.touched: list[Http2Stream] = []  # of what has come since the read began

    def flush(self) -> None:
        """Write what there is to write."""
        raise NotImplementedError

    def wait_for_room(self, stream: Http2Stream) -> None:
        """It has more to send than was taken."""
        raise NotImplementedError

    def forget(self, stream: Http2Stream) -> None:
        """It is over, at both ends: nothing more is sent or received on it."""
        raise NotImplementedError

    def abandon(self, stream: Http2Stream) -> None:
        """It was never begun: the server knows nothing of it."""
        raise NotImplementedError

    def wire_written(self) -> int:
        """What `taken` and the kernel count: octets that were given to the socket, those of TLS included."""
        raise NotImplementedError


class Http2Stream(SharingServerStream):
    """See the module. stream_id: its number. sink: who wants the answer, None when it is over.

    written_before: of the connection's octets, those before its own; wire_before: of those that the kernel counts, what
    was written when it began, so that none of its own is among them.
    """

    __slots__ = (
        "_body",
        "_head",
        "_is_begun",
        "_is_last",
        "_is_paused",
        "_is_sent",
        "_is_touched",
        "_length",
        "_more",
        "_n_held",
        "_n_interim",
        "_n_new",
        "_n_taken",
        "_n_unsent",
        "_secrets_up",
        "_trailers",
        "_trailers_up",
        "_unsent",
        "carrier",
        "has_head",
        "has_no_body",
        "is_ended",
        "is_told_blocked",
        "sink",
        "stream_id",
        "wire_before",
        "written_before",
    )

    def __init__(self, carrier: Carrier, stream_id: int) -> None:
        self.carrier = carrier
        self.stream_id = stream_id
        self.sink: AnswerSink | None = None
        self._is_begun = False
        self.written_before = 0
        self.wire_before = 0
        # the request
        self._unsent = _NOTHING
        self._n_unsent = 0
        self._n_taken = 0
        self._is_last = False  # is all of it here?
        self._length = -1  # octets of the body, if its end was still to come when it began, and they were declared
        self._is_sent = False
        self._trailers_up = b""
        self._secrets_up = NO_NAMES  # among these
        self.is_told_blocked = False
        # the answer
        self._head: ResponseHead | None = None  # has come, and its sink does not know yet
        self._body = b""
        self._more = _NOTHING  # that came behind this
        self._trailers: Sequence[Field] = ()
        self._is_touched = False
        self.has_head = False
        self.has_no_body = False
        self.is_ended = False
        self._is_paused = False
        self._n_new = 0  # octets of the windows that are to be renewed
        self._n_held = 0  # the same of this stream alone, while its client takes no more
        self._n_interim = 0

    # --- the request (ServerStream) -----------------------------------------------------------------------------------

    def begin(
        self,
        sink: AnswerSink,
        prepared: Prepared,
        lines: bytes,
        own: bytes,
        body: bytes,
        *,
        is_done: bool,
        expects: bool,
        trailers: Sequence[Field],
    ) -> None:
        carrier = self.carrier
        self.sink = sink
        self._is_begun = True
        carrier.n_requests += 1
        self.written_before = carrier.n_written + carrier.n_output
        self.wire_before = carrier.wire_written()
        tail, cut = prepared.tail, prepared.cut
        front = cut.front if cut is not None else None
        head = front if front is not None else prepared.in_h2
        if head is None:
            head = prepared.in_h2 = request_head(prepared.forward)
        if expects or len(head.length):
            own = join_four(head.length, own, _EXPECT if expects else b"", b"")
        self._is_last = is_done
        if not is_done and len(head.length):
            self._length = prepared.content_length
        if is_done and trailers:
            self._trailers_up = trailer_lines(trailers)
            self._secrets_up = secrets_of(trailers)
        self._is_sent = is_done and not len(body) and not len(self._trailers_up)
        if tail is None or cut is None or front is None:
            secrets = prepared.meaning.secrets
            carrier.send_request_head(self.stream_id, head, carrier.scheme, own, lines, self._is_sent, secrets)
        else:
            has_timeout, behind = prepared.has_timeout, cut.behind
            carrier.send_request_tail(
                self.stream_id, head, tail, has_timeout, behind, carrier.scheme, own, lines, self._is_sent
            )
        if len(body) or (is_done and not self._is_sent):
            self._send(body)
        carrier.flush()
        self._tell_if_blocked()

    def write(self, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        if self.sink is None or self._is_sent:
            return
        if is_done:
            self._is_last = True
            self._trailers_up = trailer_lines(trailers)
            self._secrets_up = secrets_of(trailers)
        if data or is_done:
            self._send(data)
            self.carrier.flush()
            self._tell_if_blocked()

    def _send(self, data: bytes) -> None:
        if len(data) and not len(self._unsent) and not self.carrier.is_blocked:
            n_taken = self._send_piece(data, is_end=self._is_last and not self._trailers_up)
            data = b"" if n_taken == len(data) else data[n_taken:]
        if len(data):
            if self._unsent:
                self._unsent.append(data)
            else:
                self._unsent = [data]
            self._n_unsent += len(data)
            self.carrier.wait_for_room(self)
        elif not self._unsent:
            self._end_if_last()

    def _send_piece(self, data: bytes, *, is_end: bool) -> int:
        """How many octets were taken."""
        n_taken = self.carrier.send_data(self.stream_id, data, is_end)
        self._n_taken += n_taken
        if is_end and n_taken == len(data):
            self._is_sent = True
        return n_taken

    def _end_if_last(self) -> None:
        """All that there is was taken: say so, if that is all of the request."""
        if self._is_last and not self._is_sent:
            self._is_sent = True
            if self._trailers_up:
                self.carrier.send_trailers(self.stream_id, self._trailers_up, self._secrets_up)
            else:
                self.carrier.send_data(self.stream_id, b"", True)

    def send_some(self, most: int) -> bool:
        """Send at most so many octets of what waits. Is nothing left to send for now?"""
        carrier = self.carrier
        unsent = self._unsent
        while unsent:
            piece = unsent[0]
            if carrier.is_blocked or most <= 0:
                return False
            size = min(len(piece), most)
            is_end = self._is_last and len(unsent) == 1 and size == len(piece) and not self._trailers_up
            part = piece if size == len(piece) else piece[:size]
            n_taken = self._send_piece(part, is_end=is_end)
            self._n_unsent -= n_taken
            most -= n_taken
            if n_taken == len(piece):
                unsent.pop(0)
            elif n_taken:
                unsent[0] = piece[n_taken:]
            if n_taken < size:
                return False
        self._end_if_last()
        return True

    def _tell_if_blocked(self) -> None:
        if self._n_unsent and not self.is_told_blocked and self.sink is not None:
            self.is_told_blocked = True
            self.sink.upstream_blocked()

    def room_came(self) -> None:
        """All that waited was sent."""
        if self.is_told_blocked and self.sink is not None:
            self.is_told_blocked = False
            self.sink.upstream_unblocked()

    def abort(self) -> None:
        if self.sink is not None:
            self.let_go()
            self.carrier.reset(self.stream_id, CANCEL)
            self.carrier.flush()
        elif not self._is_begun:
            self._is_begun = True
            self.carrier.abandon(self)

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        if self._n_held:
            self.carrier.renew_stream(self.stream_id, self._n_held)
            self._n_held = 0
            self.carrier.flush()

    def unsent_bytes(self) -> int:
        return self._n_unsent

    def taken_bytes(self) -> int:
        return self._n_taken

    def whose(self) -> ServerRuntime:
        return self.carrier.runtime

    # --- the answer, as it is read ------------------------------------------------------------------------------------

    def head_came(self, head: H2Head, is_end: bool) -> None:
        """A head, interim ones too."""
        sink = self.sink
        if sink is None:
            return
        pool = self.carrier.runtime.pool
        if head.excess:
            self.fail(errors.RESPONSE_HEADER_TOO_LARGE, f"the head has {head.excess}", PROTOCOL_ERROR)
            return
        found = self._understood(head, is_end)
        if head.status < 200:
            self._n_interim += 1
            if self._n_interim > pool.max_interim + (self.carrier.now - sink.sent_at) / INTERIM_EVERY_S:
                detail = f"more than {pool.max_interim} interim responses"
                self.fail(errors.TOO_MANY_INTERIM, detail, PROTOCOL_ERROR)
            else:
                sink.interim_received(found)
            return
        self.has_head = True
        self.has_no_body = sink.is_head or found.is_bodiless
        self._head = found
        self.is_ended = is_end
        self._touch()

    def _understood(self, head: H2Head, is_end: bool) -> ResponseHead:
        """What the head says. Equal blocks give the same head while the table is as it is, and that is read once."""
        found = head.whole_answer if is_end else head.answer
        if found is None:
            found = self._read(head, is_end)
            if is_end:
                head.whole_answer = found
            else:
                head.answer = found
        return found

    def _read(self, head: H2Head, is_end: bool) -> ResponseHead:
        found = response_head_of(head.status, head.lines, head.content_length)
        if head.secrets:
            found.secrets = head.secrets
        if head.is_grpc and grpc.is_grpc(head.lines):
            found.is_grpc = True
            if is_end:
                found.grpc_status = grpc.status_of(found.fields)
        return found

    def data_came(self, data: bytes, n_flow: int, is_end: bool) -> None:
        """Some of the body, or its end."""
        if self.sink is None:
            self.carrier.consumed(self.stream_id, n_flow)
            return
        self._n_new += n_flow
        if len(data):
            if self.has_no_body:
                detail = "a body behind a head that has none"
                self.fail(errors.BAD_RESPONSE, detail, PROTOCOL_ERROR)
                return
            if not len(self._body):
                self._body = data
            elif self._more:
                self._more.append(data)
            else:
                self._more = [data]
        self.is_ended = is_end
        self._touch()

    def trailers_came(self, trailers: Sequence[Field]) -> None:
        """The last that there is of an answer."""
        self._trailers = trailers
        self.is_ended = True
        self._touch()

    def _touch(self) -> None:
        if not self._is_touched:
            self._is_touched = True
            self.carrier.touched.append(self)

    def deliver(self) -> None:
        """Tell the sink what has come since the last time."""
        self._is_touched = False
        sink = self.sink
        if sink is None:
            return
        carrier, now = self.carrier, self.carrier.now
        body = self._taken_body()
        head, self._head = self._head, None
        n_new, self._n_new = self._n_new, 0
        is_done, trailers = self.is_ended, self._trailers
        if is_done:
            self.let_go()
            if self._is_sent:
                pass
            elif self._n_taken == self._length:  # it has all, and the client may be about to say so
                carrier.send_data(self.stream_id, b"", True)
            else:  # it has said all, and gets no more of the request (RFC 9113 section 8.1)
                carrier.reset(self.stream_id, NO_ERROR)
        if head is not None:
            sink.response_received(head, body, now, is_done=is_done, trailers=trailers)
        elif body or is_done:
            sink.response_body(body, is_done=is_done, trailers=trailers)
        if n_new:
            carrier.renew_connection(n_new)
            if self._is_paused:
                self._n_held += n_new
            elif not is_done:
                carrier.renew_stream(self.stream_id, n_new)

    def _taken_body(self) -> bytes:
        """What has come of it and was not told."""
        body, self._body = self._body, b""
        if self._more:
            body = b"".join([body, *self._more])
            self._more = _NOTHING
        return body

    # --- ends ---------------------------------------------------------------------------------------------------------

    def let_go(self) -> AnswerSink | None:
        """It is over: nobody hears of it any more."""
        sink, self.sink = self.sink, None
        if self._n_new:
            self.carrier.renew_connection(self._n_new)
            self._n_new = 0
        self._unsent = _NOTHING
        self._n_unsent = 0
        self.carrier.forget(self)
        return sink

    def fail(self, fault: Fault, detail: str, code: int = -1) -> None:
        """It is over, with a fault, unless the answer is whole: what came of that goes first.

        code: for RST_STREAM, -1 for none.
        """
        if self._is_touched and self.has_head:
            self.deliver()
        if code >= 0:
            self.carrier.reset(self.stream_id, code)
        if self.sink is None:
            return
        sink = self.let_go()
        if sink is not None and not sink.is_done:
            sink.attempt_failed(fault, detail)
