"""TLS from clients in HTTP mode: certificates, versions, client certificates, and what is sent up about them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from websockets.asyncio.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.support.certificates import Authority, CertFiles, TlsClient
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import RST, Origin, Peer, Script, silent, steps
from tests.support.rig import get, post
from tests.support.servers import in_threads, needed
from tests.support.waiting import wait_until
from tests.support.wire import Ended, Request, Response

MIB = 1 << 20


def shows_head(request: Request) -> bytes:
    """Answers with the fields that it was sent, and with a hash of the body."""
    lines = [f"{name}: {value}" for name, value in request.fields]
    lines.append(f"sha256: {hashlib.sha256(request.body).hexdigest()}")
    body = "\n".join(lines).encode("latin-1")
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def sent_up(answer: Response) -> dict[str, str]:
    """The fields of the request as the server got them; each once."""
    pairs = [line.split(": ", 1) for line in answer.body.decode("latin-1").splitlines()]
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    return {line[0]: line[1] for line in pairs}


@dataclass
class Stage:
    lb: LbProxy
    origin: Origin
    authority: Authority
    client: CertFiles

    def open(self, listener: str = "plain", files: CertFiles | None = None, name: str = "localhost") -> TlsClient:
        return TlsClient(self.lb.port(listener), self.authority.trusting(files), name=name)

    def url(self, path: str, listener: str = "plain") -> str:
        return f"https://localhost:{self.lb.port(listener)}{path}"

    def script(self, script: Script) -> None:
        """The next request comes on a new connection, which gets this script."""
        self.origin.reset()
        wait_until(lambda: not self.lb.metric("upstream_connections"), "the daemon to see that its connections ended")
        self.origin.script(script)

    def failures(self, listener: str, reason: str) -> float:
        return self.lb.metric("tls_handshake_errors_total", listener=listener, reason=reason)


@pytest.fixture(scope="module")
def stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    first = authority.issue("first", "localhost", "127.0.0.1")
    exact = authority.issue("exact", "a.example.com", "B.Example.com")
    wild = authority.issue("wild", "*.example.com")
    client = authority.issue("client", "client.example", common_name="Jos\u00e9, the client")
    base = first.tls
    asks = {**base, "client_ca": authority.ca}
    listeners: list[dict[str, object]] = [
        {"name": "plain", "tls": {**base, "certs": [exact.tls, wild.tls]}},
        {"name": "new", "tls": {**base, "min_version": "1.3"}},
        {"name": "required", "tls": {**asks, "client_verify": "required"}},
        {"name": "optional", "tls": {**asks, "client_verify": "optional"}},
        {"name": "impatient", "tls": base, "timeouts": {"write": "500ms"}},
        {"name": "cleartext"},
    ]
    with Origin(answer=shows_head) as origin:
        settings: dict[str, object] = {
            "listeners": [{"bind": "127.0.0.1:0", "pool": "p", **item} for item in listeners],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(settings, tmp_path_factory.mktemp("tls")) as lb:
            yield Stage(lb, origin, authority, client)


# --- programs -------------------------------------------------------------------------------------------------------


def curl(stage: Stage, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [needed("curl"), "-sS", "--max-time", "60", "--cacert", stage.authority.ca, *options]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl(stage: Stage, version: str) -> None:
    done = curl(stage, f"--tlsv{version}", "--tls-max", version, stage.url("/curl"), stage.url("/curl"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"x-forwarded-proto: https") == 2
    assert b"x-forwarded-port: %d" % stage.lb.port("plain") in done.stdout


def test_curl_that_does_not_trust_the_certificate_is_counted(stage: Stage) -> None:
    before = stage.failures("plain", "client_alert")
    done = subprocess.run([needed("curl"), "-sS", stage.url("/x")], capture_output=True, timeout=60, check=False)
    assert done.returncode == 60, done.stderr
    wait_until(lambda: stage.failures("plain", "client_alert") == before + 1, "the alert to be counted")


def test_an_alert_that_python_has_no_name_for_is_counted_like_any_other(stage: Stage) -> None:
    """Answered with a defect and its traceback once, where lbproxy is compiled: OpenSSL's reason was None."""
    before = stage.failures("plain", "client_alert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    said, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(said, hello, server_hostname="localhost").do_handshake()
    with socket.create_connection(("127.0.0.1", stage.lb.port("plain"))) as client:
        client.sendall(hello.read())
        assert client.recv(1)
        client.sendall(b"\x15\x03\x03\x00\x02\x02\x78")  # fatal, no_application_protocol (RFC 7301 section 3.2)
        wait_until(lambda: stage.failures("plain", "client_alert") == before + 1, "the alert to be counted")
    assert stage.lb.error_lines() == []


def test_requests_with_a_private_ca(stage: Stage) -> None:
    with requests.Session() as session:
        session.verify = stage.authority.ca
        session.trust_env = False
        for number in range(3):
            answer = session.post(stage.url(f"/predict/{number}"), data=b"x" * 100_000, timeout=60)
            assert answer.status_code == 200
            assert hashlib.sha256(b"x" * 100_000).hexdigest() in answer.text


def s_client(stage: Stage, listener: str, *options: str, data: bytes = b"") -> str:
    command = [needed("openssl"), "s_client", "-connect", f"127.0.0.1:{stage.lb.port(listener)}", *options]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode("latin-1")


def test_an_old_version_is_refused(stage: Stage) -> None:
    before = stage.failures("plain", "version")
    text = s_client(stage, "plain", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in text
    wait_until(lambda: stage.failures("plain", "version") == before + 1, "the failure to be counted")


def test_min_version(stage: Stage) -> None:
    before = stage.failures("new", "version")
    assert "alert protocol version" in s_client(stage, "new", "-tls1_2")
    wait_until(lambda: stage.failures("new", "version") == before + 1, "the failure to be counted")
    assert "TLSv1.3" in s_client(stage, "new", "-tls1_3")


def test_ciphers_are_modern(stage: Stage) -> None:
    before = stage.failures("plain", "cipher")
    assert "alert handshake failure" in s_client(
        stage, "plain", "-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA"
    )
    wait_until(lambda: stage.failures("plain", "cipher") == before + 1, "the failure to be counted")


def test_alpn(stage: Stage) -> None:
    assert "ALPN protocol: h2" in s_client(stage, "plain", "-alpn", "http/1.1,h2")
    assert "ALPN protocol: http/1.1" in s_client(stage, "plain", "-alpn", "http/1.1")
    assert "No ALPN negotiated" in s_client(stage, "plain", "-alpn", "h3")


def test_no_renegotiation(stage: Stage) -> None:
    text = s_client(stage, "plain", "-tls1_2", data=b"R\n")
    assert "no renegotiation" in text.lower(), text[-500:]


# --- sessions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(stage: Stage, version: ssl.TLSVersion) -> None:
    context = stage.authority.trusting(minimum_version=version, maximum_version=version)
    port = stage.lb.port("plain")
    before = stage.lb.metric("tls_handshakes_total", listener="plain", resumed="yes")
    with TlsClient(port, context) as first:
        assert first.ask(get("/first")).status == 200  # the ticket comes with it
        assert not first.tls.session_reused
        session = first.tls.session
    with TlsClient(port, context, session=session) as second:
        assert second.tls.session_reused
        assert second.ask(get("/second")).status == 200
    assert stage.lb.metric("tls_handshakes_total", listener="plain", resumed="yes") == before + 1


# --- certificates by name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", "localhost"),
        ("a.example.com", "a.example.com"),
        ("A.EXAMPLE.COM", "a.example.com"),
        ("b.example.com", "a.example.com"),
        ("other.example.com", "*.example.com"),
        ("two.labels.example.com", "localhost"),
        ("example.com", "localhost"),
        ("elsewhere.org", "localhost"),
    ],
)
def test_the_name_chooses_the_certificate(stage: Stage, name: str, expected: str) -> None:
    context = stage.authority.trusting(check_hostname=False)
    with TlsClient(stage.lb.port("plain"), context, name=name) as client:
        certificate = client.tls.getpeercert()
        assert certificate is not None
        names = [item[1].lower() for item in certificate["subjectAltName"]]  # type: ignore[union-attr]
        assert expected in names, names
        assert client.ask(get("/sni")).status == 200


