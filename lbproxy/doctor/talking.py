"""A connection of the doctor's to a server: one request after the other, or silence until the server ends it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lbproxy.address import Address
from lbproxy.dataplane.server.introduction import introduced
from lbproxy.dataplane.server.tls import tls_fault
from lbproxy.doctor.answer import BadAnswer, Reader, Reply

AGENT: Final = "lbproxy-doctor"
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class NoAnswer(Exception):
    """A question had no answer. The text is a sentence without a subject."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and how: host is for the Host field; tls_name "" for none; introduction: a PROXY header."""

    address: Address
    host: str
    timeout_s: float
    tls: ssl.SSLContext | None = None
    tls_name: str = ""
    introduction: bytes = b""


@dataclass(frozen=True, slots=True)
class Question:
    """A request."""

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def text(self, host: str) -> bytes:
        """As it is sent."""
        fields = {"Host": host, "User-Agent": AGENT, "Accept": "*/*"}
        if self.body or self.method in _WITH_BODY:
            fields["Content-Length"] = str(len(self.body))
        own = {name.lower() for name in self.headers}
        lines = [f"{name}: {value}" for name, value in fields.items() if name.lower() not in own]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + self.body


class Line(asyncio.Protocol):
    """One connection. `ended` is done when the server has ended it."""

    def __init__(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._reader: Reader | None = None
        self._answer: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer is None or self._answer.done():
            return  # nobody has asked: perhaps a 408 before it closes
        try:
            self._reader.feed(data)
        except BadAnswer as error:
            self._answer.set_exception(NoAnswer(str(error)))
            return
        if self._reader.reply is not None:
            self._answer.set_result(self._reader.reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._reader is None or self._answer is None or self._answer.done():
            return
        try:
            if exc is not None:
                raise BadAnswer("reset the connection")
            self._reader.end()
        except BadAnswer as error:
            self._answer.set_exception(NoAnswer(str(error)))
            return
        if self._reader.reply is not None:
            self._answer.set_result(self._reader.reply)

    async def ask(self, question: Question) -> Reply:
        """Raises NoAnswer."""
        if self._transport is None or self.ended.done():
            raise NoAnswer("closed the connection")
        self._reader = Reader(question.method)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(question.text(self._target.host))
        try:
            async with asyncio.timeout(self._target.timeout_s):
                return await self._answer
        except TimeoutError:
            raise NoAnswer(
                f"no answer to {question.method} {question.path} within {self._target.timeout_s:g} s"
            ) from None

    async def silence(self, limit_s: float) -> float | None:
        """Seconds until the server ends the connection, None if it does not within the limit."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self.ended)
        except TimeoutError:
            return None
        return loop.time() - began

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def dial(target: Target) -> Line:
    """A connection that stands. Raises NoAnswer."""
    try:
        async with asyncio.timeout(target.timeout_s):
            return await _dial(target)
    except TimeoutError:
        raise NoAnswer(f"no connection within {target.timeout_s:g} s") from None
    except (ssl.SSLError, ssl.CertificateError) as tls_error:
        raise NoAnswer(tls_fault(tls_error)[1]) from None
    except OSError as error:
        raise NoAnswer(f"connecting failed: {error.strerror or type(error).__name__}") from None


async def _dial(target: Target) -> Line:
    loop = asyncio.get_running_loop()
    sock = await introduced(loop, target.address, target.introduction)
    options: dict[str, Any] = {} if target.tls is None else {"ssl": target.tls, "server_hostname": target.tls_name}
    try:
        _, line = await loop.create_connection(lambda: Line(target), sock=sock, **options)
    except BaseException:  # also when the time is over: the loop has not taken the socket yet, or has closed it
        sock.close()
        raise
    return line


async def ask_once(target: Target, question: Question) -> Reply:
    """One question on a connection of its own. Raises NoAnswer."""
    line = await dial(target)
    try:
        return await line.ask(question)
    finally:
        line.close()
