"""TLS towards clients: the handshake with its bounds, and what a client's certificate says."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from typing import Any, Final

from lbproxy import errors
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.client.http2 import Http2Connection
from lbproxy.dataplane.client.plain_http import FAREWELL, PlainHttpConnection, speaks_http1, speaks_http2
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.tls_reasons import reason_of
from lbproxy.dataplane.net.tls_transport import CLOSED, HANDSHAKE, TlsTransport
from lbproxy.dataplane.tcp.session import TcpClient
from lbproxy.dataplane.tls_settings import ListenerContexts, ListenerTlsSettings, asked_for
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import HeadError
from lbproxy.protocol.message import Fields
from lbproxy.protocol.proxy_protocol import ProxyHeader
from lbproxy.telemetry.slots import LISTENER, TLS_ERRORS

LINGER_S: Final = 2.0  # for the client to read why its handshake failed
NEVER: Final = float("inf")
_ERROR: Final = {reason: LISTENER.column("tls_handshake_errors_total", reason) for reason in TLS_ERRORS}
_DONE: Final = {
    is_resumed: LISTENER.column("tls_handshakes_total", word) for is_resumed, word in ((False, "no"), (True, "yes"))
}
# RFC 8446 section 6.2: fatal, unexpected_message. OpenSSL sends none for a request in plain HTTP, which gets this one
# in TCP mode, where nobody knows that the port is for HTTP.
_ALERT: Final = bytes((21, 3, 3, 0, 2, 2, 10))
_ACCESS_DENIED: Final = bytes((21, 3, 3, 0, 2, 2, 49))
_QUIET: Final = frozenset(("closed", "timeout"))  # port scanners and probes: of no interest one by one
_REASON: Final = {
    "HTTP_REQUEST": "plain_http",
    "HTTPS_PROXY_REQUEST": "plain_http",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "UNKNOWN_PROTOCOL": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "cipher",
    "NO_SHARED_GROUPS": "cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_certificate",
}

_MEANING: Final = {
    "HTTP_REQUEST": "it speaks plain HTTP; this port takes https:// only",
    "HTTPS_PROXY_REQUEST": "it takes this port for a forward proxy (CONNECT)",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust who signed this listener's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept this listener's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this listener's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this listener's certificate has expired, it says",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no certificate, and client_verify is required",
}
"""What to say of OpenSSL's reasons that most users cannot do much with."""


def handshake_reason(error: Exception) -> str:
    """The word of TLS_ERRORS for a failed handshake."""
    if not isinstance(error, ssl.SSLError):
        return "closed" if isinstance(error, OSError) else "protocol"
    reason = reason_of(error)
    return _REASON.get(reason) or ("client_alert" if "_ALERT_" in reason else "protocol")