def test_expiry_is_a_metric(stage: Stage) -> None:
    found = stage.lb.metrics("tls_certificate_expiry_timestamp_seconds")
    mine = {
        dict(labels)["certificate"]: value for (_, labels), value in found.items() if ("listener", "plain") in labels
    }
    assert {Path(path).name for path in mine} == {"first.pem", "exact.pem", "wild.pem"}
    with stage.open() as client:
        certificate = client.tls.getpeercert()
    assert certificate is not None
    expected = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    assert mine[str(stage.authority.directory / "first.pem")] == expected


# --- certificates of clients ----------------------------------------------------------------------------------------


def test_who_shows_a_certificate_is_named_to_the_server(stage: Stage) -> None:
    with stage.open("required", stage.client) as client:
        fields = sent_up(client.ask(get("/mtls", "X-Client-Cert-Subject: CN=root", "X_Client_Cert_Verify: SUCCESS")))
    assert fields["x-client-cert-verify"] == "SUCCESS"
    assert fields["x-client-cert-subject"].startswith("CN=Jos\\C3\\A9\\, the client,")
    der = ssl.PEM_cert_to_DER_cert(Path(stage.client.cert).read_text())
    assert fields["x-client-cert-fingerprint"] == hashlib.sha256(der).hexdigest()
    entry = stage.lb.entry("/mtls")
    assert entry["client_cert"] == fields["x-client-cert-subject"]
    assert entry["end"] == "ok"


