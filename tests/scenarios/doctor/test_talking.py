"""The doctor's connections, to servers that answer, hang, break off and close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.doctor.talking import Line, NoAnswer, Question, Target, ask_once, dial

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., Awaitable[Target]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[asyncio.Server] = []

    async def start(behaviour: Behaviour, timeout_s: float = 20.0, path: Path | None = None) -> Target:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await behaviour(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        if path is not None:
            servers.append(await asyncio.start_unix_server(handle, str(path)))
            return Target(parse_address(f"unix:{path}"), "localhost", timeout_s)
        servers.append(await asyncio.start_server(handle, "127.0.0.1", 0))
        port = servers[-1].sockets[0].getsockname()[1]
        return Target(Address("127.0.0.1", port), f"127.0.0.1:{port}", timeout_s)

    yield start
    for server in servers:
        server.close()


def answering(data: bytes, heads: list[bytes] | None = None, times: int = 1) -> Behaviour:
    """Answers so many requests and closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            writer.write(data)
            await writer.drain()

    return behave


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_a_question_is_an_http_request_that_says_who_asks(serve: Serve) -> None:
    heads: list[bytes] = []
    target = await serve(answering(OK, heads))
    reply = await ask_once(target, Question("/a?b", headers={"X-A": "b", "user-agent": "me"}))
    assert (reply.status, reply.body) == (200, b"ok")
    assert heads == [
        f"GET /a?b HTTP/1.1\r\nHost: {target.host}\r\nAccept: */*\r\nX-A: b\r\nuser-agent: me\r\n\r\n".encode()
    ]
    assert b"User-Agent: lbproxy-doctor\r\n" in Question("/").text("h")


def test_a_body_has_a_length_and_so_has_none_where_one_is_usual() -> None:
    assert Question("/", "POST", body=b"ab").text("h").endswith(b"Content-Length: 2\r\n\r\nab")
    assert b"Content-Length: 0\r\n" in Question("/", "POST").text("h")
    assert b"Content-Length" not in Question("/").text("h")


async def test_one_connection_takes_several_questions(serve: Serve) -> None:
    line = await dial(await serve(answering(OK, times=3)))
    assert [(await line.ask(Question("/"))).status for _ in range(3)] == [200, 200, 200]
    await line.ended
    with pytest.raises(NoAnswer, match="closed the connection"):
        await line.ask(Question("/"))
    line.close()


async def test_unix_sockets_are_servers_too(serve: Serve, tmp_path: Path) -> None:
    assert (await ask_once(await serve(answering(OK), path=tmp_path / "s"), Question("/"))).status == 200


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "closed the connection unanswered"),
        (b"220 ready\r\n", "sent no HTTP/1 answer but '220 ready"),
        (OK[:-1], "closed the connection in the middle of an answer"),
    ],
)
async def test_what_is_no_answer_is_told(data: bytes, told: str, serve: Serve) -> None:
    with pytest.raises(NoAnswer, match=told):
        await ask_once(await serve(answering(data)), Question("/"))


async def test_a_server_that_hangs_is_given_up(serve: Serve) -> None:
    with pytest.raises(NoAnswer, match=r"no answer to GET /x within 0\.5 s"):
        await ask_once(await serve(hang, 0.5), Question("/x"))


async def test_nobody_there() -> None:
    with pytest.raises(NoAnswer, match="connecting failed: "):
        await dial(Target(parse_address("unix:/no/such/socket"), "localhost", 5.0))


async def test_silence_ends_with_the_server_or_with_patience(serve: Serve) -> None:
    told_to_close = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await told_to_close.wait()

    line: Line = await dial(await serve(behave))
    await line.ask(Question("/"))
    assert await line.silence(0.02) is None
    told_to_close.set()
    silent_s = await line.silence(20.0)
    assert silent_s is not None
    assert 0.0 <= silent_s < 20.0
    line.close()


async def test_what_nobody_asked_for_is_left_out(serve: Serve) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    line = await dial(await serve(behave))
    await line.ended
    with pytest.raises(NoAnswer, match="closed the connection"):
        await line.ask(Question("/"))
    line.close()