class ClientTlsTransport(TlsTransport):
    """One client connection of a TLS listener. Counted and swept from accept on, so that handshakes can't pile up."""

    __slots__ = (
        "_deadline",
        "_has_begun",
        "_is_in_line",
        "_loaded",
        "_owner",
        "_refusal",
        "_tls",
        "_was_started",
        "client_fields",
        "client_subject",
        "proxied",
    )

    def __init__(
        self, owner: Door, tls: ListenerTlsSettings, proxied: ProxyHeader | None = None, refusal: Fault | None = None
    ) -> None:
        """proxied: what a PROXY header before the handshake said of the client. refusal: why there will be none."""
        super().__init__(owner.services.loop, owner.services.internal_error)
        self.proxied = proxied
        self._owner = owner
        self._tls = tls
        self._deadline = NEVER
        self._refusal = refusal
        self._loaded = tls.loaded
        self._has_begun = False  # the client has said something
        self._is_in_line = False  # has its turn, or waits for it
        self._was_started = False
        self.client_fields: Fields = []  # what is sent up about the client's certificate
        self.client_subject = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        services = self._owner.services
        services.swept.add(self)
        if self._refusal is not None:
            self._turn_away(self._refusal)
            return
        self._deadline = services.clock() + self._tls.timeout_s
        self._is_in_line = True
        if self._tls.turns.enter(self, self._turn_came):
            self._begin()
        else:
            self._raw.pause_reading()  # what it says stays in the kernel; that it leaves is seen
            self._raw.watch_end(self._left_the_line)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_waiting:
            self._count("closed", "the client left before its turn")
        super().connection_lost(exc)
        self._over()
        self._owner.services.swept.discard(self)
        if not self._was_started:
            self._owner.connection_closed(self._client_ip())

    # --- before the handshake ---------------------------------------------------------------------------------------

    @property
    def _is_waiting(self) -> bool:
        return self._is_in_line and self._tls.turns.is_waiting(self)

    def _turn_came(self) -> None:
        try:
            self._begin()
            self._raw.resume_reading()
        except Exception as error:  # a defect: confined to this connection
            self._defect("tls", error)
            self.abort()

    def _begin(self) -> None:
        loaded = self._loaded = self._tls.loaded
        self.begin(loaded.context, is_server=True)

    def _left_the_line(self) -> None:
        self._raw.close()

    def _turn_away(self, refusal: Fault) -> None:
        """An alert is all that can be said; the connection has cost no handshake."""
        runtime = self._owner.runtime
        runtime.row[LISTENER.column("rejected_total", refusal.reason)] += 1
        self._say(logging.INFO, refusal.word, refusal.hint)
        self._raw.write(_ACCESS_DENIED)
        self._end_gently()

    def _end_gently(self) -> None:
        # Closing now would reset the connection if the client has more on its way, and the alert could be lost.
        self._raw.write_eof()
        self._deadline = self._owner.services.clock() + LINGER_S

    def _client_ip(self) -> str:
        """Whose connection it is, as it was admitted; "" on a unix socket."""
        peer = self._raw.get_extra_info("peername")
        ip = peer[0] if isinstance(peer, tuple) and peer else ""
        return ip if self.proxied is None else self.proxied.seen_from(ip, 0)[0]

    def records_received(self, data: bytes | memoryview) -> None:
        """See TlsTransport. The first octets may be no record, but a request in plain HTTP."""
        if not self._has_begun:
            self._has_begun = True
            if self._owner.runtime.mode == "http" and self._state == HANDSHAKE:
                first = bytes(data)
                if speaks_http1(first):
                    self._answer_plainly(first)
                    return
                if speaks_http2(first):
                    self._plain_http()
                    self._raw.write(FAREWELL)
                    self._end_gently()
                    return
        super().records_received(data)

    def _plain_http(self) -> None:
        """There will be no handshake."""
        self._over()
        self._count("plain_http", _MEANING["HTTP_REQUEST"])
        self._state = CLOSED

    def _answer_plainly(self, first: bytes) -> None:
        """The connection is one in plain HTTP from now on, with its one answer and its end; OpenSSL's part goes."""
        self._plain_http()
        self._owner.services.swept.discard(self)
        self._was_started = True
        raw = self._raw
        app = PlainHttpConnection(self._owner, ClientFacts(self._owner.runtime, self.proxied))
        raw.set_protocol(app)
        self._let_go()
        app.connection_made(raw)
        app.refuse(first)

    # --- the handshake ----------------------------------------------------------------------------------------------

    def _handshake_done(self) -> None:
        services = self._owner.services
        self._over()
        services.swept.discard(self)
        self._owner.runtime.row[_DONE[bool(self.ssl_object.session_reused)]] += 1
        if self._tls.asks_for_certificate:
            self._read_certificate()
        self._was_started = True
        is_http = self._owner.runtime.mode == "http"
        if not is_http:
            self.start(TcpClient(self._owner, self.proxied))
            return
        facts = ClientFacts(
            self._owner.runtime,
            self.proxied,
            scheme=b"https",
            cert_fields=self.client_fields,
            subject=self.client_subject,
        )
        app = self._application(facts, asked_for(self.ssl_object))
        self.start(app)
        if services.is_draining:
            app.begin_drain(services.clock())

    def _application(self, facts: ClientFacts, name: str) -> Http1Connection | Http2Connection:
        """What was agreed on (RFC 7301). name: that the client asks for, if that has chosen a certificate."""
        owner = self._owner
        if self.ssl_object.selected_alpn_protocol() == "h2":
            return NamedHttp2Connection(owner, facts, self._loaded, name) if name else Http2Connection(owner, facts)
        return NamedConnection(owner, facts, self._loaded, name) if name else Http1Connection(owner, facts)

    def _handshake_failed(self, error: Exception) -> None:
        reason = handshake_reason(error)
        self._over()
        self._count(reason, told(error))
        self._state = CLOSED
        raw = self._raw
        if reason == "closed" or raw.is_closing():
            raw.close()
            return
        if reason == "plain_http":
            raw.write(_ALERT)
        self._end_gently()

    def _over(self) -> None:
        if self._is_in_line:
            self._is_in_line = False
            self._tls.turns.leave(self)

    def _count(self, reason: str, why: str) -> None:
        self._owner.runtime.row[_ERROR[reason]] += 1
        self._say(logging.DEBUG if reason in _QUIET else logging.INFO, reason, why)

    def _say(self, level: int, cause: str, why: str) -> None:
        name = self._owner.runtime.name
        client = self._client_ip() or "unix"
        self._tls.log.log(level, f"{name} {cause}", "listener %s: no TLS with %s: %s", name, client, why)

    def _read_certificate(self) -> None:
        der = self.ssl_object.getpeercert(True)
        if not der:
            self.client_fields = [(b"X-Client-Cert-Verify", b"NONE")]
            return
        self.client_subject = subject_text(self.ssl_object.getpeercert())
        self.client_fields = [
            (b"X-Client-Cert-Verify", b"SUCCESS"),
            (b"X-Client-Cert-Subject", self.client_subject.encode()),
            (b"X-Client-Cert-Fingerprint", hashlib.sha256(der).hexdigest().encode()),
        ]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.client_subject if name == "client_subject" else super().get_extra_info(name, default)

    # --- the sweeper's calls, until the application has the connection ----------------------------------------------

    def sweep(self, now: float) -> None:
        if now < self._deadline:
            return
        if self._is_waiting:
            self._count("limit", "limits.handshakes is reached, and its turn did not come in time")
        elif self._state != CLOSED:
            self._count("timeout", "the handshake took longer than timeouts.tls_handshake")
        self._over()
        self.abort()

    def buffered_bytes(self) -> int:
        return 0

    def begin_drain(self, now: float) -> None:
        """A handshake may finish: it has a deadline of its own."""

    def shut_down(self) -> None:
        self._over()
        self.abort()


