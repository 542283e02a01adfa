"""One health check: connect, perhaps ask, judge the answer. No memory; `checker` decides what results mean.

Each check has a connection of its own, ends within its time-out whatever the server does, and reads at most 64 KiB.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, cast

from lbproxy.address import Address, authority
from lbproxy.config.model import HealthCheck
from lbproxy.control import probe_http2
from lbproxy.control.probe_result import Result as Result
from lbproxy.control.probe_result import Verdict as Verdict
from lbproxy.control.probe_result import failed
from lbproxy.dataplane.server.introduction import introduced
from lbproxy.dataplane.server.tls import tls_fault
from lbproxy.dataplane.tls_settings import PoolTlsSettings
from lbproxy.protocol.proxy_protocol import build

LIMIT_BYTES = 65_536
_SHOWN = 80  # characters of a server's answer that a message quotes

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?")
_NO_ANSWER = re.compile(rb"(?!H?$|HT?$|HTT?$|HTTP?$|HTTP/)|(?!HTTP/1\.[0-9] [1-9][0-9]{2}[ \r\n])[^\n]*\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\n]*)?\r?$")
_CHUNK_END = re.compile(rb"\r?\n")

# A request with one of these and no body says so (RFC 9110 section 8.6): some servers answer 411 else.
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_OUR_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_NOBODY_LISTENS = frozenset({errno.ECONNREFUSED, errno.ENOENT})  # ENOENT: the unix socket does not exist


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """A health check made ready: what is sent, what is expected back."""

    timeout_s: float
    port: int | None = None
    is_http: bool = False
    is_http2: bool = False
    service: str | None = None  # of a check by grpc.health.v1; None: it is no such check
    method: str = "GET"
    path: str = "/"
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    body_pattern: re.Pattern[str] | None = None
    send: bytes = b""
    expect: bytes = b""
    tls: PoolTlsSettings | None = None
    tls_name: str | None = None
    server_host: str = ""  # as configured: a name, where `address` has what it resolved to
    introduction: bytes = b""  # a PROXY header, sent before all else

    @classmethod
    def from_config(
        cls,
        check: HealthCheck,
        proxy_protocol: str = "off",
        tls: PoolTlsSettings | None = None,
        protocol: str = "h1",
    ) -> ProbeSpec:
        """proxy_protocol, protocol: those of the pool. A check with a port of its own goes to something else, which
        gets no header."""
        is_introduced = proxy_protocol != "off" and check.port is None
        return cls(
            introduction=build(proxy_protocol, None, None, is_check=True) if is_introduced else b"",
            timeout_s=check.timeout,
            port=check.port,
            is_http=check.type == "http",
            is_http2=check.type == "grpc" or (check.type == "http" and protocol == "h2"),
            service=(check.service or "") if check.type == "grpc" else None,
            method=check.method,
            path=check.path,
            host=check.host,
            headers=check.headers,
            body=(check.body or "").encode(),
            status=check.expect.status,
            body_pattern=re.compile(check.expect.body) if check.expect.body is not None else None,
            send=(check.send or "").encode(),
            expect=(check.expect.text or "").encode(),
            tls=tls,
        )

    def named(self, host: str) -> ProbeSpec:
        """The check of a server that is configured as `host`: servers by name may serve nothing to other names."""
        return replace(self, server_host=host, tls_name=self.tls.name_of(host) if self.tls is not None else None)

    def target(self, address: Address) -> Address:
        """Where the check of a server goes."""
        return address if self.port is None or address.is_unix else Address(address.host, self.port)

    def _authority(self, address: Address) -> str:
        return authority(self.server_host or address.host, address.port)

    def asking(self, address: Address) -> probe_http2.Asking:
        """The request over HTTP/2."""
        asking = probe_http2.Asking(LIMIT_BYTES)
        authority = self.host or self._authority(address)
        is_tls = self.tls is not None
        if self.service is not None:
            probe_http2.call(asking, authority, self.service, is_tls=is_tls)
            return asking
        fields = self._fields(address)
        fields.pop("Host", None)
        lines = probe_http2.lines_of(fields)
        asking.ask(self.method.encode(), authority.encode(), self.path.encode(), lines, self.body, is_tls=is_tls)
        return asking

    def request(self, address: Address) -> bytes:
        """The HTTP request, with `Connection: close`: the connection is used once."""
        lines = [f"{name}: {value}" for name, value in self._fields(address).items()]
        head = "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "Connection: close", "", ""])
        return head.encode("latin-1", "replace") + self.body

    def _fields(self, address: Address) -> dict[str, str]:
        """lbproxy's own and those of the config, which win."""
        fields = {
            "Host": self.host or self._authority(address),
            "User-Agent": "lbproxy-health-check",
            "Accept": "*/*",
        }
        if self.body or self.method in _WITH_BODY:
            fields["Content-Length"] = str(len(self.body))
        own = {name.lower() for name in self.headers}
        return {name: value for name, value in fields.items() if name.lower() not in own} | dict(self.headers)