def test_who_shows_none_is_refused_where_it_is_required(stage: Stage) -> None:
    before = stage.failures("required", "no_certificate")
    done = curl(stage, stage.url("/x", "required"))
    assert b"certificate required" in done.stderr
    wait_until(lambda: stage.failures("required", "no_certificate") == before + 1, "the failure to be counted")
    wait_until(lambda: "peer did not return a certificate" in stage.lb.stderr, "the log to say it")


@pytest.mark.parametrize("listener", ["required", "optional"])
def test_the_certificate_of_a_stranger_is_refused(stage: Stage, stranger: Authority, listener: str) -> None:
    before = stage.failures(listener, "bad_certificate")
    files = stranger.issue("client", "client.example")
    done = curl(stage, "--cert", files.cert, "--key", files.key, stage.url("/x", listener))
    assert done.returncode
    assert b"unknown ca" in done.stderr
    wait_until(lambda: stage.failures(listener, "bad_certificate") == before + 1, "the failure to be counted")


def test_an_optional_certificate(stage: Stage) -> None:
    spoofed = ("X-Client-Cert-Subject: CN=root", "X-Client-Cert-Fingerprint: 00", "X-Client-Cert-Verify: SUCCESS")
    with stage.open("optional") as client:
        fields = sent_up(client.ask(get("/without", *spoofed)))
    assert fields["x-client-cert-verify"] == "NONE"
    assert not {"x-client-cert-subject", "x-client-cert-fingerprint"} & set(fields)
    assert "client_cert" not in stage.lb.entry("/without")
    with stage.open("optional", stage.client) as client:
        assert sent_up(client.ask(get("/with")))["x-client-cert-verify"] == "SUCCESS"


