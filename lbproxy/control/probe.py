"""One health check: connect, perhaps ask, judge the answer. No memory; `checker` decides what results mean.

Each check has a connection of its own, ends within its time-out whatever the server does, and reads at most 64 KiB.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httptools

from lbproxy.address import Address
from lbproxy.config.model import HealthCheck
from lbproxy.dataplane.introduction import introduced
from lbproxy.dataplane.tls import ClientTls
from lbproxy.dataplane.tls_client import tls_fault
from lbproxy.protocol.proxy_protocol import build

LIMIT_BYTES = 65_536
_SHOWN = 80  # characters of a server's answer that a message quotes

_OUR_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_NOBODY_LISTENS = frozenset({errno.ECONNREFUSED, errno.ENOENT})  # ENOENT: the unix socket does not exist


class Verdict(enum.Enum):
    PASS = "pass"
    FAIL = "fail"  # a wrong answer, a reset, an unreachable address
    REFUSED = "refused"  # the kernel says that nobody listens
    TIMEOUT = "timeout"  # no answer in time: failed, or only busy
    NONE = "none"  # our own trouble (no descriptors, no ports): says nothing about the server


@dataclass(frozen=True, slots=True)
class Result:
    """reason is one word for `Server.down_reason`, why a sentence for people."""

    verdict: Verdict
    reason: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """A health check made ready: what is sent, what is expected back."""

    timeout_s: float
    port: int | None = None
    is_http: bool = False
    method: str = "GET"
    path: str = "/"
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    body_pattern: re.Pattern[str] | None = None
    send: bytes = b""
    expect: bytes = b""
    tls: ClientTls | None = None
    tls_name: str | None = None
    server_host: str = ""  # as configured: a name, where `address` has what it resolved to
    introduction: bytes = b""  # a PROXY header, sent before all else

    @classmethod
    def from_config(cls, check: HealthCheck, proxy_protocol: str = "off", tls: ClientTls | None = None) -> ProbeSpec:
        """proxy_protocol: that of the pool. A check with a port of its own goes to something else, which gets none."""
        is_introduced = proxy_protocol != "off" and check.port is None
        return cls(
            introduction=build(proxy_protocol, None, None, is_check=True) if is_introduced else b"",
            timeout_s=check.timeout,
            port=check.port,
            is_http=check.type == "http",
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
        if address.is_unix:
            return "localhost"
        is_name = self.server_host and ":" not in self.server_host
        return f"{self.server_host}:{address.port}" if is_name else str(address)

    def request(self, address: Address) -> bytes:
        """The HTTP request, with `Connection: close`: the connection is used once."""
        fields = {
            "Host": self.host or self._authority(address),
            "User-Agent": "lbproxy-health-check",
            "Accept": "*/*",
        }
        if self.body:
            fields["Content-Length"] = str(len(self.body))
        own = {name.lower() for name in self.headers}
        lines = [f"{name}: {value}" for name, value in fields.items() if name.lower() not in own]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "Connection: close", "", ""])
        return head.encode("latin-1", "replace") + self.body


class Answer:
    """Takes in an HTTP response as it arrives, within bounds. httptools calls the `on_...` methods."""

    def __init__(self, spec: ProbeSpec) -> None:
        self._spec = spec
        self._parser = httptools.HttpResponseParser(self)
        self._received = 0
        self.status: int | None = None
        self.body = bytearray()
        self.is_complete = False

    def feed(self, data: bytes) -> Result | None:
        """The result as soon as it is certain, else None. `data` b"" is the end of the connection."""
        if not data:
            return self.judge() if self.status is not None else _failed("closed", "closed the connection unanswered")
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.status = 101
            return self.judge()
        except httptools.HttpParserError as error:
            if self.status is None or not self.is_complete:
                return _failed("bad_response", f"sent an answer that is not valid HTTP: {error}")
        if self.is_complete:
            return self.judge()
        if self._received >= LIMIT_BYTES:
            if self.status is None:
                return _failed("bad_response", f"sent a response head of more than {LIMIT_BYTES} bytes")
            return self.judge()
        return None

    def close(self) -> None:
        """Nothing more comes. The parser knows this object, and the two would wait for the garbage collector."""
        del self._parser

    def judge(self) -> Result:
        """The result from what has arrived; the status must be known."""
        status, pattern = self.status, self._spec.body_pattern
        asked = f"{self._spec.method} {self._spec.path}"
        if status is None or not any(low <= status <= high for low, high in self._spec.status):
            wanted = ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in self._spec.status)
            return _failed("status", f"answered {status} to {asked}, expected {wanted}")
        if pattern is not None and not pattern.search(bytes(self.body[:LIMIT_BYTES]).decode("utf-8", "replace")):
            return _failed("body", f"answered {asked} with a body that does not match {pattern.pattern[:_SHOWN]!r}")
        return Result(Verdict.PASS, why=f"answered {status} to {asked}")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            # The parser does not know the method, and would wait for the body that HEAD never brings.
            self.is_complete = self._spec.method == "HEAD"

    def on_body(self, data: bytes) -> None:
        if len(self.body) < LIMIT_BYTES:
            self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = self.status is not None  # otherwise it was a 1xx


async def probe(spec: ProbeSpec, address: Address) -> Result:
    """Check one server; takes at most spec.timeout_s. Never raises, except when cancelled."""
    target = spec.target(address)
    answer = Answer(spec)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(spec.timeout_s):
            reader, writer = await _connect(spec, target)
            if spec.is_http:
                return await _ask_http(spec, target, answer, reader, writer)
            return await _ask_tcp(spec, reader, writer)
    except TimeoutError:
        # A stalled body is not waited for when only the status counts (an endless /events may be the check).
        if answer.status is not None and spec.body_pattern is None:
            return answer.judge()
        waited = "no answer" if writer is not None else "no connection"
        return Result(Verdict.TIMEOUT, "timeout", f"{waited} within {spec.timeout_s:g} s")
    except (ssl.SSLError, ssl.CertificateError) as error:
        fault, why = tls_fault(error)
        return _failed(fault.reason, why)
    except OSError as error:
        return _from_os_error(error)
    finally:
        answer.close()
        if writer is not None:
            writer.transport.abort()


async def _connect(spec: ProbeSpec, target: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    options: dict[str, Any] = {"limit": LIMIT_BYTES}
    if spec.tls is not None:
        # "" switches the loop's own idea of a name off; the time-out of the whole check is enough of a bound.
        options |= {"ssl": spec.tls.context, "server_hostname": spec.tls_name or ""}
    connect = asyncio.open_unix_connection if target.is_unix else asyncio.open_connection
    return await connect(sock=await introduced(asyncio.get_running_loop(), target, spec.introduction), **options)


async def _ask_http(
    spec: ProbeSpec, target: Address, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Result:
    writer.write(spec.request(target))
    result: Result | None = None
    while result is None:
        result = answer.feed(await reader.read(LIMIT_BYTES))
    return result


async def _ask_tcp(spec: ProbeSpec, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Result:
    if spec.send:
        writer.write(spec.send)
    received = b""
    while len(received) < len(spec.expect):
        data = await reader.read(LIMIT_BYTES)
        received += data
        if not data or not spec.expect.startswith(received[: len(spec.expect)]):
            break
    if received.startswith(spec.expect):
        return Result(Verdict.PASS, why="answered as expected" if spec.expect else "accepted a connection")
    got = received[:_SHOWN].decode("utf-8", "replace")
    return _failed("answer", f"answered {got!r} instead of {spec.expect[:_SHOWN].decode('utf-8', 'replace')!r}")


def _failed(reason: str, why: str) -> Result:
    return Result(Verdict.FAIL, reason, why)


def _from_os_error(error: OSError) -> Result:
    number = error.errno
    text = error.strerror or type(error).__name__
    if number in _NOBODY_LISTENS:
        return Result(Verdict.REFUSED, "refused", "connection refused")
    if number in _OUR_TROUBLE:
        return Result(Verdict.NONE, "local_resource", f"the check could not be made: {text}")
    if number in (errno.ECONNRESET, errno.EPIPE):
        return _failed("reset", "reset the connection")
    if number == errno.ETIMEDOUT:
        return Result(Verdict.TIMEOUT, "timeout", text)
    return _failed("connect_error", f"connecting failed: {text}")
