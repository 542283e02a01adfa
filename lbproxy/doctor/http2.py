"""What the doctor asks a server of HTTP/2: one call of grpc.health.v1, which others answer in their own way.

It tells whether HTTP/2 is spoken there (by prior knowledge, or by ALPN where the pool has TLS), how many requests at
once a connection takes, whether the server is one of gRPC, and whether it says that it serves.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Final

from lbproxy.control.probe_http2 import Asking, call, judge_call
from lbproxy.control.probe_result import Verdict
from lbproxy.dataplane.server.introduction import introduced
from lbproxy.dataplane.server.tls import tls_fault
from lbproxy.doctor.talking import NoAnswer, Target
from lbproxy.protocol.h2.settings import UNLIMITED

LIMIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Http2Answer:
    """server: its Server field, "" without one. streams: what it allows at once, None for any number. is_grpc: the
    answer was gRPC's. is_serving: of the health check of gRPC, for the whole server; says: in words."""

    server: str
    streams: int | None
    is_grpc: bool
    is_serving: bool
    says: str


class _Http2Line(asyncio.Protocol):
    """One connection with one call."""

    def __init__(self, target: Target) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asking = Asking(LIMIT_BYTES)
        self._target = target
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(NoAnswer("does not offer HTTP/2 (ALPN h2)"))
            return
        call(self.asking, self._target.host, "", is_tls=tls is not None)
        transport.write(self.asking.take_output())

    def data_received(self, data: bytes) -> None:
        self.asking.read(data)
        said = self.asking.take_output()
        if said and self._transport is not None:
            self._transport.write(said)
        if self.asking.why is not None:
            self._end(NoAnswer(self.asking.why[1]))
        elif self.asking.is_over:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(NoAnswer("closed the connection" if exc is None else "reset the connection"))

    def _end(self, error: NoAnswer | None) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def ask_http2(target: Target, tls: ssl.SSLContext | None) -> Http2Answer:
    """tls: a context that offers h2 alone, None without TLS. Raises NoAnswer."""
    try:
        async with asyncio.timeout(target.timeout_s):
            return await _ask(target, tls)
    except TimeoutError:
        raise NoAnswer(f"no answer over HTTP/2 within {target.timeout_s:g} s") from None
    except (ssl.SSLError, ssl.CertificateError) as tls_error:
        raise NoAnswer(tls_fault(tls_error)[1]) from None
    except OSError as error:
        raise NoAnswer(f"connecting failed: {error.strerror or type(error).__name__}") from None


async def _ask(target: Target, tls: ssl.SSLContext | None) -> Http2Answer:
    loop = asyncio.get_running_loop()
    sock = await introduced(loop, target.address, target.introduction)
    options: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": target.tls_name}
    try:
        _, line = await loop.create_connection(lambda: _Http2Line(target), sock=sock, **options)
    except BaseException:  # also when the time is over: the loop has not taken the socket yet, or has closed it
        sock.close()
        raise
    try:
        await line.done
    finally:
        line.close()
    return judged(line.asking)


def judged(asking: Asking) -> Http2Answer:
    """What a whole answer says."""
    fields = dict(asking.fields)
    is_grpc = fields.get(b"content-type", b"").startswith(b"application/grpc")
    result = judge_call(asking, "")
    most = asking.peer.max_concurrent_streams
    name = fields.get(b"server", b"").decode("ascii", "replace")[:80]
    return Http2Answer(
        name if name.isprintable() else repr(name),
        None if most == UNLIMITED else most,
        is_grpc,
        is_grpc and result.verdict is Verdict.PASS,
        result.why if is_grpc else "",
    )