@pytest.mark.parametrize("listener", ["plain", "cleartext"])
def test_what_clients_say_about_certificates_is_removed_everywhere(stage: Stage, listener: str) -> None:
    request = get("/spoof", "X-Client-Cert-Subject: CN=root", "X-Client-Cert-Verify: SUCCESS")
    if listener == "plain":
        with stage.open() as secure:
            fields = sent_up(secure.ask(request))
    else:
        with Client(stage.lb.port("cleartext")) as client:
            fields = sent_up(client.ask(request))
    assert not [name for name in fields if "client-cert" in name]
    assert fields["x-forwarded-proto"] == ("https" if listener == "plain" else "http")


# --- the wrong protocol ---------------------------------------------------------------------------------------------


def test_plain_http_to_a_tls_port_is_answered_in_plain_http(stage: Stage) -> None:
    before = stage.failures("plain", "plain_http")
    with Client(stage.lb.port("plain")) as client:
        client.send(get("/x"))
        answer = client.response()
        assert answer.status == 400 and "use https://" in answer.body.decode()
        client.finish_writing()
        assert client.wait_end() == "fin"
    assert stage.failures("plain", "plain_http") == before + 1
    assert not [request for request in stage.origin.requests if request.target == "/x"]


def test_curl_without_the_s_is_told_so(stage: Stage) -> None:
    curl = needed("curl")
    url = f"http://127.0.0.1:{stage.lb.port('plain')}/x"
    said = subprocess.run([curl, "-s", "-m", "20", url], capture_output=True, text=True, check=False)
    assert said.returncode == 0 and "use https://" in said.stdout
    h2 = subprocess.run([curl, "-s", "-m", "20", "--http2-prior-knowledge", url], capture_output=True, check=False)
    assert h2.returncode == 16  # CURLE_HTTP2: a GOAWAY, and neither garbage nor a time-out


def test_tls_to_a_plain_port_is_a_bad_request(stage: Stage) -> None:
    before = stage.lb.metric("rejected_total", listener="cleartext", reason="bad_request")
    with Client(stage.lb.port("cleartext")) as client:
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            stage.authority.trusting().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
        client.send(hello.read())
        assert client.response().status == 400
        client.finish_writing()
        assert client.wait_end() == "fin"
    assert stage.lb.metric("rejected_total", listener="cleartext", reason="bad_request") == before + 1


def test_garbage_to_a_tls_port(stage: Stage) -> None:
    before = stage.failures("plain", "protocol")
    with Client(stage.lb.port("plain")) as client:
        client.send(os.urandom(16) + b"\0" * 100)
        client.read_to_end()
        assert client.end == "fin"
    assert stage.failures("plain", "protocol") == before + 1


# --- bytes ----------------------------------------------------------------------------------------------------------


def test_big_bodies_both_ways(stage: Stage) -> None:
    upload, download = os.urandom(6 * MIB + 17), os.urandom(9 * MIB + 5)

    def serves(c: Peer) -> None:
        request = c.read_request()
        assert request.body == upload
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(download) + download)
        c.serve()

    stage.script(serves)
    with stage.open() as client:
        answer = client.ask(post("/big", upload))
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(download).digest()
        # The connection goes on.
        assert client.ask(get("/after")).status == 200


def test_requests_in_one_record_are_answered_in_order(stage: Stage) -> None:
    with stage.open() as client:
        client.send(b"".join(post(f"/pipelined/{number}", b"%d" % number) for number in range(10)))
        for number in range(10):
            assert hashlib.sha256(b"%d" % number).hexdigest() in client.response().body.decode()


def test_a_request_byte_by_byte(stage: Stage) -> None:
    with stage.open() as client:
        client.send(*[bytes([byte]) for byte in post("/slow", b"abc")])
        assert client.response().status == 200


