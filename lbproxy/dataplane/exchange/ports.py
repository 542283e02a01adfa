"""A request under way, as the protocol objects at its two ends know it: what they may read, and what they tell it.

Towards the client it is `Underway`, one for each request; towards a server an `AnswerSink`, one for each try at one.
Neither end knows the other, nor what stands between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange.body_tape import Follower
from lbproxy.dataplane.exchange.placing import Claimant
from lbproxy.dataplane.exchange.prepare import Prepared
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyReader
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field


@mypyc_attr(allow_interpreted_subclasses=True)
class Underway(Claimant):
    """What the client's end asks and tells. Times are monotonic seconds.

    id_line: the field line with the request id, last in the head that goes up and in the one that comes back. is_head:
    its method is HEAD. request_done: it was read to its exact end. ended_at: 0.0 until it is over.
    """

    __slots__ = ("ended_at", "id_line", "is_head", "prepared", "request_done")

    def __init__(self, prepared: Prepared, id_line: bytes) -> None:
        super().__init__()
        self.prepared = prepared
        self.id_line = id_line
        self.is_head = prepared.is_head
        self.request_done = False
        self.ended_at = 0.0

    @property
    def is_done(self) -> bool:
        """Is it over, with an answer or without?"""
        raise NotImplementedError

    def fail(self, fault: Fault, detail: str, *, is_counted: bool = False) -> None:
        """End it with a fault: its answer if nothing was sent yet, else a cut that shows. is_counted: among the errors
        of its server."""
        raise NotImplementedError

    def client_left(self, fault: Fault = errors.CLIENT_ABORT, phase: str = "") -> None:
        """The client is gone: stop everything at once; the server is not to blame. phase: for the counter of aborts,
        where it is not that of the request itself."""
        raise NotImplementedError

    def time_left_s(self) -> float:
        """Seconds until the whole time for this request is over, inf if there is no such time."""
        raise NotImplementedError

    def answered_locally(self, status: int, bytes_out: int) -> None:
        """The client side has sent a redirect, a fixed response or an answer to OPTIONS."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class AnswerSink(Follower):
    """What the server's end asks and tells: who sent the request, and wants the answer.

    is_head: the method is HEAD. sent_at: when the head was sent, in monotonic seconds.
    """

    __slots__ = ("is_head", "sent_at")

    def __init__(self, now: float, *, is_head: bool) -> None:
        super().__init__()
        self.is_head = is_head
        self.sent_at = now

    @property
    def is_done(self) -> bool:
        """Is the request over, with an answer or without?"""
        raise NotImplementedError

    def interim_received(self, head: ResponseHead) -> None:
        """A 1xx other than 101."""
        raise NotImplementedError

    def response_received(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field] = ()
    ) -> None:
        """The final head, with what came of the body; the connection has let go of this request if `is_done`."""
        raise NotImplementedError

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        """More of the response's body."""
        raise NotImplementedError

    def attempt_failed(self, fault: Fault, detail: str) -> None:
        """There will be no answer, or no more of it; the connection, if there was one, is gone already."""
        raise NotImplementedError

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """101, and the bytes behind it that were read already."""
        raise NotImplementedError

    def upstream_blocked(self) -> None:
        """The server takes no more for now."""
        raise NotImplementedError

    def upstream_unblocked(self) -> None:
        """It takes more again."""
        raise NotImplementedError

    def splice_response(self, reader: BodyReader) -> bool:
        """Leave the rest of the response to the kernel if that is possible and pays."""
        raise NotImplementedError

    def response_spliced(self, size: int, *, is_blocked: bool) -> None:
        """So much of the response is on its way to the client, who takes it or does not."""
        raise NotImplementedError

    def bind_upstream(self) -> None:
        """The connection belongs to this client alone from now on (binding.py)."""
        raise NotImplementedError

    def trusts_unacked(self, runtime: ServerRuntime) -> bool:
        """Does a FIN with nothing acknowledged prove, for this server, that nothing was delivered?"""
        raise NotImplementedError

    def client_transport(self) -> asyncio.Transport | None:
        """Where the answer goes, for who must know how fast it does."""
        raise NotImplementedError
