"""TLS settings as the data plane uses them: contexts that can be replaced while connections live.

A new connection takes the context that is current when it begins; one that stands keeps its own. So a reload drops
nothing. The files are read by `load`, in whatever thread; `use` puts the result in place, in the loop's.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lbproxy.address import known_as
from lbproxy.config.certificates import Certificate, client_context, server_context
from lbproxy.dataplane.net.admission import Turns
from lbproxy.telemetry.log import ThrottledLog

TICKET_KEYS_S = 3600.0
HTTP1 = "http/1.1"


@dataclass(frozen=True, slots=True)
class ListenerTlsFiles:
    """What a listener's `tls` says, with paths made absolute. pairs: (certificate, key); the first is the default."""

    pairs: tuple[tuple[str, str], ...]
    min_version: str = "1.2"
    alpn: tuple[str, ...] = ("http/1.1",)
    client_ca: str | None = None
    client_verify: str = "off"

    @property
    def paths(self) -> tuple[str, ...]:
        ca = (self.client_ca,) if self.client_ca is not None else ()
        return tuple(dict.fromkeys([path for pair in self.pairs for path in pair] + list(ca)))

    def load(self) -> ListenerContexts:
        """Read every file. Raises FileProblem."""
        made = [
            server_context(
                cert,
                key,
                min_version=self.min_version,
                alpn=self.alpn,
                client_ca=self.client_ca,
                client_verify=self.client_verify,
            )
            for cert, key in self.pairs
        ]
        return ListenerContexts(tuple(context for context, _ in made), tuple(found for _, found in made))


class ListenerContexts:
    """Contexts for every certificate of a listener; `context` is the one that connections begin with."""

    __slots__ = ("_by_name", "_names", "certificates", "context")

    def __init__(self, contexts: Sequence[ssl.SSLContext], certificates: tuple[Certificate, ...]) -> None:
        self.certificates = certificates
        self.context = contexts[0]
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._names: dict[ssl.SSLContext, frozenset[str]] = {}
        for context, certificate in zip(contexts, certificates, strict=True):
            self._names[context] = frozenset(certificate.names)
            for name in certificate.names:
                self._by_name.setdefault(name, context)
        if len(contexts) > 1:
            self.context.sni_callback = self._choose

    def find(self, name: str) -> ssl.SSLContext:
        """The context whose certificate is for this name: exactly, by a wildcard for one label, or the first."""
        return self._find(_normal(name)) or self.context

    def _find(self, name: str) -> ssl.SSLContext | None:
        return self._by_name.get(name) or self._by_name.get(_wildcard(name))

    def is_misdirected(self, name: str, host: str) -> bool:
        """Is a request for `host` on the wrong connection, whose client has asked for `name`?

        It is where the certificate that was shown is not for the host, and another one is (RFC 9110 section 15.5.20).
        Where no certificate is for it, nobody would be better served by another connection.
        """
        host = _normal(host)
        other = self._find(host)
        shown = self._names[self.find(name)]
        return other is not None and host not in shown and _wildcard(host) not in shown

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if name:
            connection.asked_for = name  # type: ignore[attr-defined]
            chosen = self.find(name)
            if chosen is not self.context:
                connection.context = chosen


def _normal(name: str) -> str:
    return name.lower().rstrip(".")


def _wildcard(name: str) -> str:
    """The certificate's name that is for it and its neighbours."""
    return "*." + name.partition(".")[2]


def asked_for(connection: object) -> str:
    """The name that chose among several certificates (SNI); "" without one, or where there is one certificate."""
    return getattr(connection, "asked_for", "")


class ListenerTlsSettings:
    """TLS of one listener. limit: handshakes at once. timeout_s: for one of them; inf for off.

    renew_s: the files are read again after so long although they are the same, because a context encrypts its session
    tickets with one key for ever, and who learns it can read every TLS 1.2 connection that was resumed with them.
    """

    renew_s: float | None = TICKET_KEYS_S

    __slots__ = ("files", "loaded", "log", "timeout_s", "turns")

    def __init__(self, files: ListenerTlsFiles, loaded: ListenerContexts, *, limit: int, timeout_s: float) -> None:
        self.files = files
        self.loaded = loaded
        self.timeout_s = timeout_s
        self.turns = Turns(limit)
        self.log = ThrottledLog(logging.getLogger("lbproxy"))  # of handshakes that failed

    @property
    def asks_for_certificate(self) -> bool:
        return self.files.client_verify != "off"

    def load(self) -> ListenerContexts:
        return self.files.load()

    def use(self, loaded: ListenerContexts) -> None:
        """New connections are served with this from now on."""
        self.loaded = loaded


@dataclass(frozen=True, slots=True)
class PoolTlsFiles:
    """What a pool's `tls` says. server_name: for SNI and verification; None: the host as a server is configured."""

    verify: bool = True
    ca: str | None = None
    server_name: str | None = None
    cert: str | None = None
    key: str | None = None
    alpn: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def load(self) -> PoolContexts:
        """Read every file. Raises FileProblem."""
        context = self._context(self.alpn)
        has_choice = len(self.alpn) > 1 and HTTP1 in self.alpn
        return PoolContexts(context, self._context((HTTP1,)) if has_choice else context)

    def _context(self, alpn: tuple[str, ...]) -> ssl.SSLContext:
        return client_context(verify=self.verify, ca=self.ca, cert=self.cert, key=self.key, alpn=alpn)


@dataclass(frozen=True, slots=True)
class PoolContexts:
    """http1: for a connection that has to be one of HTTP/1.1, where the server may choose between that and HTTP/2."""

    context: ssl.SSLContext
    http1: ssl.SSLContext


class SessionHolder(Protocol):
    """A server's runtime. tls_session: the context that a session was made with, and the session."""

    tls_session: tuple[object, object] | None


class PoolTlsSettings:
    """TLS towards the servers of one pool. Sessions to resume are kept on each server's runtime, and go with it."""

    renew_s: float | None = None

    __slots__ = ("context", "files", "http1")

    def __init__(self, files: PoolTlsFiles, loaded: PoolContexts) -> None:
        self.files = files
        self.use(loaded)

    def load(self) -> PoolContexts:
        return self.files.load()

    def use(self, loaded: PoolContexts) -> None:
        """New connections are made with this from now on."""
        self.context = loaded.context  # sessions of the one before are found to be its, and not offered
        self.http1 = loaded.http1

    def name_of(self, host: str) -> str | None:
        """The name that a server configured as `host` is asked for; None for a unix socket without server_name."""
        return known_as(self.files.server_name or host) or None

    def session(self, server: SessionHolder) -> Any:
        """The session to offer to a server; None for a full handshake."""
        kept = server.tls_session
        return kept[1] if kept is not None and kept[0] is self.context else None

    def keep_session(self, server: SessionHolder, connection: ssl.SSLObject) -> None:
        """Remember what a connection that ends can be resumed by."""
        if connection.context is self.context:
            session = connection.session
            if session is not None and session.has_ticket:
                server.tls_session = (self.context, session)

    def forget(self, server: SessionHolder) -> None:
        """Its session was no good."""
        server.tls_session = None