def test_a_truncated_answer_shows(stage: Stage) -> None:
    """To an HTTP/1.0 client only the end of the connection says that a body is complete."""
    stage.script(steps(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", RST))
    with stage.open() as client:
        client.send(get("/cut", version="1.0"))
        try:
            answer = client.response()
            assert answer.body == b"hello"
        except Ended as ended:
            assert ended.how in ("rst", "cut")
        assert client.end in ("rst", "cut")  # never "fin", which stands for close_notify


def test_a_complete_answer_ends_with_close_notify(stage: Stage) -> None:
    stage.script(steps(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
    with stage.open() as client:
        client.send(get("/whole", version="1.0"))
        assert client.response().body == b"hello"
        assert client.end == "fin"


@pytest.mark.parametrize("how", ["close_notify", "fin", "rst"])
def test_a_client_that_leaves_frees_its_server(stage: Stage, how: str) -> None:
    before = stage.lb.metric("client_aborts_total", phase="waiting")
    with stage.open() as client:
        stage.script(silent)
        client.send(get(f"/leaves/{how}"))
        wait_until(lambda: stage.origin.requests, "the request to arrive")
        (peer,) = stage.origin.peers
        if how == "close_notify":
            client.tls.settimeout(0.0)
            with pytest.raises(OSError):  # nothing has come back yet, or the reset is here already
                client.tls.unwrap()
        elif how == "fin":
            socket.socket.shutdown(client.tls, socket.SHUT_WR)
        else:
            client.reset()
        assert peer.closed.wait(60)
        wait_until(lambda: stage.lb.metric("client_aborts_total", phase="waiting") == before + 1, "the abort")
    assert stage.lb.entry(f"/leaves/{how}")["status"] == 499


def test_a_client_that_leaves_while_its_upload_is_paused(stage: Stage) -> None:
    """Nothing is read from it then, so its leaving is seen another way."""

    def reads_the_head(c: Peer) -> None:
        c.read_head()
        c.wait(threading.Event())

    stage.script(reads_the_head)
    before = stage.lb.metric("client_aborts_total", phase="request_body")
    with stage.open() as client:
        client.send(b"POST /paused HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        client.sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while True:
                client.sock.sendall(b"x" * MIB)
        client.reset()
        wait_until(lambda: stage.lb.metric("client_aborts_total", phase="request_body") == before + 1, "the abort")
    stage.origin.reset()


def test_a_client_that_does_not_read_is_reset(stage: Stage) -> None:
    size = 16 * MIB
    stage.script(steps(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size))
    before = stage.lb.metric("client_aborts_total", phase="write_timeout")
    rss = stage.lb.rss_bytes()
    context = stage.authority.trusting()
    with TlsClient(stage.lb.port("impatient"), context, receive_buffer=8192) as client:
        client.send(get("/unread"))
        wait_until(lambda: stage.lb.metric("client_aborts_total", phase="write_timeout") == before + 1, "the reset")
        assert stage.lb.rss_bytes() - rss < 4 * MIB
        client.read_to_end()
        assert client.end in ("rst", "cut")


def test_websocket(stage: Stage) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        settings: dict[str, object] = {
            "listeners": [
                {"name": "ws", "bind": "127.0.0.1:0", "pool": "p", "tls": stage.authority.issue("ws", "localhost").tls},
            ],
            "pools": {"p": {"servers": [f"127.0.0.1:{port}"]}},
        }
        with LbProxy(settings, stage.lb.directory / "ws") as lb:
            url = f"wss://localhost:{lb.port('ws')}/"
            data = os.urandom(3 * MIB)

            async def talk() -> None:
                # Not the client with threads: Python's TLS sockets are not made for two.
                async with (
                    asyncio.timeout(60),
                    connect(url, ssl=stage.authority.trusting(), max_size=None) as client,
                ):
                    await client.send("hello")
                    assert await client.recv() == "hello"
                    await client.send(data)
                    assert await client.recv() == data

            asyncio.run(talk())
        server.shutdown()
        thread.join(60)


def test_many_at_once(stage: Stage) -> None:
    def one(number: int) -> None:
        with stage.open() as client:
            for turn in range(5):
                body = os.urandom(1000 * (number + 1))
                answer = client.ask(post(f"/many/{number}/{turn}", body))
                assert re.search(hashlib.sha256(body).hexdigest(), answer.body.decode())

    in_threads(16, one)
