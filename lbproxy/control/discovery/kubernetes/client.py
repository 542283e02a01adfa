"""Requests to the API server, with aiohttp.

Why not the client of the Kubernetes project: of its many thousand types and calls this needs one list and one watch,
whose rules (watching.py) are not in it either: its watch gives up at 410 and drops bookmarks. It is synchronous, brings
eight packages and takes seconds to import. aiohttp is here already, for the admin address, and is imported when the
first such source begins.

An answer is read as it comes, within bounds, never redirected, and never through a proxy of the environment: the token
goes to the API server and nowhere else.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from lbproxy.control.discovery.kubernetes.access import Access, tls_context
from lbproxy.control.discovery.kubernetes.slices import Malformed
from lbproxy.control.discovery.kubernetes.watching import Ask

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

CONNECT_S = 5.0  # for TCP and TLS
LIST_S = 15.0  # for a page
HEAD_S = 10.0  # for the beginning of any answer
SPARE_S = 10.0  # beyond the time that a watch was asked to last
MAX_PAGE_BYTES = 16 << 20
MAX_LINE_BYTES = 2 << 20  # etcd keeps objects of 1.5 MiB
MAX_ERROR_BYTES = 64 << 10


class TooLong(Malformed):
    """An answer without end."""


class Cut(OSError):
    """The connection was lost in the middle of a body, or the time for all of it is over."""


class Reply(Protocol):
    """An answer whose head has come. retry_after_s: 0 if it does not say."""

    status: int
    retry_after_s: float

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Cut."""
        ...


class Api(Protocol):
    """Who asks."""

    def get(self, access: Access, path: str, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Raises OSError where there is no answer, with words for the user."""
        ...

    async def close(self) -> None: ...


MakeApi = Callable[[], Api]


class Lines:
    """Lines out of a stream of bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._n_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now. Raises TooLong."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            line = b"".join(self._parts)
            self._parts, self._n_bytes = [], 0
            if line:
                yield line
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._n_bytes += len(part)
        if self._n_bytes > MAX_LINE_BYTES:
            raise TooLong(f"a line of the watch has more than {MAX_LINE_BYTES >> 20} MiB")
        if part:
            self._parts.append(part)


async def whole(reply: Reply, most_bytes: int) -> bytes:
    """A body. Raises Cut and TooLong."""
    parts: list[bytes] = []
    n_bytes = 0
    async with aclosing(reply.chunks()) as chunks:
        async for chunk in chunks:
            n_bytes += len(chunk)
            if n_bytes > most_bytes:
                raise TooLong(f"an answer has more than {most_bytes >> 10} KiB")
            parts.append(chunk)
    return b"".join(parts)


class HttpApi:
    """A client of its own for each source, so that nothing of one reaches another."""

    def __init__(self) -> None:
        self._session: ClientSession | None = None
        self._shown: tuple[bytes, bytes, bytes] | None = None  # what _tls was made from
        self._tls: ssl.SSLContext | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def get(self, access: Access, path: str, ask: Ask) -> AsyncIterator[Reply]:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        total_s = ask.timeout_s + SPARE_S if ask.watches else LIST_S
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "lbproxy"}
        if access.token:
            headers["Authorization"] = f"Bearer {access.token}"
        try:
            response = await self._session.get(
                access.url + path,
                params=list(ask.query),
                headers=headers,
                ssl=self._context(access) if access.url.startswith("https:") else True,
                server_hostname=access.server_name or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S),
            )
        except aiohttp.ClientConnectorError as unreached:
            raise OSError(f"cannot reach {access.url}: {_words(unreached)}") from None
        except (aiohttp.ClientError, ValueError) as broken:
            raise OSError(f"asking {access.url}: {str(broken) or type(broken).__name__}") from None
        try:
            yield _HttpReply(response)
        finally:
            connection = response.connection  # None where the answer is complete: then it is kept
            if connection is not None and connection.transport is not None:
                connection.transport.abort()  # TLS would wait for the last word of a server that may be gone
            response.close()

    def _context(self, access: Access) -> ssl.SSLContext:
        """Made when what it is made from changes, so that connections can be kept."""
        shown = access.ca, access.cert, access.key
        if self._tls is None or shown != self._shown:
            self._tls, self._shown = tls_context(access), shown
        return self._tls


class _HttpReply:
    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.retry_after_s = seconds(response.headers.get("Retry-After", ""))

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        import aiohttp

        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except TimeoutError:
            raise Cut("the API server did not send all of its answer in time") from None
        except aiohttp.ClientError as error:
            raise Cut(f"the connection to the API server was lost: {str(error) or type(error).__name__}") from None


def seconds(retry_after: str) -> float:
    """What a Retry-After field says in seconds; 0 for a date, which the API server does not send."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6 else 0.0


def _words(error: Exception) -> str:
    """aiohttp's own text tells the host and its settings once more."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate does not count: {cause.verify_message}"
    return getattr(cause, "strerror", None) or str(cause or error)
