"""Handshakes of clients: counted, bounded, timed; and what a client's certificate becomes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any, cast

import pytest

from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.client.plain_http import FAREWELL
from lbproxy.dataplane.client_tls import ClientTlsTransport, handshake_reason, subject_text, told, without_port
from lbproxy.dataplane.tls_settings import ListenerTlsFiles, ListenerTlsSettings
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import PREFACE
from lbproxy.telemetry.slots import LISTENER, TLS_ERRORS
from tests.support.certificates import Authority
from tests.support.fake_transport import FakeLb, FakeTransport
from tests.support.h2_ends import headers

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def ssl_error(reason: str | None, text: str = "text") -> ssl.SSLError:
    error = ssl.SSLError(1, text)
    error.reason = reason  # type: ignore[assignment]  # None where CPython knows no name
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(), "closed"),
        (ssl_error("HTTP_REQUEST"), "plain_http"),
        (ssl_error("UNSUPPORTED_PROTOCOL"), "version"),
        (ssl_error("NO_SHARED_CIPHER"), "cipher"),
        (ssl_error("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "no_certificate"),
        (ssl_error("CERTIFICATE_VERIFY_FAILED"), "bad_certificate"),
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), "client_alert"),
        (ssl_error("SSLV3_ALERT_CERTIFICATE_UNKNOWN"), "client_alert"),
        (ssl_error("WRONG_VERSION_NUMBER"), "protocol"),
        (ssl_error(""), "protocol"),
        (ssl_error(None), "protocol"),
        (ssl_error(None, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"), "client_alert"),
        (ValueError("x"), "protocol"),
    ],
)
def test_reasons(error: Exception, reason: str) -> None:
    assert handshake_reason(error) == reason
    assert reason in TLS_ERRORS


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl_error("HTTP_REQUEST"), "it speaks plain HTTP; this port takes https:// only (http request)"),
        (
            ssl_error("TLSV1_ALERT_UNKNOWN_CA"),
            "it does not trust who signed this listener's certificate (tlsv1 alert unknown ca)",
        ),
        (ssl_error("NO_SHARED_CIPHER"), "no shared cipher"),
        (
            ssl_error(None, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"),
            "tlsv1 alert no application protocol",
        ),
        (ConnectionResetError("gone"), "gone"),
    ],
)
def test_the_log_says_what_the_reason_of_openssl_means(error: Exception, words: str) -> None:
    assert told(error) == words


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((), ""),
        (((("commonName", "a"),),), "CN=a"),
        (((("countryName", "DE"),), (("commonName", "a"),)), "CN=a,C=DE"),
        (((("commonName", "a"), ("userId", "b")),), "CN=a+UID=b"),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
        (((("commonName", 'a,b+c"d\\e<f>g;h=i'),),), 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h\\=i'),
        (((("commonName", " a b "),),), "CN=\\ a b\\ "),
        (((("commonName", "#a"),),), "CN=\\#a"),
        (((("commonName", "a\r\nX-Evil: 1\0"),),), "CN=a\\0D\\0AX-Evil: 1\\00"),
        (((("commonName", "J\u00f6rg"),),), "CN=J\\C3\\B6rg"),
        (((("commonName", "x" * 5000),),), "CN=" + "x" * 2045),
    ],
)
def test_a_subject_is_safe_in_a_header(subject: Any, text: str) -> None:
    """RFC 4514, and printable ASCII only."""
    assert subject_text({"subject": subject}) == text


class Bench:
    """A TLS listener over fakes, and clients made of memory."""

    def __init__(
        self,
        authority: Authority,
        *,
        limit: int = 5,
        verify: str = "off",
        mode: str = "http",
        alpn: tuple[str, ...] = ("http/1.1",),
    ) -> None:
        self.authority = authority
        self.lb = FakeLb()
        files = authority.issue("served", "localhost")
        settings = ListenerTlsFiles(
            ((files.cert, files.key),),
            client_ca=None if verify == "off" else authority.ca,
            client_verify=verify,
            alpn=alpn,
        )
        self.tls = ListenerTlsSettings(settings, settings.load(), limit=limit, timeout_s=5.0)
        self.lb.listener.runtime.tls = self.tls
        self.lb.listener.runtime.mode = mode

    def connect(self) -> tuple[ClientTlsTransport, FakeTransport]:
        self.lb.listener._count()
        protocol = self.lb.listener._protocol(None, self.lb.listener.admit("10.0.0.9"))
        assert isinstance(protocol, ClientTlsTransport)
        transport = FakeTransport(self.lb.loop, cast(asyncio.Protocol, protocol), ("10.0.0.9", 7), ("127.0.0.1", 5000))
        protocol.connection_made(transport)
        return protocol, transport

    def count(self, reason: str) -> int:
        return self.lb.listener.runtime.row[LISTENER.column("tls_handshake_errors_total", reason)]

    @property
    def n_connections(self) -> int:
        return self.lb.listener.n_connections


def output(transport: FakeTransport) -> bytes:
    return b"".join(transport.written)


class Client:
    def __init__(self, bench: Bench, context: ssl.SSLContext, session: Any = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)
        self.server, self.transport = bench.connect()
        self._taken = 0

    def carry(self) -> None:
        sent = b"".join(self.transport.written)
        self.incoming.write(sent[self._taken :])
        self._taken = len(sent)

    def shake(self) -> None:
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            data = self.outgoing.read()
            if data:
                self.server.data_received(data)
            self.carry()


def test_a_client_is_counted_from_the_start_and_served_after_its_handshake(authority: Authority) -> None:
    bench = Bench(authority)
    client = Client(bench, authority.trusting())
    assert (bench.n_connections, bench.tls.turns.n_active) == (1, 1)
    client.shake()
    assert (bench.n_connections, bench.tls.turns.n_active) == (1, 0)
    app = client.server._app
    assert isinstance(app, Http1Connection)
    assert app in bench.lb.services.swept
    assert cast(Any, client.server) not in bench.lb.services.swept
    assert b"X-Forwarded-Proto: https" in app.facts._lines
    client.server.connection_lost(None)
    assert bench.n_connections == 0


def test_a_client_that_stalls_is_gone_after_the_time_out(authority: Authority) -> None:
    bench = Bench(authority)
    server, _ = bench.connect()
    server.sweep(bench.lb.services.clock() + 4.9)
    assert bench.count("timeout") == 0
    server.sweep(bench.lb.services.clock() + 5.0)
    assert bench.count("timeout") == 1
    server.connection_lost(None)
    assert (bench.n_connections, bench.tls.turns.n_active) == (0, 0)
    assert not bench.lb.services.swept


def test_who_comes_when_there_are_enough_handshakes_waits_for_its_turn(authority: Authority) -> None:
    bench = Bench(authority, limit=1)
    first, _ = bench.connect()
    client = Client(bench, authority.trusting())
    assert client.transport.is_paused and client.transport.sees_end
    assert (bench.n_connections, bench.tls.turns.n_active) == (2, 1)
    first.connection_lost(None)
    assert not client.transport.is_paused
    client.shake()
    assert (bench.n_connections, bench.tls.turns.n_active, bench.count("closed")) == (1, 0, 1)
    assert isinstance(client.server._app, Http1Connection)


def test_a_turn_that_does_not_come_in_time(authority: Authority) -> None:
    bench = Bench(authority, limit=1)
    bench.connect()
    waiting, transport = bench.connect()
    waiting.sweep(bench.lb.services.clock() + 4.9)
    assert not transport.is_closing()
    waiting.sweep(bench.lb.services.clock() + 5.0)
    assert transport.is_closing() and (bench.count("limit"), bench.count("timeout")) == (1, 0)
    waiting.connection_lost(None)
    assert (bench.n_connections, bench.tls.turns.n_active) == (1, 1)


@pytest.mark.parametrize("how", ["fin", "rst", "stop"])
def test_who_leaves_before_its_turn_is_forgotten(authority: Authority, how: str) -> None:
    bench = Bench(authority, limit=1)
    bench.connect()
    waiting, transport = bench.connect()
    if how == "fin":
        assert transport.on_fin is not None
        transport.on_fin()
    elif how == "stop":
        waiting.shut_down()
    else:
        transport.lose(ConnectionResetError())
    bench.lb.loop.run()
    assert transport.is_lost and bench.count("closed") == (how != "stop")
    assert (bench.n_connections, bench.tls.turns.n_active) == (1, 1)
    last, _ = bench.connect()
    assert bench.tls.turns.is_waiting(last) and len(bench.lb.services.swept) == 2


def test_too_many_of_an_address_are_turned_away_before_their_handshake(authority: Authority) -> None:
    bench = Bench(authority, limit=1)
    bench.lb.listener.runtime.per_ip.limit = 1
    first, _ = bench.connect()
    client = Client(bench, authority.trusting())
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        client.shake()
    runtime = bench.lb.listener.runtime
    assert runtime.row[LISTENER.column("rejected_total", "max_per_ip")] == 1
    assert client.transport.calls == ["write_eof"]
    client.server.sweep(bench.lb.services.clock() + 2.0)
    bench.lb.loop.run()
    assert client.transport.is_lost
    assert (bench.n_connections, bench.tls.turns.n_active) == (1, 1)
    first.connection_lost(None)
    assert runtime.per_ip.counts == {}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_of_an_older_key_means_a_full_handshake(authority: Authority, version: ssl.TLSVersion) -> None:
    """Contexts that were loaded again have new keys; nobody is refused for having an old ticket."""
    bench = Bench(authority)
    context = authority.trusting(minimum_version=version, maximum_version=version)

    def resumed(session: Any) -> tuple[bool, Any]:
        client = Client(bench, context, session)
        client.shake()
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.read(1)  # the ticket
        client.server.connection_lost(None)
        return bool(client.tls.session_reused), client.tls.session

    _, session = resumed(None)
    assert resumed(session)[0]
    bench.tls.use(bench.tls.load())
    was_resumed, session = resumed(session)
    assert not was_resumed and resumed(session)[0]
    assert bench.tls.renew_s == 3600.0


@pytest.mark.parametrize(
    ("field", "host"),
    [("a.org", "a.org"), ("a.org:443", "a.org"), ("[::1]:443", "::1"), ("[::1]", "::1"), ("10.0.0.1:1", "10.0.0.1")],
)
def test_the_host_of_a_host_field(field: str, host: str) -> None:
    assert without_port(field) == host


@pytest.mark.parametrize("request_line", [b"GET /x HTTP/1.1", b"DELETE /x HTTP/1.0", b"CONNECT a:443 HTTP/1.1"])
def test_plain_http_is_answered_in_plain_http(authority: Authority, request_line: bytes) -> None:
    bench = Bench(authority)
    server, transport = bench.connect()
    server.data_received(request_line + b"\r\nHost: a\r\n\r\n")
    head, body = output(transport).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b"\r\nConnection: close\r\n" in head
    assert json.loads(body)["type"] == "urn:lbproxy:fault:plain_http"
    assert "https://" in json.loads(body)["detail"]
    assert bench.count("plain_http") == 1
    assert bench.lb.listener.runtime.row[LISTENER.column("rejected_total", "plain_http")] == 1
    assert bench.tls.turns.n_active == 0
    transport.receive(GET)  # more of it is not looked at
    assert output(transport).count(b"HTTP/1.1 ") == 1
    for item in list(bench.lb.services.swept):
        item.sweep(bench.lb.services.clock() + 60)  # who does not leave is cut off
    bench.lb.loop.run()
    assert transport.is_lost
    assert bench.n_connections == 0 and not bench.lb.services.swept
    assert sum(bench.count(reason) for reason in TLS_ERRORS) == 1
    line = json.loads(bench.lb.writer.lines[-1])
    assert line["end"] == "plain_http" and line["method"] == request_line.split()[0].decode()


def test_the_answer_to_head_has_no_body(authority: Authority) -> None:
    bench = Bench(authority)
    server, transport = bench.connect()
    server.data_received(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert output(transport).startswith(b"HTTP/1.1 400 ") and output(transport).endswith(b"\r\n\r\n")


def test_http2_without_tls_is_told_by_goaway(authority: Authority) -> None:
    bench = Bench(authority)
    server, transport = bench.connect()
    server.data_received(PREFACE)
    assert output(transport) == FAREWELL
    assert transport.calls == ["write_eof"]
    assert bench.count("plain_http") == 1
    server.data_received(PREFACE)
    assert output(transport) == FAREWELL
    server.sweep(bench.lb.services.clock() + 60)
    bench.lb.loop.run()
    assert bench.n_connections == 0 and bench.tls.turns.n_active == 0


def test_in_tcp_mode_plain_http_gets_an_alert_and_time_to_read_it(authority: Authority) -> None:
    bench = Bench(authority, mode="tcp")
    server, transport = bench.connect()
    server.data_received(GET)
    assert b"".join(transport.written) == b"\x15\x03\x03\x00\x02\x02\x0a"
    assert bench.count("plain_http") == 1
    assert bench.tls.turns.n_active == 0
    server.data_received(GET)  # more of it is not looked at
    assert bench.count("plain_http") == 1
    server.sweep(bench.lb.services.clock() + 60)
    server.connection_lost(None)
    assert bench.n_connections == 0
    assert sum(bench.count(reason) for reason in TLS_ERRORS) == 1


@pytest.mark.parametrize(
    "first", [b"EHLO a.org\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 99, b"PING\r\n", b"GET x\r\n"]
)
def test_nobody_else_gets_an_answer_in_http(authority: Authority, first: bytes) -> None:
    bench = Bench(authority)
    server, transport = bench.connect()
    server.data_received(first)
    assert b"HTTP" not in output(transport)


@pytest.mark.parametrize(
    ("verify", "shows", "fields"),
    [
        ("off", False, []),
        ("optional", False, [b"NONE"]),
        ("optional", True, [b"SUCCESS"]),
        ("required", True, [b"SUCCESS"]),
    ],
)
def test_what_is_said_of_a_client_s_certificate(
    authority: Authority, verify: str, shows: bool, fields: list[bytes]
) -> None:
    bench = Bench(authority, verify=verify)
    mine = authority.issue("mine", "mine.org", common_name="me") if shows else None
    client = Client(bench, authority.trusting(mine))
    client.shake()
    found = client.server.client_fields
    assert [value for name, value in found if name == b"X-Client-Cert-Verify"] == fields
    assert len(found) == (3 if shows else len(fields))
    assert client.server.get_extra_info("client_subject") == client.server.client_subject
    assert client.server.client_subject.startswith("CN=me") is shows


def test_stopping_ends_a_handshake(authority: Authority) -> None:
    bench = Bench(authority)
    server, _ = bench.connect()
    assert server.buffered_bytes() == 0
    server.begin_drain(0.0)
    server.shut_down()
    server.connection_lost(None)
    assert (bench.n_connections, bench.tls.turns.n_active) == (0, 0)


def test_answers_of_http2_in_a_turn_are_one_record(authority: Authority) -> None:
    bench = Bench(authority, alpn=("h2",))
    context = authority.trusting()
    context.set_alpn_protocols(["h2"])
    client = Client(bench, context)
    client.shake()

    def say(octets: bytes) -> None:
        client.tls.write(octets)
        client.server.data_received(client.outgoing.read())

    say(PREFACE + frames.settings([]))
    bench.lb.loop.run()
    client.carry()
    client.tls.read(1 << 16)
    before = len(output(client.transport))
    for number in (1, 3, 5):
        say(headers(number, [(b":method", b"CONNECT"), (b":authority", b"h:1")], is_end=True))
    assert len(output(client.transport)) == before
    bench.lb.loop.run()
    record = output(client.transport)[before:]
    assert record[0] == 0x17 and len(record) == 5 + int.from_bytes(record[3:5], "big")
    client.carry()
    assert [at for at in bench.lb.log if at["status"] == 405] == bench.lb.log and len(bench.lb.log) == 3
    assert client.tls.read(1 << 16).count(b"CONNECT and TRACE never are") == 3
