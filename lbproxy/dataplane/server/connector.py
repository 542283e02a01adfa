"""Opening connections to servers, and the only place where a failed dial becomes a Fault."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final, TypeVar, cast

from lbproxy import errors
from lbproxy.dataplane.net.dialer import Opening
from lbproxy.dataplane.runtime import ServerRuntime, UpstreamTimeouts
from lbproxy.dataplane.server.tls import NO_PROTOCOL, ServerTlsTransport, Unwanted, reason_of, tls_fault
from lbproxy.dataplane.services import Services
from lbproxy.dataplane.tls_settings import PoolTlsSettings
from lbproxy.errors import Fault
from lbproxy.telemetry.slots import SERVER

P = TypeVar("P", bound=asyncio.Protocol)
Q = TypeVar("Q", bound=asyncio.BaseProtocol)

_CONNECTED: Final = SERVER.column("upstream_connects_total", "ok")
_RESULT: Final = {
    errors.CONNECT_REFUSED.word: SERVER.column("upstream_connects_total", "refused"),
    errors.CONNECT_TIMEOUT.word: SERVER.column("upstream_connects_total", "timeout"),
}
_ERROR: Final = SERVER.column("upstream_connects_total", "error")

FAULT_BY_ERRNO: Final[dict[int, Fault]] = {
    errno.ECONNREFUSED: errors.CONNECT_REFUSED,
    errno.ENOENT: errors.CONNECT_REFUSED,  # a unix socket that is not there: nobody listens
    errno.ECONNRESET: errors.CONNECT_REFUSED,
    errno.EHOSTUNREACH: errors.CONNECT_UNREACHABLE,
    errno.ENETUNREACH: errors.CONNECT_UNREACHABLE,
    errno.EHOSTDOWN: errors.CONNECT_UNREACHABLE,
    errno.ETIMEDOUT: errors.CONNECT_TIMEOUT,
    errno.EMFILE: errors.LOCAL_RESOURCE,
    errno.ENFILE: errors.LOCAL_RESOURCE,
    errno.ENOBUFS: errors.LOCAL_RESOURCE,
    errno.ENOMEM: errors.LOCAL_RESOURCE,
    errno.EADDRNOTAVAIL: errors.LOCAL_PORTS,
}


class DialError(Exception):
    """A connection that was not made."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


def fault_of(error: OSError) -> Fault:
    """The row for an error of connect(2)."""
    return FAULT_BY_ERRNO.get(error.errno or 0, errors.CONNECT_ERROR)


def count_dial(runtime: ServerRuntime, fault: Fault | None) -> None:
    """Count one finished dial in upstream_connects_total."""
    runtime.row[_CONNECTED if fault is None else _RESULT.get(fault.word, _ERROR)] += 1


def dial_now(services: Services, runtime: ServerRuntime) -> Opening | None:
    """Begin to connect to a server that needs neither TLS nor a header; None if it does.

    Often it stands at once (`is_open`): then `attached` makes it a connection, without a task. Else `dial` goes on with
    it, and that is where a failure shows, even one that is known already: the caller may be in the middle of its books.
    """
    pool = runtime.pool
    if pool.tls is not None or pool.proxy_protocol != "off":
        return None
    return services.dialer.begin(runtime.server.address)


def attached(runtime: ServerRuntime, opening: Opening, protocol: P) -> P:
    """The protocol object on its open connection, counted."""
    count_dial(runtime, None)
    return opening.attach(protocol)


async def dial(
    services: Services,
    runtime: ServerRuntime,
    factory: Callable[[], P],
    timeouts: UpstreamTimeouts,
    header: bytes = b"",
    opening: Opening | None = None,
    *,
    is_http1: bool = False,
) -> P:
    """Connect to a server, TLS included. Raises DialError; the caller owns the time-out (`dial`) and cancels.

    header: a PROXY header, which is sent before anything else. opening: what `dial_now` has begun. is_http1: for a
    WebSocket that the server's HTTP/2 does not open, so HTTP/1.1 is all that is offered to it.
    """
    try:
        if runtime.pool.tls is None:
            protocol = await _connect(opening or services.dialer.begin(runtime.server.address), factory, header)
        else:
            tls = runtime.pool.tls
            protocol = await _dial_tls(services, runtime, tls, lambda _: factory(), timeouts, header, is_http1=is_http1)
    except DialError as error:
        count_dial(runtime, error.fault)
        raise
    count_dial(runtime, None)
    return protocol


async def dial_shared(
    services: Services,
    runtime: ServerRuntime,
    factory: Callable[[str | None], P],
    timeouts: UpstreamTimeouts,
    opening: Opening | None,
) -> P:
    """The same where what is spoken is agreed on. factory: gets what ALPN chose, "" if nothing, None without TLS."""
    tls = runtime.pool.tls
    if tls is None:
        return await dial(services, runtime, lambda: factory(None), timeouts, b"", opening)
    try:
        protocol = await _dial_tls(services, runtime, tls, factory, timeouts, b"")
    except DialError as error:
        count_dial(runtime, error.fault)
        raise
    count_dial(runtime, None)
    return protocol


async def _connect(opening: Opening, factory: Callable[[], Q], header: bytes) -> Q:
    try:
        return await opening.connect(factory, header)
    except OSError as error:
        raise DialError(fault_of(error), error.strerror or str(error)) from None


async def _dial_tls(
    services: Services,
    runtime: ServerRuntime,
    tls: PoolTlsSettings,
    factory: Callable[[str | None], P],
    timeouts: UpstreamTimeouts,
    header: bytes,
    *,
    is_http1: bool = False,
) -> P:
    """Each half has its time-out here; the caller's is for both."""
    name = tls.name_of(runtime.server.host)
    connection = ServerTlsTransport(services, tls, name, runtime, factory, is_http1=is_http1)
    try:
        try:
            async with asyncio.timeout(timeouts.connect):
                await _connect(services.dialer.begin(runtime.server.address), lambda: connection, header)
        except TimeoutError:
            raise DialError(errors.CONNECT_TIMEOUT, "no answer to the connection request") from None
        try:
            async with asyncio.timeout(timeouts.tls_handshake):
                protocol = cast(P, await connection.done)
        except TimeoutError:
            raise DialError(errors.TLS_TIMEOUT, "the TLS handshake took too long") from None
        except (OSError, ValueError, Unwanted) as error:  # ssl.SSLError is an OSError
            if is_http1 and reason_of(error) == NO_PROTOCOL:
                detail = "its HTTP/2 has no extended CONNECT, and it does not speak HTTP/1.1"
                raise DialError(errors.NO_WEBSOCKET, detail) from None
            raise DialError(*tls_fault(error)) from None
    except BaseException:  # whatever it is, cancelling included: the transport must not stay
        connection.give_up()
        raise
    connection.dialled()
    return protocol
