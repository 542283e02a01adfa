"""Whom the doctor asks for what, and what it makes of servers that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.doctor.examining import MOST_SERVERS, Options, Patient, examine, too_many
from lbproxy.doctor.talking import Question
from tests.support.certificates import Authority

Respond = Callable[[str], Awaitable[bytes]]
QUICK = Options(timeout_s=20.0, idle_s=0.0)


class Site:
    """A server that answers by path and remembers who asked for what. is_kept: it leaves connections open."""

    def __init__(self, *, server: str = "uvicorn", is_kept: bool = True) -> None:
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.status: dict[str, int] = {}
        self.at_work = 0
        self.most_at_work = 0
        self.work_s = 0.0
        self.connections = 0
        self._server = server
        self._is_kept = is_kept
        self._listening: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Site:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            is_open = True
            while is_open:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                self.asked.append(path)
                self.agents |= {line[12:] for line in head.split("\r\n") if line.startswith("User-Agent: ")}
                await self._work()
                is_open = self._is_kept and "Connection: close" not in head
                writer.write(self._answer(path, is_open=is_open))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _work(self) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await asyncio.sleep(self.work_s)
        self.at_work -= 1

    def _answer(self, path: str, *, is_open: bool) -> bytes:
        connection = "keep-alive" if is_open else "close"
        head = f"HTTP/1.1 {self.status.get(path, 404)} X\r\nServer: {self._server}\r\nConnection: {connection}\r\n"
        return f"{head}Content-Length: 2\r\n\r\n{{}}".encode()


def retort(data: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Says this to whatever comes first."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(65_536):
            writer.write(data)
        writer.close()

    return behave


def config(*ports: object, mode: str = "http", more: str = "") -> Config:
    servers = ", ".join(f"'127.0.0.1:{port}'" if isinstance(port, int) else f"'{port}'" for port in ports)
    text = f"listeners: [{{bind: ':1', mode: {mode}, pool: p}}]\npools: {{p: {{servers: [{servers}]{more}}}}}\n"
    return load_text(text, "lb.yaml", {}).config


async def examined(made: Config, options: Options = QUICK, base_dir: str = ".") -> list[Patient]:
    return await examine(made, ["p"], options, base_dir=base_dir)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as made:
        yield made


async def test_a_server_gets_a_few_gets_on_one_connection(site: Site) -> None:
    [patient] = await examined(config(site.port))
    assert site.asked == ["/health", "/v1/models", "/version"]
    assert site.connections == 2, "the check, and the doctor"
    assert site.agents == {"lbproxy-doctor"}
    assert patient.evidence.is_reused
    assert patient.evidence.check == "accepted a connection"
    assert patient.evidence.held_s == 0.0


async def test_the_path_of_the_check_is_asked_for_first_and_its_headers_are_sent(site: Site) -> None:
    site.status["/up"] = 200
    [patient] = await examined(config(site.port, more=", health_check: {path: /up, headers: {User-Agent: me}}"))
    assert site.asked == ["/up", "/up", "/v1/models", "/version"]
    assert site.agents == {"me"}
    assert patient.evidence.check == "answered 200 to GET /up"


async def test_a_server_that_closes_is_not_waited_for() -> None:
    async with Site(server="gunicorn", is_kept=False) as site:
        [patient] = await examined(config(site.port), Options(20.0, idle_s=600.0))
    assert site.asked == ["/health", "/health"]
    assert (patient.evidence.is_reused, patient.evidence.closed_after_s, patient.evidence.held_s) == (None, None, 0.0)


async def test_a_failed_check_does_not_end_the_examination(site: Site) -> None:
    site.status["/up"] = 503
    [patient] = await examined(config(site.port, more=", health_check: /up"))
    assert patient.evidence.is_check_failed
    assert patient.evidence.check == "answered 503 to GET /up, expected 200-399"
    assert len(patient.evidence.replies) == 3


async def test_what_is_passed_on_as_it_is_is_not_asked(site: Site) -> None:
    [patient] = await examined(config(site.port, mode="tcp"))
    assert site.asked == []
    assert (patient.evidence.check, patient.evidence.unreachable) == ("accepted a connection", "")


async def test_nobody_there(tmp_path: Path) -> None:
    [patient] = await examined(config(f"unix:{tmp_path}/none"))
    told = "connection refused; is the server started, and is this its port?"
    assert patient.evidence.unreachable == told


async def test_a_server_that_speaks_something_else() -> None:
    server = await asyncio.start_server(retort(b"-ERR what?\r\n"), "127.0.0.1", 0)
    [patient] = await examined(config(server.sockets[0].getsockname()[1]))
    told = "sent no HTTP/1 answer but '-ERR what?\\r'; does it speak HTTP/1.1 on this port?"
    assert patient.evidence.trouble == told
    server.close()


async def test_a_server_that_hangs_costs_one_time_out() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    [patient] = await examined(config(server.sockets[0].getsockname()[1]), Options(0.5, idle_s=600.0))
    assert patient.evidence.trouble.startswith("no answer to GET /health within 0.5 s")
    server.close()


async def test_a_name_is_asked_at_its_address_and_by_its_name(site: Site) -> None:
    [patient] = await examined(config(f"localhost:{site.port}"))
    assert (str(patient.address), patient.name) == (f"127.0.0.1:{site.port}", f"localhost:{site.port}")
    assert len(patient.evidence.replies) == 3


async def test_no_request_is_sent_at_once_unless_it_is_given(site: Site) -> None:
    await examined(config(site.port))
    assert site.most_at_work == 1


async def test_load_stays_within_its_bound(site: Site) -> None:
    site.status["/work"] = 200
    site.work_s = 0.05
    for _ in range(20):  # a machine that is busy makes two requests slower than one, and more are not sent then
        site.asked.clear()
        [patient] = await examined(config(site.port), Options(20.0, 0.0, Question("/work"), at_most=3))
        assert patient.evidence.pace is not None
        assert site.most_at_work <= 3
        assert site.asked.count("/work") == patient.evidence.pace.requests <= 3 + 3 * (2 + 3)
        if patient.evidence.pace.requests >= 3 + 2 + 3:
            break
    assert site.most_at_work == 3
    assert patient.evidence.pace is not None and patient.evidence.pace.requests >= 3 + 2 + 3


async def test_load_that_is_refused_ends_with_the_first_request(site: Site) -> None:
    [patient] = await examined(config(site.port), Options(20.0, 0.0, Question("/work", "POST"), at_most=8))
    assert patient.evidence.pace is not None
    assert patient.evidence.pace.failed == "answered 404 to POST /work"
    assert site.asked.count("/work") == 1


async def test_load_that_is_too_short_to_tell_is_not_increased(site: Site) -> None:
    site.status["/work"] = 200
    for _ in range(20):  # a machine that is busy makes a short request long
        site.asked.clear()
        [patient] = await examined(config(site.port), Options(20.0, 0.0, Question("/work"), at_most=8))
        if patient.evidence.pace is not None and patient.evidence.pace.at_once is None:
            break
    assert site.asked.count("/work") == 3
    assert patient.evidence.pace is not None
    assert patient.evidence.pace.requests == 3


async def test_a_certificate_that_cannot_be_read_has_a_place(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as raised:
        await examined(config(site.port, more=", tls: {ca: none.pem}"), base_dir=str(tmp_path))
    assert raised.value.path == ("pools", "p", "tls", "ca")
    assert site.asked == []


async def test_a_server_without_tls_where_there_should_be_some(tmp_path: Path) -> None:
    Authority(tmp_path, "ca")
    server = await asyncio.start_server(retort(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    [patient] = await examined(config(port, more=", tls: {ca: ca.pem}"), base_dir=str(tmp_path))
    server.close()
    assert patient.evidence.unreachable == "it does not speak TLS on this port"


def test_more_servers_than_can_be_asked_are_counted() -> None:
    made = config(*(f"10.0.0.{n}:1000-1255" for n in range(5)))
    assert too_many(made, ["p"]) == 1280 > MOST_SERVERS
    assert too_many(made, []) == 0