class Conversation:
    """What a server says to a check, as it arrives. Subclasses say what becomes of it."""

    def feed(self, data: bytes) -> Result | None:
        """The result as soon as it is certain, else None."""
        raise NotImplementedError

    def end(self) -> Result | None:
        """The result from what has arrived, as nothing more comes; None if that is nothing to judge by.

        How the stream ended does not matter: a server that answers without reading closes with a reset.
        """
        raise NotImplementedError

    def in_time(self) -> Result | None:
        """The same when the time is over: None if more is needed."""
        raise NotImplementedError

    def take_output(self) -> bytes:
        """What has to be said now."""
        return b""


class Answer(Conversation):
    """An HTTP response, within bounds, read as leniently as can be understood in one way only.

    Lines may end in LF alone, as those of small check scripts do. The status line counts once it is complete, whatever
    becomes of the fields behind it. Nothing is forwarded from here, so leniency opens no door.
    """

    def __init__(self, spec: ProbeSpec) -> None:
        self._spec = spec
        self._buffer = b""
        self._received = 0
        self._left: float | None = None  # of a body with a length, inf if it ends with the connection
        self.status: int | None = None
        self.body = bytearray()
        self.is_complete = False

    def feed(self, data: bytes) -> Result | None:
        self._received += len(data)
        self._buffer += data
        while self.status is None:
            head = _HEAD_END.search(self._buffer)
            if head is None:
                if _NO_ANSWER.match(self._buffer):
                    return failed("bad_response", f"sent no HTTP/1 answer but {quoted(self._buffer)}")
                if self._received >= LIMIT_BYTES:
                    return failed("bad_response", f"sent a response head of more than {LIMIT_BYTES} bytes")
                return None
            lines = self._buffer[: head.start()].split(b"\n")
            self._buffer = self._buffer[head.end() :]
            status = _status_of(lines[0])
            if status is None:
                return failed("bad_response", f"sent no HTTP/1 answer but {quoted(lines[0])}")
            if status == 101 or status >= 200:
                self._begin_body(status, lines[1:])
        self._take_body()
        return self.judge() if self.is_complete or self._received >= LIMIT_BYTES else None

    def end(self) -> Result | None:
        if self.status is None:
            self.status = _status_of(self._buffer.partition(b"\n")[0]) if b"\n" in self._buffer else None
            if self.status is None or 101 != self.status < 200:
                return failed("closed", "closed the connection in the middle of an answer") if self._received else None
        if self._left is None:
            self._take_chunks(is_cut=True)
        return self.judge()

    def in_time(self) -> Result | None:
        """A stalled body is not waited for when only the status counts, or when what counts is there."""
        if self.status is None:
            return None
        result = self.judge()
        return None if result.reason == "body" else result

    def _begin_body(self, status: int, lines: list[bytes]) -> None:
        self.status = status
        fields = dict(_field(line) for line in lines)
        length = fields.get(b"content-length", b"")
        if self._spec.method == "HEAD" or status in (101, 204, 304):
            self.is_complete = True
        elif fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            self._left = None
        else:
            self._left = int(length) if length.isdigit() and len(length) < 19 else inf

    def _take_body(self) -> None:
        if self._left is None:
            self._take_chunks()
            return
        self.body += self._buffer
        self._left -= len(self._buffer)
        self._buffer = b""
        self.is_complete = self.is_complete or self._left <= 0

    def _take_chunks(self, *, is_cut: bool = False) -> None:
        while not self.is_complete and b"\n" in self._buffer:
            line, _, rest = self._buffer.partition(b"\n")
            size = _CHUNK_SIZE.match(line)
            if size is None or int(size[1], 16) == 0:
                self.is_complete = True  # or broken: what has arrived is judged
                return
            n = int(size[1], 16)
            chunk = _CHUNK_END.match(rest, n)
            if chunk is None and not is_cut:
                return  # more of it is to come
            self.body += rest[:n]
            self._buffer = rest[chunk.end() :] if chunk is not None else b""

    def judge(self) -> Result:
        """The result from what has arrived; the status must be known."""
        status, pattern = self.status, self._spec.body_pattern
        asked = f"{self._spec.method} {self._spec.path}"
        if status is None or not any(low <= status <= high for low, high in self._spec.status):
            wanted = ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in self._spec.status)
            return failed("status", f"answered {status} to {asked}, expected {wanted}")
        if pattern is not None and not pattern.search(bytes(self.body[:LIMIT_BYTES]).decode("utf-8", "replace")):
            return failed("body", f"answered {asked} with a body that does not match {pattern.pattern[:_SHOWN]!r}")
        return Result(Verdict.PASS, why=f"answered {status} to {asked}")


