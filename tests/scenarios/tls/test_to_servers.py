"""TLS to servers in HTTP mode: who is trusted, what failures look like, and that connections and sessions are kept."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.build import ROOT
from tests.support.certificates import Authority, TlsClient, server_wrap
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.hooked import HookedDaemon
from tests.support.origin import Origin, Peer, close_unanswered, silent, stalls_after, steps
from tests.support.rig import get, post
from tests.support.servers import in_threads
from tests.support.waiting import wait_until
from tests.support.wire import Ended, Response

CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"

Pools = dict[str, dict[str, object]]


@contextmanager
def proxy(directory: Path, **pools: dict[str, object]) -> Iterator[LbProxy]:
    """A daemon with a listener of its own for every pool."""
    calm: dict[str, object] = {"health_check": "off", "circuit_breaker": "off"}
    settings: dict[str, object] = {
        "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools],
        "pools": {name: {**calm, **pool} for name, pool in pools.items()},
    }
    with LbProxy(settings, directory) as lb:
        yield lb


def ask(lb: LbProxy, request: bytes, listener: str = "p") -> Response:
    with Client(lb.port(listener)) as client:
        return client.ask(request)


def server(authority: Authority, *names: str, **options: object) -> Origin:
    files = authority.issue("-".join(names).replace("*", "any"), *names, **options)  # type: ignore[arg-type]
    return Origin(wrap=server_wrap(files))


# --- connections and sessions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_connections_are_kept(authority: Authority, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """TLS 1.3 sends tickets after the handshake, which make an idle connection readable: that is no stray answer."""
    files = authority.issue("kept", "127.0.0.1")
    with Origin(wrap=server_wrap(files, minimum_version=version, maximum_version=version)) as origin:
        pool: dict[str, object] = {"servers": [origin.address], "tls": {"ca": authority.ca}}
        with proxy(tmp_path, p=pool) as lb:
            with Client(lb.port("p")) as client:
                for number in range(50):
                    assert client.ask(post(f"/kept/{number}")).status == 200
            assert len(origin.peers) == 1
            assert len(origin.requests) == 50
            assert lb.metric("stale_connections_total") == 0
            assert lb.metric("upstream_connects_total", result="ok") == 1


def test_sessions_are_resumed(authority: Authority, tmp_path: Path) -> None:
    resumed = []
    shake = server_wrap(authority.issue("resumed", "127.0.0.1"))

    def wrap(sock: socket.socket) -> ssl.SSLSocket:
        made = shake(sock)
        resumed.append(made.session_reused)
        return made

    with Origin(wrap=wrap) as origin:
        pool: dict[str, object] = {
            "servers": [origin.address],
            "tls": {"ca": authority.ca},
            "keep_alive": "off",
        }
        with proxy(tmp_path, p=pool) as lb:
            for number in range(4):
                assert ask(lb, get(f"/{number}")).status == 200
                wait_until(lambda: not origin.open_connections, "the connection to end")
    assert resumed == [False, True, True, True]


def test_an_asyncio_server(authority: Authority, tmp_path: Path) -> None:
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    files = authority.issue("asyncio", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with in_loop(lambda: asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)) as port:
        pool: dict[str, object] = {"servers": [f"localhost:{port}"], "tls": {"ca": authority.ca}}
        with proxy(tmp_path, p=pool) as lb, Client(lb.port("p")) as client:
            for number in range(20):
                assert client.ask(get(f"/{number}")).body == b"ok"
    assert len(connections) == 1


@contextmanager
def in_loop(start: Callable[[], object]) -> Iterator[int]:
    """Run an asyncio server in a thread; yields its port."""
    ready = threading.Event()
    found: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []
    stop: list[asyncio.Event] = []

    async def main() -> None:
        running = await start()  # type: ignore[misc]
        found.append(running.sockets[0].getsockname()[1])
        loops.append(asyncio.get_running_loop())
        stop.append(asyncio.Event())
        ready.set()
        await stop[0].wait()
        running.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(60)


def test_gunicorn(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue("gunicorn", "localhost", "127.0.0.1")
    options = ["-w", "1", "-k", "gthread", "--threads", "4", "--keep-alive", "30"]
    with socket.socket() as sock, (tmp_path / "gunicorn.log").open("wb") as log:
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        port = sock.getsockname()[1]
        command = [sys.executable, "-m", "gunicorn", "-b", f"fd://{sock.fileno()}", *options]
        command += ["--certfile", files.cert, "--keyfile", files.key, "lbproxy.demo.app:app"]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[sock.fileno()], stdout=log, stderr=log)
    try:
        check = {"type": "http", "path": "/health", "interval": "250ms"}
        pool: dict[str, object] = {
            "servers": [f"localhost:{port}"],
            "tls": {"ca": authority.ca},
            "health_check": check,
        }
        with proxy(tmp_path / "lb", p=pool) as lb:
            wait_until(lambda: lb.metric("health_checks_total", result="pass") >= 2, "gunicorn to be up")
            dials = lb.metric("upstream_connects_total", result="ok")
            body = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
            with Client(lb.port("p")) as client:
                for _ in range(20):
                    answer = client.ask(post("/predict", body, "Content-Type: application/json"))
                    assert answer.status == 200, answer.body
            assert lb.metric("upstream_connects_total", result="ok") == dials + 1
    finally:
        process.terminate()
        process.wait(60)


def test_many_at_once_both_sides(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue("both", "localhost")
    with server(authority, "127.0.0.1") as origin:
        settings: dict[str, object] = {
            "listeners": [{"name": "p", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls}],
            "pools": {"p": {"servers": [origin.address], "tls": {"ca": authority.ca}}},
        }
        with LbProxy(settings, tmp_path) as lb:

            def one(number: int) -> None:
                with TlsClient(lb.port("p"), authority.trusting()) as client:
                    for turn in range(5):
                        body = b"x" * (70_000 * number + turn)
                        answer = client.ask(post(f"/{number}/{turn}", body))
                        assert answer.body == b"POST /%d/%d %d\n" % (number, turn, len(body))

            in_threads(12, one)
        assert not origin.violations


# --- names ----------------------------------------------------------------------------------------------------------


def test_the_name_is_that_of_the_config_not_the_address(authority: Authority, tmp_path: Path) -> None:
    """The certificates are for names only; 127.0.0.1 would not do."""
    asked: list[str | None] = []

    def remember(_sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)

    files = authority.issue("names", "localhost", "model.internal")
    with Origin(wrap=server_wrap(files, sni_callback=remember)) as origin:
        host: dict[str, object] = {"servers": [f"localhost:{origin.port}"], "tls": {"ca": authority.ca}}
        own: dict[str, object] = {
            "servers": [origin.address],
            "tls": {"ca": authority.ca, "server_name": "model.internal"},
        }
        with proxy(tmp_path, host=host, own=own) as lb:
            assert ask(lb, get("/host"), "host").status == 200
            assert ask(lb, get("/own"), "own").status == 200
    assert asked == ["localhost", "model.internal"]


def test_the_dot_that_ends_an_absolute_name_is_for_look_ups_only(authority: Authority, tmp_path: Path) -> None:
    """SNI, the certificate, and Host go without it, in checks as in traffic."""
    asked: list[str | None] = []

    def remember(_sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)

    files = authority.issue("dot", "model.internal")
    with Origin(wrap=server_wrap(files, sni_callback=remember)) as origin:
        settings: dict[str, object] = {
            "listeners": [{"name": "p", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"Model.Internal.:{origin.port}"],
                    "tls": {"ca": authority.ca},
                    "health_check": {"type": "http", "path": "/check", "interval": "100ms", "rise": 1},
                }
            },
        }
        lb = HookedDaemon(settings, tmp_path)
        lb.set_names(**{"Model.Internal.": "127.0.0.1"})
        with lb:
            wait_until(lambda: server_state(lb, "p")["health"] == "up", "the check to pass")
            assert ask(lb, get("/x")).status == 200
        hosts = {request.get("host") for request in origin.requests if request.target == "/check"}
    assert hosts == {f"model.internal:{origin.port}"}
    assert set(asked) == {"model.internal"}


# --- failures ---------------------------------------------------------------------------------


def faults(authority: Authority, stranger: Authority, what: str) -> Origin:
    if what == "expired":
        return server(authority, "127.0.0.1", expired=True)
    if what == "wrong name":
        return server(authority, "elsewhere.org")
    if what == "unknown CA":
        return server(stranger, "127.0.0.1")
    if what == "old version":
        files = authority.issue("old", "127.0.0.1")
        old = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning):
            return Origin(wrap=server_wrap(files, minimum_version=old, maximum_version=old))
    return Origin(default=speaks_first if what == "speaks first" else Peer.serve)


def speaks_first(c: Peer) -> None:
    """Bytes before the handshake are nobody's answer (CVE-2026-1642 of another proxy)."""
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    c.stream.read_to_end()


