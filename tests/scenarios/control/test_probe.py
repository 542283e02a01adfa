"""Health checks against real sockets that behave well and badly."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.config.model import HealthCheck
from lbproxy.control.probe import ProbeSpec, Result, Verdict, probe

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., Awaitable[Address]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[asyncio.Server] = []

    async def start(behaviour: Behaviour, path: Path | None = None) -> Address:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await behaviour(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        if path is not None:
            servers.append(await asyncio.start_unix_server(handle, str(path)))
            return parse_address(f"unix:{path}")
        servers.append(await asyncio.start_server(handle, "127.0.0.1", 0))
        return Address("127.0.0.1", servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


def answer(data: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return behave


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def check(address: Address, **settings: object) -> Result:
    return await probe(ProbeSpec.from_config(HealthCheck.model_validate({"timeout": 30.0, **settings})), address)


async def test_a_tcp_check_needs_a_listener(serve: Serve) -> None:
    assert (await check(await serve(hang))).verdict is Verdict.PASS


async def test_an_http_check_needs_an_answer(serve: Serve) -> None:
    assert (await check(await serve(answer(OK)), type="http")).verdict is Verdict.PASS


async def test_over_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    address = await serve(answer(OK), tmp_path / "app.sock")
    assert (await check(address, type="http")).verdict is Verdict.PASS
    assert (await check(parse_address(f"unix:{tmp_path}/none.sock"))).verdict is Verdict.REFUSED


async def test_on_another_port(serve: Serve) -> None:
    address = await serve(answer(OK))
    assert (await check(Address("127.0.0.1", 1), type="http", port=address.port)).verdict is Verdict.PASS


async def test_a_closed_port_refuses(serve: Serve) -> None:
    result = await check(Address("127.0.0.1", 1))
    assert (result.verdict, result.reason) == (Verdict.REFUSED, "refused")


@pytest.mark.parametrize("settings", [{"type": "tcp"}, {"type": "http", "path": "/"}])
@pytest.mark.parametrize("proxy_protocol", ["off", "v1"])
async def test_a_check_that_meets_itself_is_refused(
    settings: dict[str, object], proxy_protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a port of this machine where nobody listens the kernel may choose just that port for the other end."""
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    connected: list[int] = []

    class FromThatPort(socket.socket):
        def connect(self, target: object) -> None:
            if target == ("127.0.0.1", port) and self.getsockname()[1] == 0:
                self.bind(("127.0.0.1", port))
                connected.append(self.fileno())
            super().connect(target)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", FromThatPort)
    spec = ProbeSpec.from_config(HealthCheck.model_validate({"timeout": 30.0, **settings}), proxy_protocol)
    result = await probe(spec, Address("127.0.0.1", port))
    assert connected, "it did not meet itself"
    assert result.verdict is Verdict.REFUSED


async def test_a_server_that_hangs_costs_the_time_out_and_no_more(serve: Serve) -> None:
    address = await serve(hang)
    started = time.monotonic()
    result = await check(address, type="http", timeout=0.2)
    assert (result.verdict, result.why) == (Verdict.TIMEOUT, "no answer within 0.2 s")
    assert 0.15 < time.monotonic() - started < 25


async def test_a_trickle_does_not_extend_the_time_out(serve: Serve) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    started = time.monotonic()
    assert (await check(await serve(trickle), type="http", timeout=0.2)).verdict is Verdict.TIMEOUT
    assert time.monotonic() - started < 25


async def test_an_endless_body_does_not_matter_when_the_status_is_right(serve: Serve) -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    address = await serve(stream)
    assert (await check(address, type="http", timeout=2.0)).verdict is Verdict.PASS  # when the time is over
    assert (await check(address, type="http", timeout=0.2, expect={"body": "y"})).verdict is Verdict.TIMEOUT


async def test_a_reset_is_a_failure(serve: Serve) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    result = await check(await serve(reset), type="http")
    assert (result.verdict, result.reason) == (Verdict.FAIL, "reset")


@pytest.fixture
def respond() -> Iterator[Callable[[socket.socket, bytes], None]]:
    """Answers each connection and closes it with what it sent unread, so that the kernel resets it."""
    listening: list[socket.socket] = []

    def start(sock: socket.socket, reply: bytes) -> None:
        listening.append(sock)
        sock.listen()

        def serve() -> None:
            while True:
                try:
                    peer, _ = sock.accept()
                except OSError:
                    return
                peer.recv(1, socket.MSG_PEEK)  # the request is there, and stays unread
                peer.sendall(reply)
                peer.close()

        threading.Thread(target=serve, daemon=True).start()

    yield start
    for sock in listening:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (OK, Verdict.PASS),
        (b"HTTP/1.1 200 OK\n", Verdict.PASS),
        (b"HTTP/1.1 503 No\r\n\r\n", Verdict.FAIL),
        (b"HTTP/1.1 2", Verdict.FAIL),
    ],
)
async def test_an_answer_before_a_reset_counts(
    respond: Callable[[socket.socket, bytes], None], tmp_path: Path, kind: str, reply: bytes, verdict: Verdict
) -> None:
    """As keepalived's HTTP_GET sees it from a responder that never reads: 30 times, for the reset races the answer."""
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        address = parse_address(f"unix:{tmp_path}/s")
    else:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", sock.getsockname()[1])
    respond(sock, reply)
    results = [await check(address, type="http") for _ in range(30)]
    assert {result.verdict for result in results} == {verdict}, results


async def test_an_answer_to_a_tcp_check_before_a_reset_counts(
    respond: Callable[[socket.socket, bytes], None],
) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    respond(sock, b"+PONG")
    address = Address("127.0.0.1", sock.getsockname()[1])
    results = [await check(address, type="tcp", send="PING\r\n", expect="+PONG") for _ in range(30)]
    assert {result.verdict for result in results} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("reply", "verdict"), [(b"+PONG\r\n", Verdict.PASS), (b"-ERR\r\n", Verdict.FAIL), (b"+PO", Verdict.FAIL)]
)
async def test_send_and_expect(serve: Serve, reply: bytes, verdict: Verdict) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(6) == b"PING\r\n"
        writer.write(reply)

    assert (await check(await serve(speak), type="tcp", send="PING\r\n", expect="+PONG")).verdict is verdict


async def test_the_connection_is_closed_afterwards(serve: Serve) -> None:
    closed = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()
        closed.set()

    await check(await serve(watch), type="http")
    async with asyncio.timeout(60):
        assert await closed.wait()
