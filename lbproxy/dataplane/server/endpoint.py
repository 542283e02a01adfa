"""A server that speaks HTTP/1: for each request a connection, one that was kept or a new one."""

from __future__ import annotations

import asyncio
from typing import cast

from lbproxy import errors
from lbproxy.compiling import drop_last
from lbproxy.dataplane.exchange.ports import AnswerSink, Endpoint, Pending
from lbproxy.dataplane.idle_pool import NoIdlePool
from lbproxy.dataplane.net.dialer import Opening
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server import connector
from lbproxy.dataplane.server.introduction import introduction
from lbproxy.dataplane.server.tls import ServerTlsConnection
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.dataplane.services import Services


class Http1Endpoint(Endpoint):
    """See the module. Which connections are kept is in the server's `runtime.idle`."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: ServerRuntime) -> None:
        self._runtime = runtime

    def open(self, sink: AnswerSink, services: Services, now: float, *, wants_fresh: bool) -> None:
        """See Endpoint."""
        runtime = self._runtime
        if runtime.pool.keep_alive is not None and not wants_fresh:
            idle = runtime.idle.connections
            if idle:
                youngest = idle[-1]  # once: what is taken out of a list is looked at whether it is what it should be
                if youngest.expires_at > now and not youngest.is_disturbed():
                    # The usual case of IdlePool.take, without the call.
                    drop_last(idle)
                    sink.opened(cast(UpstreamConnection, youngest), now)
                    return
            kept = runtime.idle.take(now)
            if kept is not None:
                sink.opened(cast(UpstreamConnection, kept), now)
                return
        opening = connector.dial_now(services, runtime)
        if opening is None or not opening.is_open:
            Dial(services, runtime, sink).begin(now, opening)
            return
        connection = connector.attached(runtime, opening, UpstreamConnection(services, runtime))
        if connection.has_ended:  # a defect, reported already
            sink.broke()
            return
        opened_at = services.clock()
        sink.dialled(opened_at - now)
        sink.opened(connection, opened_at)

    def retire(self) -> None:
        """See Connections: idle connections are closed, and those in use when they are done."""
        runtime = self._runtime
        runtime.idle.close_all()
        runtime.idle = NoIdlePool(runtime)


class Dial(Pending):
    """The making of one connection, in a task. is_http1: the server's HTTP/2 is of no use here."""

    __slots__ = ("_is_http1", "_runtime", "_services", "_sink", "_task")

    def __init__(self, services: Services, runtime: ServerRuntime, sink: AnswerSink, *, is_http1: bool = False) -> None:
        self._services = services
        self._runtime = runtime
        self._is_http1 = is_http1
        self._sink: AnswerSink | None = sink  # who waits; None: nobody any more
        self._task: asyncio.Task[None] | None = None

    def begin(self, started: float, opening: Opening | None) -> None:
        """started: when the connection was asked for. opening: what was done for it since."""
        assert self._sink is not None
        self._sink.pending = self
        self._task = self._services.tasks.spawn(self._run(started, opening), "dial")

    def cancel(self) -> None:
        """See Pending."""
        task, self._task = self._task, None  # a task that ends keeps its frames for a while, and they know this object
        self._sink = None
        if task is not None:
            task.cancel()

    def expire(self) -> None:
        """See Pending."""
        self.cancel()
        connector.count_dial(self._runtime, errors.CONNECT_TIMEOUT)

    async def _run(self, started: float, opening: Opening | None) -> None:
        sink = self._sink
        try:
            await self._connect(started, opening)
        except Exception as error:  # a defect: confined to this request
            self._services.internal_error("dial", error)
            if sink is not None:
                sink.broke()

    async def _connect(self, started: float, opening: Opening | None) -> None:
        services, runtime, asker = self._services, self._runtime, self._sink
        if asker is None:  # it was cancelled before it began
            return
        secure = runtime.pool.tls is not None
        connection = ServerTlsConnection(services, runtime) if secure else UpstreamConnection(services, runtime)
        try:
            header = introduction(runtime.pool, asker.client_transport(), asker.proxied())
            connection.introduced = len(header)
            await connector.dial(
                services, runtime, lambda: connection, asker.timeouts(), header, opening, is_http1=self._is_http1
            )
        except asyncio.CancelledError:
            connection.abandoned()
            raise
        except connector.DialError as error:
            sink = self._done()
            if sink is not None:
                sink.attempt_failed(error.fault, error.detail)
            return
        sink = self._done()
        if sink is None:
            connection.close_idle()
            return
        now = services.clock()
        sink.dialled(now - started)
        if connection.has_ended:
            # Lost between the kernel's accept and this line: nothing was sent, so any method may try again.
            sink.attempt_failed(errors.CLOSED_UNSENT, "closed as soon as it was opened")
            return
        sink.opened(connection, now)

    def _done(self) -> AnswerSink | None:
        """There is a connection, or there will be none. Who hears of it, if anybody does?"""
        sink, self._sink = self._sink, None
        self._task = None
        if sink is not None:
            sink.pending = None
        return sink