FAULTS = {
    "expired": ("tls_verify", "certificate has expired"),
    "wrong name": ("tls_verify", "IP address mismatch"),
    "unknown CA": ("tls_verify", "unable to get local issuer certificate"),
    "old version": ("tls_handshake", "TLS"),
    "plain text": ("tls_handshake", "TLS"),
    "speaks first": ("tls_handshake", "does not speak TLS"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_server_without_proper_tls(authority: Authority, stranger: Authority, tmp_path: Path, what: str) -> None:
    reason, words = FAULTS[what]
    good = server(authority, "127.0.0.1")
    with good, faults(authority, stranger, what) as bad:
        bad.violations = []
        tls = {"ca": authority.ca}
        solo: dict[str, object] = {"servers": [bad.address], "tls": tls}
        pair: dict[str, object] = {"servers": [bad.address, good.address], "tls": tls, "strategy": "round_robin"}
        with proxy(tmp_path, solo=solo, pair=pair) as lb:
            answer = ask(lb, post("/solo"), "solo")
            assert answer.status == 502
            assert words in answer.body.decode()
            assert "error=tls_" in (answer.get("proxy-status") or "")
            assert len(bad.peers) == 1, "no second try at the same server"
            assert lb.metric("upstream_errors_total", pool="solo", reason=reason) == 1
            assert lb.entry("/solo")["end"] == reason
            # With another server every request is served, whatever its method: nothing was sent to the bad one.
            for number in range(4):
                assert ask(lb, post(f"/pair/{number}"), "pair").status == 200
            assert lb.metric("upstream_errors_total", pool="pair", reason=reason) >= 1
            assert lb.metric("retries_total", pool="pair", reason="connect", outcome="success") >= 1
        assert not bad.requests


def test_without_verification_any_certificate_will_do(stranger: Authority, tmp_path: Path) -> None:
    with server(stranger, "elsewhere.org", expired=True) as origin:
        pool: dict[str, object] = {"servers": [origin.address], "tls": {"verify": False}}
        with proxy(tmp_path, p=pool) as lb:
            assert ask(lb, get("/x")).status == 200


def test_by_default_the_cas_of_the_system_are_trusted(authority: Authority, tmp_path: Path) -> None:
    with (
        server(authority, "127.0.0.1") as origin,
        proxy(tmp_path, p={"servers": [origin.address], "tls": True}) as lb,
    ):
        assert ask(lb, get("/x")).status == 502
        assert lb.metric("upstream_errors_total", reason="tls_verify") == 1


def never_shakes(c: Peer) -> None:
    c.read_to_end()


def test_a_server_that_does_not_answer_the_handshake(tmp_path: Path) -> None:
    with Origin(default=never_shakes) as origin:
        pool: dict[str, object] = {
            "servers": [origin.address],
            "tls": {"verify": False},
            "timeouts": {"connect": "300s", "tls_handshake": "300ms"},
        }
        with proxy(tmp_path, p=pool) as lb:
            answer = ask(lb, post("/stalls"))
            assert answer.status == 504
            assert lb.entry("/stalls")["end"] == "tls_timeout"
            assert lb.metric("upstream_errors_total", reason="tls_handshake") == 1
            assert len(origin.peers) == 1
            wait_until(lambda: not origin.open_connections, "lbproxy to give the connection up")


def test_a_client_that_leaves_during_the_handshake(tmp_path: Path) -> None:
    with (
        Origin(default=never_shakes) as origin,
        proxy(tmp_path, p={"servers": [origin.address], "tls": {"verify": False}}) as lb,
    ):
        with Client(lb.port("p")) as client:
            client.send(get("/leaves"))
            wait_until(lambda: origin.peers, "the connection")
        wait_until(lambda: not origin.open_connections, "lbproxy to give the connection up")
        assert lb.entry("/leaves")["status"] == 499


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_client_certificate(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    files, mine = authority.issue("asks", "127.0.0.1"), authority.issue("mine", "lb.example")
    wrap = server_wrap(files, authority.ca, minimum_version=version, maximum_version=version)
    with Origin(wrap=wrap) as origin:
        shows: dict[str, object] = {"servers": [origin.address], "tls": {"ca": authority.ca, **mine.tls}}
        without: dict[str, object] = {"servers": [origin.address], "tls": {"ca": authority.ca}}
        with proxy(tmp_path, shows=shows, without=without) as lb:
            assert ask(lb, get("/shows"), "shows").status == 200
            # In TLS 1.3 the server says so only after the client is done: still nothing was read of the request.
            assert ask(lb, post("/without"), "without").status == 502
            assert lb.metric("upstream_errors_total", pool="without", reason="tls_handshake") == 1
            assert lb.entry("/without")["end"] == "tls_handshake"
            assert [request.target for request in origin.requests] == ["/shows"]


# --- the end of an answer -------------------------------------------------------------------------------------------


def ends_properly(c: Peer) -> None:
    c.read_request()
    c.send(CLOSE_DELIMITED)
    assert isinstance(c.sock, ssl.SSLSocket)
    c.sock.unwrap()


def is_cut_off(c: Peer) -> None:
    c.read_request()
    c.send(CLOSE_DELIMITED)
    socket.socket.shutdown(c.sock, socket.SHUT_WR)  # FIN without close_notify
    c.read_to_end()


def test_an_answer_that_ends_with_the_connection(authority: Authority, tmp_path: Path) -> None:
    with (
        server(authority, "127.0.0.1") as origin,
        proxy(tmp_path, p={"servers": [origin.address], "tls": {"ca": authority.ca}}) as lb,
    ):
        origin.script(ends_properly, is_cut_off)
        assert ask(lb, get("/whole")).body == b"hello"
        with Client(lb.port("p")) as client:
            client.send(get("/cut"))
            with pytest.raises(Ended) as ended:
                client.response()
        assert ended.value.how == "rst"
        assert lb.entry("/cut")["end"] == "truncated_body"
        assert lb.metric("upstream_errors_total", reason="truncated_body") == 1


def test_a_kept_connection_that_the_server_closed(authority: Authority, tmp_path: Path) -> None:
    """It is seen before anything is written to it, whether or not close_notify came before the FIN."""
    with (
        server(authority, "127.0.0.1") as origin,
        proxy(tmp_path, p={"servers": [origin.address], "tls": {"ca": authority.ca}}) as lb,
    ):
        with Client(lb.port("p")) as client:
            for number in range(5):
                origin.script(steps(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "fin"))
                assert client.ask(post(f"/{number}")).status == 200
                wait_until(lambda: not origin.open_connections, "both ends to be closed")
        assert len(origin.requests) == 5


def test_a_reset_on_a_kept_connection_is_not_repeated(authority: Authority, tmp_path: Path) -> None:
    with (
        server(authority, "127.0.0.1") as origin,
        proxy(tmp_path, p={"servers": [origin.address], "tls": {"ca": authority.ca}}) as lb,
    ):

        def answers_once(c: Peer) -> None:
            c.send(c.origin.answer(c.read_request()))
            close_unanswered(c)

        origin.script(answers_once)
        with Client(lb.port("p")) as client:
            assert client.ask(get("/first")).status == 200
            assert client.ask(post("/second")).status == 502
        assert [request.target for request in origin.requests] == ["/first", "/second"]


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"])
def test_time_outs_hold(authority: Authority, tmp_path: Path, data: bytes) -> None:
    with server(authority, "127.0.0.1") as origin:
        pool: dict[str, object] = {
            "servers": [origin.address],
            "tls": {"ca": authority.ca},
            "timeouts": {"read" if data else "response_head": "300ms"},
            "retry": "off",
        }
        with proxy(tmp_path, p=pool) as lb:
            origin.script(stalls_after(data) if data else silent)
            with Client(lb.port("p")) as client:
                client.send(get("/stalls"))
                if data:
                    with pytest.raises(Ended):
                        client.response()
                else:
                    assert client.response().status == 504
            wait_until(lambda: not origin.open_connections, "lbproxy to give the connection up")


# --- health checks --------------------------------------------------------------------------------------------------


def server_state(lb: LbProxy, pool: str) -> dict[str, object]:
    return lb.server_status(pool)[0]


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_health_checks(authority: Authority, stranger: Authority, tmp_path: Path, kind: str) -> None:
    check: dict[str, object] = {"type": kind, "interval": "100ms", "fall": 1, "rise": 1}
    with server(authority, "localhost") as origin, Origin() as cleartext:
        at = f"localhost:{origin.port}"
        trusted = {"ca": authority.ca}
        pools: Pools = {
            "as-pool": {"servers": [at], "tls": trusted, "health_check": check},
            "untrusted": {"servers": [at], "tls": {"ca": stranger.ca}, "health_check": check},
            "own": {
                "servers": [at],
                "tls": trusted,
                "health_check": {**check, "tls": {**trusted, "server_name": "elsewhere.org"}},
            },
            "off": {
                "servers": [at],
                "tls": trusted,
                "health_check": {**check, "tls": "off", "port": cleartext.port},
            },
            "only": {"servers": [at], "health_check": {**check, "tls": trusted}},
        }
        with proxy(tmp_path, **pools) as lb:
            for name in ("as-pool", "off", "only"):
                wait_until(lambda: server_state(lb, name)["health"] == "up", f"{name} to be up")  # noqa: B023
            for name, words in (("untrusted", "issuer certificate"), ("own", "ostname mismatch")):
                wait_until(lambda: server_state(lb, name)["health"] == "down", f"{name} to be down")  # noqa: B023
                assert words in str(server_state(lb, name)["why"] or ""), server_state(lb, name)
            assert ask(lb, get("/x"), "as-pool").status == 200


def test_unix_sockets(authority: Authority, tmp_path: Path) -> None:
    check: dict[str, object] = {"interval": "100ms", "rise": 1, "fall": 1}
    files = authority.issue("unix", "model.internal")
    with Origin(path=str(tmp_path / "s"), wrap=server_wrap(files)) as origin:
        named = {"ca": authority.ca, "server_name": "model.internal"}
        pools: Pools = {
            "named": {"servers": [origin.address], "tls": named, "health_check": check},
            "any": {"servers": [origin.address], "tls": {"verify": False}, "health_check": check},
        }
        with proxy(tmp_path / "lb", **pools) as lb:
            for name in pools:
                assert ask(lb, get(f"/{name}"), name).status == 200
                wait_until(lambda: server_state(lb, name)["health"] == "up", f"{name} to be up")  # noqa: B023


def test_a_half_closing_client_is_answered_if_told_to(authority: Authority, tmp_path: Path) -> None:
    """`half_close: answer` over TLS: close_notify ends the client's direction only."""
    files = authority.issue("half", "localhost")
    with Origin() as origin:
        listener = {"name": "p", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls, "half_close": "answer"}
        settings: dict[str, object] = {
            "listeners": [listener],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        gate = threading.Event()

        def waits(c: Peer) -> None:
            request = c.read_request()
            c.wait(gate)
            c.send(c.origin.answer(request))

        origin.script(waits)
        with LbProxy(settings, tmp_path) as lb, Client(lb.port("p")) as client:
            # Python's own socket reads nothing after its close_notify, so this client is made of memory.
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")

            def exchange() -> None:
                if data := outgoing.read():
                    client.sock.sendall(data)
                incoming.write(client.sock.recv(65536))

            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    exchange()
            tls.write(get("/half"))
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            client.sock.sendall(outgoing.read())
            wait_until(lambda: origin.requests, "the request")
            gate.set()
            answer = b""
            while b"GET /half" not in answer:
                try:
                    answer += tls.read(65536)
                except ssl.SSLWantReadError:
                    exchange()
            assert answer.startswith(b"HTTP/1.1 200 OK")