class NamedConnection(Http1Connection):
    """One of a listener with several certificates, whose client has said for which host it is."""

    __slots__ = ("_certificates", "_is_here", "_name")

    def __init__(self, owner: Door, facts: ClientFacts, certificates: ListenerContexts, name: str) -> None:
        super().__init__(owner, facts)
        self._certificates = certificates
        self._name = name
        self._is_here = ""  # a host that was found to be on the right connection

    def _begin(self, prepared: Prepared, rest: bytes, *, is_refused: bool = False) -> None:
        host = prepared.meaning.host
        if host and host != self._is_here and not is_refused and not self.facts.is_trusted:
            if self._certificates.is_misdirected(self._name, without_port(host)):
                asked = f"{prepared.head.method} ".encode() + prepared.head.target + b" HTTP/1.1"
                self._refuse(asked, HeadError(errors.MISDIRECTED, f"the connection was made for {self._name[:255]}"))
                return
            self._is_here = host
        super()._begin(prepared, rest, is_refused=is_refused)


class NamedHttp2Connection(Http2Connection):
    """The same with HTTP/2, whose clients put requests for other hosts on it, if the certificate is for these, too."""

    __slots__ = ("_certificates", "_is_here", "_name")

    def __init__(self, owner: Door, facts: ClientFacts, certificates: ListenerContexts, name: str) -> None:
        super().__init__(owner, facts)
        self._certificates = certificates
        self._name = name
        self._is_here = ""  # as above

    def is_misdirected(self, host: str) -> bool:
        if not host or host == self._is_here or self.is_trusted:
            return False
        if self._certificates.is_misdirected(self._name, without_port(host)):
            return True
        self._is_here = host
        return False


def without_port(host: str) -> str:
    """The host of a Host field."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
SUBJECT_LIMIT: Final = 2048


def subject_text(certificate: Any) -> str:
    """The subject as RFC 4514 writes it, last part first; for a header, so what is not printable ASCII is escaped."""
    parts = [
        "+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in relative)
        for relative in reversed(certificate.get("subject", ()))
    ]
    return ",".join(parts)[:SUBJECT_LIMIT]


def _escaped(value: str) -> str:
    out = []
    for index, char in enumerate(value):
        if char in ',+"\\<>;=' or (char in "# " and index == 0) or (char == " " and index == len(value) - 1):
            out.append("\\" + char)
        elif " " <= char <= "~":
            out.append(char)
        else:
            out += [f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogatepass")]
    return "".join(out)


def told(error: Exception) -> str:
    """Why there was no handshake, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = reason_of(error)
    if not reason:
        return str(error)
    words = reason.replace("_", " ").lower()
    meaning = _MEANING.get(reason, "")
    return f"{meaning} ({words})" if meaning else words