class Http2Answer(Answer):
    """The same over HTTP/2, and what gRPC's health check says."""

    def __init__(self, spec: ProbeSpec, address: Address) -> None:
        super().__init__(spec)
        self._asking = spec.asking(address)

    def take_output(self) -> bytes:
        return self._asking.take_output()

    def feed(self, data: bytes) -> Result | None:
        self._received += len(data)
        asking = self._asking
        asking.read(data)
        self.status = asking.status or None
        self.body = asking.body
        if asking.why is not None:
            return failed(*asking.why)
        return self.judge() if asking.is_over else None

    def end(self) -> Result | None:
        if self._asking.status and self._spec.service is None:
            return self.judge()
        return failed("closed", "closed the connection in the middle of an answer") if self._asking.status else None

    def in_time(self) -> Result | None:
        return super().in_time() if self._spec.service is None else None

    def judge(self) -> Result:
        return (
            super().judge() if self._spec.service is None else probe_http2.judge_call(self._asking, self._spec.service)
        )


class Greeting(Conversation):
    """What a TCP check waits for: a text that the server's answer begins with, or nothing."""

    def __init__(self, spec: ProbeSpec) -> None:
        self._expect = spec.expect
        self._received = b""

    def feed(self, data: bytes) -> Result | None:
        self._received += data
        if self._received.startswith(self._expect):
            return Result(Verdict.PASS, why="answered as expected" if self._expect else "accepted a connection")
        return None if self._expect.startswith(self._received) else self.end()

    def end(self) -> Result | None:
        if not self._received:
            return None
        return failed("answer", f"answered {quoted(self._received)} instead of {quoted(self._expect)}")

    def in_time(self) -> Result | None:
        return None


def quoted(data: bytes) -> str:
    """The beginning of what a server sent, for a message."""
    return repr(data[:_SHOWN].decode("utf-8", "replace"))


def _status_of(line: bytes) -> int | None:
    found = _STATUS_LINE.fullmatch(line)
    return int(found[1]) if found is not None else None


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip()


class _Exchange(asyncio.Protocol):
    """Gives what arrives to a conversation; `done` is its result. What came before a reset counts like any other."""

    def __init__(self, conversation: Conversation) -> None:
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._conversation = conversation
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self.done.done():
            result = self._conversation.feed(data)
            answer = self._conversation.take_output()
            if answer and self._transport is not None:
                self._transport.write(answer)
            self.settle(result)

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.done.done():
            return
        result = self._conversation.end()
        if result is None:
            if isinstance(exc, (ssl.SSLError, ssl.CertificateError)):
                fault, why = tls_fault(exc)
                result = failed(fault.reason, why)
            elif isinstance(exc, OSError):
                result = _from_os_error(exc)
            else:
                result = failed("closed", "closed the connection unanswered")
        self.done.set_result(result)

    def settle(self, result: Result | None) -> None:
        if result is not None:
            self.done.set_result(result)


def _conversation(spec: ProbeSpec, target: Address) -> Conversation:
    if spec.is_http2:
        return Http2Answer(spec, target)
    return Answer(spec) if spec.is_http else Greeting(spec)


async def probe(spec: ProbeSpec, address: Address) -> Result:
    """Check one server; takes at most spec.timeout_s. Never raises, except when cancelled."""
    target = spec.target(address)
    conversation = _conversation(spec, target)
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(spec.timeout_s):
            transport, exchange = await _connect(spec, target, conversation)
            if spec.is_http2:
                transport.write(conversation.take_output())
            elif spec.is_http:
                transport.write(spec.request(target))
            else:
                if spec.send:
                    transport.write(spec.send)
                exchange.data_received(b"")  # nothing may be what is expected
            return await exchange.done
    except TimeoutError:
        waited = "no answer" if transport is not None else "no connection"
        late = Result(Verdict.TIMEOUT, "timeout", f"{waited} within {spec.timeout_s:g} s")
        return conversation.in_time() or late
    except (ssl.SSLError, ssl.CertificateError) as error:
        fault, why = tls_fault(error)
        return failed(fault.reason, why)
    except OSError as error:
        return _from_os_error(error)
    finally:
        if transport is not None:
            transport.abort()


async def _connect(spec: ProbeSpec, target: Address, conversation: Conversation) -> tuple[asyncio.Transport, _Exchange]:
    loop = asyncio.get_running_loop()
    sock = await introduced(loop, target, spec.introduction)
    options: dict[str, Any] = {}
    if spec.tls is not None:
        # "" switches the loop's own idea of a name off; the time-out of the whole check is enough of a bound.
        options = {"ssl": spec.tls.context, "server_hostname": spec.tls_name or ""}
    try:
        transport, exchange = await loop.create_connection(lambda: _Exchange(conversation), sock=sock, **options)
    except BaseException:  # also when the time is over: the loop has not taken the socket yet, or has closed it
        sock.close()
        raise
    return transport, exchange


def _from_os_error(error: OSError) -> Result:
    number = error.errno
    text = error.strerror or type(error).__name__
    if number in _NOBODY_LISTENS:
        return Result(Verdict.REFUSED, "refused", "connection refused")
    if number in _OUR_TROUBLE:
        return Result(Verdict.NONE, "local_resource", f"the check could not be made: {text}")
    if number in (errno.ECONNRESET, errno.EPIPE):
        return failed("reset", "reset the connection")
    if number == errno.ETIMEDOUT:
        return Result(Verdict.TIMEOUT, "timeout", text)
    return failed("connect_error", f"connecting failed: {text}")
