"""A server of HTTP/2: few connections, many streams.

Who asks gets a stream on the first connection that has room, so that those behind it grow idle and end. Where none has,
a connection is dialled and who asks waits, with as many others as the server allowed on the last one; a stream that
ends meanwhile is theirs as well. When four fifths of what there is are in use, the next one is dialled ahead.

With `auto` the server may also turn out to speak HTTP/1.1: then each connection is one request's, and is kept as those
of `endpoint.py` are. A call of gRPC has no use for one and goes to another server. A WebSocket gets such a connection
where the server has chosen HTTP/2, and opens none there.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from lbproxy import errors
from lbproxy.compiling import i64, mypyc_attr
from lbproxy.dataplane.exchange.ports import AnswerSink, Endpoint, Pending
from lbproxy.dataplane.idle_pool import NoIdlePool
from lbproxy.dataplane.net.dialer import Opening
from lbproxy.dataplane.net.socket_transport import Receiver
from lbproxy.dataplane.runtime import ServerRuntime, UpstreamTimeouts
from lbproxy.dataplane.server import connector
from lbproxy.dataplane.server.endpoint import Dial
from lbproxy.dataplane.server.http2_connection import MOST_STREAMS, Http2Connection, Http2Owner
from lbproxy.dataplane.server.http2_wire import Http2Wire
from lbproxy.dataplane.server.tls import ServerTlsConnection, Unwanted
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.dataplane.services import Services
from lbproxy.errors import Fault

H2: Final = "h2"
DIAL_AHEAD: Final = 0.8
_MANY: Final = 10  # streams: with fewer on a connection, one that is dialled ahead would hardly ever be needed


class Wait(Pending):
    """Somebody who waits for a stream. since: from when on; is_fresh: on no connection that was made before that.
    is_tunnel: for a WebSocket, so on one whose server has said that it opens such."""

    __slots__ = ("_owner", "dial", "is_fresh", "is_tunnel", "since", "sink")

    def __init__(self, owner: Waiting, sink: AnswerSink, since: float, *, is_fresh: bool, is_tunnel: bool) -> None:
        self._owner = owner
        self.sink = sink
        self.since = since
        self.is_fresh = is_fresh
        self.is_tunnel = is_tunnel

    def cancel(self) -> None:
        """See Pending."""
        self._owner.left(self)

    def expire(self) -> None:
        """See Pending."""
        self._owner.left(self)
        self._owner.expired()


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiting(Endpoint):
    """An endpoint as those know it who wait."""

    __slots__ = ()

    def left(self, wait: Wait) -> None:
        """Nobody waits there any more."""
        raise NotImplementedError

    def expired(self) -> None:
        """One has waited too long."""
        raise NotImplementedError


class SharedDial:
    """The making of one connection. asked_at: when it began. is_counted: it has failed, as far as counters go. made:
    what it has come to, until somebody has it."""

    __slots__ = ("asked_at", "deadline", "is_counted", "made", "task", "timeouts")

    def __init__(self, asked_at: float, timeouts: UpstreamTimeouts) -> None:
        self.asked_at = asked_at
        self.deadline = asked_at + timeouts.dial
        self.timeouts = timeouts
        self.task: asyncio.Task[None] | None = None
        self.made: Http2Connection | None = None
        self.is_counted = False


class Http2Endpoint(Waiting, Http2Owner):
    """See the module. capacity: how many streams a connection has, as the server said last; 0 before that."""

    __slots__ = ("_dials", "_draining", "_is_auto", "_is_retired", "_runtime", "_waiting", "capacity", "connections")

    def __init__(self, runtime: ServerRuntime) -> None:
        self._runtime = runtime
        self._is_auto = runtime.pool.protocol == "auto"
        self._is_retired = False
        self._waiting: list[Wait] = []
        self._dials: list[SharedDial] = []
        self._draining: list[Http2Connection] = []
        self.connections: list[Http2Connection] = []
        self.capacity = 0

    # --- Endpoint -----------------------------------------------------------------------------------------------------

    def open(self, sink: AnswerSink, services: Services, now: float, *, wants_fresh: bool) -> None:
        """See Endpoint."""
        if sink.wants_websocket():
            self._look_for_tunnel(sink, services, now, wants_fresh=wants_fresh)
            return
        if not wants_fresh:
            for connection in self.connections:
                if connection.has_room():
                    if connection.begin(sink, now):
                        self._look_ahead(services, sink, now)
                        return
                    break  # the list has changed; the next one to ask finds the others
            if self._is_auto and not sink.is_grpc():
                kept = self._runtime.idle.take(now)
                if kept is not None:
                    sink.opened(cast(UpstreamConnection, kept), now)
                    return
        opening: Opening | None = None
        needs_dial = self._needs_dial(len(self._waiting) + 1)
        if needs_dial:
            opening = connector.dial_now(services, self._runtime)
            if opening is not None and opening.is_open:
                self._attach_at_once(sink, services, opening, now)
                return
        self._wait(sink, now, is_fresh=wants_fresh)
        if needs_dial:
            self._dial(services, sink.timeouts(), now, opening)

    def _wait(self, sink: AnswerSink, now: float, *, is_fresh: bool, is_tunnel: bool = False) -> None:
        wait = Wait(self, sink, now, is_fresh=is_fresh, is_tunnel=is_tunnel)
        sink.pending = wait
        self._waiting.append(wait)

    def _look_for_tunnel(self, sink: AnswerSink, services: Services, now: float, *, wants_fresh: bool) -> None:
        """A stream for a WebSocket: whether there may be one stands in the server's SETTINGS (RFC 8441 section 3)."""
        if not wants_fresh:
            if self._is_auto:
                kept = self._runtime.idle.take(now)
                if kept is not None:
                    sink.opened(cast(UpstreamConnection, kept), now)
                    return
                if any(item.peer.is_known and not item.peer.enable_connect_protocol for item in self.connections):
                    Dial(services, self._runtime, sink, is_http1=True).begin(now, None)
                    return
            for connection in self.connections:
                if connection.peer.is_known and connection.has_room():
                    if not connection.peer.enable_connect_protocol:
                        self._wait(sink, now, is_fresh=False, is_tunnel=True)
                        services.loop.call_soon(self._serve, connection)  # which refuses it
                        return
                    if connection.begin(sink, now, is_tunnel=True):
                        return
                    break
        self._wait(sink, now, is_fresh=wants_fresh, is_tunnel=True)
        if self._needs_dial(len(self._waiting)):
            self._dial(services, sink.timeouts(), now, None)

    def retire(self) -> None:
        """See Connections."""
        self._is_retired = True
        runtime = self._runtime
        runtime.idle.close_all()
        runtime.idle = NoIdlePool(runtime)
        for connection in list(self.connections):
            connection.drain()

    def sweep(self, now: float) -> None:
        """See Connections."""
        if self._dials:
            self._expire_dials(now)
        for connection in [*self.connections, *self._draining]:
            connection.sweep(now)
        limit = self._most_idle()
        idle = [
            connection
            for connection in self.connections
            if not connection.streams.count and (connection.peer.is_known or not self._waiting)
        ]
        for connection in idle[limit:]:
            connection.close_if_idle()

    def n_idle(self) -> int:
        """See Connections."""
        return sum(1 for connection in [*self.connections, *self._draining] if not connection.streams.count)

    def _most_idle(self) -> int:
        settings = self._runtime.pool.keep_alive
        return settings.idle if settings is not None else 0

    # --- who waits ----------------------------------------------------------------------------------------------------

    def left(self, wait: Wait) -> None:
        if wait in self._waiting:
            self._waiting.remove(wait)

    def expired(self) -> None:
        for dial in self._dials:
            if not dial.is_counted:
                dial.is_counted = True
                connector.count_dial(self._runtime, errors.CONNECT_TIMEOUT)
                return

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def room_changed(self, connection: Http2Connection) -> None:
        if connection.peer.is_known:
            self.capacity = max(1, connection.capacity)
        self._serve(connection)
        if self._waiting and self._waiting[0].is_tunnel and self._needs_dial(len(self._waiting)):
            # What has all streams of a connection keeps them for long.
            services = connection.services
            self._dial(services, self._waiting[0].sink.timeouts(), services.clock(), None)

    def connection_over(self, connection: Http2Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            if not connection.has_ended:
                self._draining.append(connection)
        elif connection.has_ended and connection in self._draining:
            self._draining.remove(connection)
        if connection.has_ended and not connection.peer.is_known and self._waiting:
            # Those who waited for its first word: as after a dial that failed.
            connection.services.loop.call_soon(
                self._fail_waiting, errors.CLOSED_UNSENT, "closed before it said anything"
            )

    def _serve(self, connection: Http2Connection) -> None:
        """Give streams to those who wait, in the order in which they came."""
        at = 0
        while at < len(self._waiting) and connection.has_room():
            wait = self._waiting[at]
            if wait.is_fresh and connection.created_at < wait.since:
                at += 1
                continue
            if wait.is_tunnel and not connection.peer.is_known:
                at += 1
                continue
            self._waiting.pop(at)
            wait.sink.pending = None
            now = connection.services.clock()
            if wait.is_tunnel and not connection.peer.enable_connect_protocol:
                if self._is_auto:
                    Dial(connection.services, self._runtime, wait.sink, is_http1=True).begin(wait.since, None)
                    continue
                wait.sink.attempt_failed(errors.NO_WEBSOCKET, "its HTTP/2 has no extended CONNECT")
            elif not connection.begin(wait.sink, now, is_tunnel=wait.is_tunnel):
                self._waiting.insert(at, wait)
                wait.sink.pending = wait
                return

    def _take_first(self) -> Wait | None:
        if not self._waiting:
            return None
        wait = self._waiting.pop(0)
        wait.sink.pending = None
        return wait

    def _fail_waiting(self, fault: Fault, detail: str) -> None:
        """There will be no connection for those who can't all wait for another one."""
        n_kept = self._expected()
        while len(self._waiting) > n_kept:
            wait = self._take_first()
            if wait is not None and not wait.sink.is_done:
                wait.sink.attempt_failed(fault, detail)

    # --- connections that are made ------------------------------------------------------------------------------------

    def _is_settling(self) -> bool:
        """Is there a connection whose server has not said yet how many streams it allows?"""
        return any(not connection.peer.is_known for connection in self.connections)

    def _expected(self) -> int:
        """Streams that there will be on what is being made."""
        n_settling = sum(1 for connection in self.connections if not connection.peer.is_known)
        return (len(self._dials) + n_settling) * (self.capacity or MOST_STREAMS)

    def _needs_dial(self, n_waiting: int) -> bool:
        if any(connection.peer.is_known and not connection.capacity for connection in self.connections):
            return False  # the server wants no streams for now, and would not on another connection
        return n_waiting > self._expected()

    def _look_ahead(self, services: Services, sink: AnswerSink, now: float) -> None:
        """Dial before all is in use."""
        capacity = self.capacity
        if capacity < _MANY or self._dials:
            return
        n_used: i64 = 0
        for connection in self.connections:
            n_used += connection.streams.count
        if int(n_used) >= DIAL_AHEAD * capacity * len(self.connections) and not self._is_settling():
            self._dial(services, sink.timeouts(), now, None)

    def _made(self, services: Services) -> Http2Connection:
        return Http2Connection(services, self._runtime, self, expected=self.capacity)

    def _attach_at_once(self, sink: AnswerSink, services: Services, opening: Opening, now: float) -> None:
        connection = self._made(services)
        self.connections.append(connection)
        connector.attached(self._runtime, opening, Http2Wire(connection))
        opened_at = services.clock()
        sink.dialled(opened_at - now)
        if not connection.begin(sink, opened_at):
            sink.broke()

    def _dial(self, services: Services, timeouts: UpstreamTimeouts, now: float, opening: Opening | None) -> None:
        dial = SharedDial(now, timeouts)
        self._dials.append(dial)
        dial.task = services.tasks.spawn(self._run(services, dial, opening), "dial")

    async def _run(self, services: Services, dial: SharedDial, opening: Opening | None) -> None:
        fault, detail = errors.INTERNAL_ERROR, "internal error"
        receiver: Receiver | None = None
        try:
            receiver = await connector.dial_shared(
                services, self._runtime, lambda alpn: self._receiver(services, dial, alpn), dial.timeouts, opening
            )
        except asyncio.CancelledError:
            made, dial.made = dial.made, None
            if made is not None:
                made.close_if_idle()
            raise
        except connector.DialError as error:
            fault, detail = error.fault, error.detail
        except Exception as defect:  # confined to those who wait
            services.internal_error("dial", defect)
        dial.task = None  # a task that ends keeps its frames for a while, and they know this object
        dial.made = None
        if dial in self._dials:
            self._dials.remove(dial)
        if receiver is None:
            self._fail_waiting(fault, detail)
        elif isinstance(receiver, Http2Wire):
            self._take(receiver, services, dial)
        else:
            self._take_http1(cast(UpstreamConnection, receiver), services, dial)

    def _expire_dials(self, now: float) -> None:
        """Those that take too long fail."""
        late = [dial for dial in self._dials if now >= dial.deadline]
        for dial in late:
            self._dials.remove(dial)
            task, dial.task = dial.task, None
            if task is not None:
                task.cancel()
            if not dial.is_counted:
                connector.count_dial(self._runtime, errors.CONNECT_TIMEOUT)
        if late:
            self._fail_waiting(errors.CONNECT_TIMEOUT, "no answer to the connection request")

    def _receiver(self, services: Services, dial: SharedDial, alpn: str | None) -> Receiver:
        """What reads the connection. alpn: what the server chose; None without TLS."""
        if alpn is None or alpn == H2:
            dial.made = self._made(services)
            return Http2Wire(dial.made)
        if self._is_auto:
            return ServerTlsConnection(services, self._runtime)
        raise Unwanted("it does not offer HTTP/2 (ALPN h2)")

    def _take(self, wire: Http2Wire, services: Services, dial: SharedDial) -> None:
        connection = wire.connection
        if connection is None or connection.has_ended:
            self._fail_waiting(errors.CLOSED_UNSENT, "closed as soon as it was opened")
            return
        self.connections.append(connection)
        took_s = services.clock() - dial.asked_at
        for wait in self._waiting[: connection.capacity]:
            wait.sink.dialled(took_s)
        self._serve(connection)
        if self._is_retired:
            connection.drain()

    def _take_http1(self, connection: UpstreamConnection, services: Services, dial: SharedDial) -> None:
        """It speaks HTTP/1.1 after all: a connection is one request's, and whoever waits needs one of their own."""
        self.capacity = 1
        wait = self._take_first()
        now = services.clock()
        if wait is None:
            connection.close_idle()
            return
        wait.sink.dialled(now - dial.asked_at)
        if wait.sink.is_grpc():
            connection.close_idle()
            wait.sink.attempt_failed(errors.NO_GRPC, "it chose HTTP/1.1")
        elif connection.has_ended:
            wait.sink.attempt_failed(errors.CLOSED_UNSENT, "closed as soon as it was opened")
        else:
            wait.sink.opened(connection, now)
        while self._needs_dial(len(self._waiting)):
            self._dial(services, dial.timeouts, now, None)
