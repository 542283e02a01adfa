"""The client of the API server against servers that are not as they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbproxy.control.discovery.kubernetes import client
from lbproxy.control.discovery.kubernetes.access import Access
from lbproxy.control.discovery.kubernetes.client import Cut, HttpApi, TooLong, whole
from lbproxy.control.discovery.kubernetes.watching import Ask
from tests.support.certificates import Authority, server_wrap
from tests.support.origin import Origin, Peer
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

LIST = Ask((("labelSelector", "a/b=c"), ("limit", "20")))
PATH = "/apis/x"


class Server:
    """A TLS server that a script makes, and what it takes to reach it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.origin = Origin(wrap=server_wrap(self.authority.issue("api", "kubernetes")))
        self.access = Access(
            f"https://127.0.0.1:{self.origin.port}",
            "n",
            "s3cret",
            Path(self.authority.ca).read_bytes(),
            server_name="kubernetes",
        )

    async def ask(self, access: Access | None = None, ask: Ask = LIST, most_bytes: int = 1000) -> tuple[int, bytes]:
        api = HttpApi()
        try:
            async with api.get(access or self.access, PATH, ask) as reply:
                return reply.status, await whole(reply, most_bytes)
        finally:
            await api.close()
            await self.parted()

    async def parted(self) -> None:
        """Both ends have closed: who closes TLS waits for the other, and the test's loop must not end before."""
        await asyncio.to_thread(wait_until, lambda: not self.origin.open_connections, "the connections to end")
        for _ in range(20):  # turns of the loop, in which this end hears of it
            await asyncio.sleep(0)

    async def trouble(self, access: Access | None = None, ask: Ask = LIST) -> str:
        with pytest.raises(OSError) as caught:
            await self.ask(access, ask)
        return str(caught.value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.origin.close()


def says(answer: bytes) -> Callable[[Peer], None]:
    def script(c: Peer) -> None:
        c.read_request()
        c.send(answer)

    return script


async def test_a_request_has_what_the_api_wants_and_no_more(server: Server) -> None:
    assert await server.ask() == (200, b"GET /apis/x?labelSelector=a/b%3Dc&limit=20 0\n")
    (request,) = server.origin.requests
    assert request.get("authorization") == "Bearer s3cret"
    assert (request.get("accept"), request.get("accept-encoding")) == ("application/json", "identity")


async def test_connections_are_kept_for_the_next_request(server: Server) -> None:
    api = HttpApi()
    for _ in range(3):
        async with api.get(server.access, PATH, LIST) as reply:
            await whole(reply, 1000)
    await api.close()
    assert {request.connection for request in server.origin.requests} == {0}
    await server.parted()


@pytest.fixture
def other_ca(tmp_path: Path) -> bytes:
    return Path(Authority(tmp_path / "other").ca).read_bytes()


async def test_a_certificate_of_somebody_else_does_not_count(server: Server, other_ca: bytes) -> None:
    for access in (
        Access(server.access.url, "n", "s3cret", other_ca, server_name="kubernetes"),
        Access(server.access.url, "n", "s3cret", server.access.ca),
    ):
        assert "its certificate does not count: " in await server.trouble(access)
    assert server.origin.requests == []


async def test_a_redirection_is_not_followed(server: Server) -> None:
    with Origin() as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/"
        server.origin.script(says(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()))
        assert await server.ask() == (302, b"")
        assert elsewhere.requests == []


async def test_nobody_there(server: Server) -> None:
    url = f"https://127.0.0.1:{consecutive_ports(1)}"
    assert (await server.trouble(Access(url, "n"))).startswith(f"cannot reach {url}: ")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "asking https://127.0.0.1:"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", "the connection to the API server was lost: "),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
            "the connection to the API server was lost: ",
        ),
    ],
)
async def test_half_an_answer_is_none(server: Server, answer: bytes, told: str) -> None:
    server.origin.script(says(answer))
    assert (await server.trouble()).startswith(told)


async def test_a_body_without_end_is_given_up(server: Server) -> None:
    server.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000))
    with pytest.raises(TooLong):
        await server.ask()


async def test_an_answer_has_its_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is late is what `source.py` watches for."""
    monkeypatch.setattr(client, "LIST_S", 1.0)

    def script(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12")
        c.read_to_end()

    server.origin.script(script)
    with pytest.raises((Cut, TimeoutError)):
        await server.ask()
