"""The admin address as curl and Prometheus see it."""

import asyncio
import io
import json
import re
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from lbproxy.address import Address, parse_address
from lbproxy.control import admin
from lbproxy.control.access import Access, Token
from lbproxy.control.admin import ENDLESS, AdminServer, Route
from lbproxy.control.admin_turns import FULL, WAITING
from lbproxy.control.caller import Caller
from lbproxy.control.metrics import Exposition, Registry
from lbproxy.control.status import Json

Start = Callable[..., Awaitable[AdminServer]]


class State:
    reason: str | None = None
    is_broken = False


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
async def start(state: State) -> AsyncIterator[Start]:
    started: list[AdminServer] = []
    exposition = Exposition(Registry("1.2.3"))

    def status() -> Json:
        if state.is_broken:
            raise RuntimeError("defect")
        return {"version": "1.2.3"}

    async def reload(caller: Caller, is_dry: bool) -> tuple[int, Json]:
        if state.reason is not None:
            return 422, {"problems": [state.reason]}
        return 200, {"steps": [], "dry_run": is_dry, "by": str(caller)}

    async def start_one(
        bind: str = "127.0.0.1:0", token: str | None = None, routes: Sequence[Route] = ()
    ) -> AdminServer:
        server = AdminServer(
            parse_address(bind),
            Access([] if token is None else [Token("admin.token", token)]),
            metrics=lambda is_openmetrics, names: exposition.render(is_openmetrics=is_openmetrics, names=names),
            status=status,
            not_ready=lambda: state.reason,
            reload=reload,
            routes=routes,
        )
        await server.start()
        started.append(server)
        return server

    yield start_one
    for server in started:
        await server.stop()


@pytest.fixture
async def call() -> AsyncIterator[Callable[..., Awaitable[tuple[int, dict[str, str], str]]]]:
    async with aiohttp.ClientSession() as session:

        async def send(
            server: AdminServer, path: str, method: str = "GET", **headers: str
        ) -> tuple[int, dict[str, str], str]:
            url = f"http://{server.bound[0]}{path}"
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.request(method, url, headers=names) as answer:
                return answer.status, dict(answer.headers), await answer.text()

        yield send


Call = Callable[..., Awaitable[tuple[int, dict[str, str], str]]]


async def test_probes_answer_whatever_the_host_is_called(start: Start, call: Call, state: State) -> None:
    server = await start(token="s3cret")
    assert (await call(server, "/healthz", Host="lb.example"))[0] == 200
    assert (await call(server, "/readyz", Host="lb.example"))[0] == 200
    state.reason = "draining"
    status, _, text = await call(server, "/readyz", Host="lb.example")
    assert (status, text) == (503, "not ready: draining\n")
    assert (await call(server, "/healthz"))[0] == 200


async def test_metrics_come_in_the_format_that_was_asked_for(start: Start, call: Call) -> None:
    server = await start()
    status, headers, text = await call(server, "/metrics", Host="lb.example", Origin="http://evil.example")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "lbproxy_build_info" in {family.name for family in text_string_to_metric_families(text)}
    _, headers, text = await call(server, "/metrics", Accept="application/openmetrics-text")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


async def test_metrics_can_be_asked_for_by_name(start: Start, call: Call) -> None:
    server = await start()
    for names, expected in [
        ("name[]=lbproxy_build_info", {"lbproxy_build_info"}),
        (
            "name%5B%5D=lbproxy_build_info&name[]=lbproxy_server_up&name[]=odd",
            {"lbproxy_build_info", "lbproxy_server_up"},
        ),
        ("name[]=%FF%00", set()),
    ]:
        status, _, text = await call(server, f"/metrics?{names}")
        assert status == 200
        assert {family.name for family in text_string_to_metric_families(text)} == expected
    _, _, text = await call(server, "/metrics?name=lbproxy_build_info")
    assert "lbproxy_rejected_total" in text


async def test_where_many_wait_for_what_anybody_may_have_the_next_is_told_to_come_again(
    start: Start, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start(token="s3cret")
    turns, is_time = server._turns, asyncio.Event()

    async def sleep(seconds: float) -> None:
        await is_time.wait()
        turns.budget.spend(-1000.0)

    monkeypatch.setattr(turns, "_sleep", sleep)
    turns.budget.spend(1000.0)  # by others, who hammered
    waiting = asyncio.gather(*(call(server, path) for path in ("/metrics", "/") * (WAITING // 2)))
    for _ in range(10_000):
        if turns.n_waiting == WAITING:
            break
        await asyncio.sleep(0.001)
    for path in ("/metrics", "/"):
        status, headers, text = await call(server, path)
        assert (status, headers["Retry-After"], headers["Connection"]) == (503, "5", "close")
        assert json.loads(text)["detail"] == FULL
        assert (await call(server, path, Authorization="Bearer s3cret"))[0] == 200
    assert (await call(server, "/readyz"))[0] == 200
    is_time.set()
    assert [status for status, _, _ in await waiting] == [200] * WAITING


async def test_head_has_the_headers_and_no_body(start: Start, call: Call) -> None:
    server = await start()
    for path in ("/", "/metrics", "/healthz", "/readyz", "/api/v1/status"):
        status, headers, text = await call(server, path, "HEAD")
        assert (status, text) == (200, ""), path
        assert int(headers["Content-Length"]) > 0


async def test_an_answer_that_takes_too_long_is_given_up_but_for_the_one_that_has_no_end(
    start: Start, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "REQUEST_S", 0.05)
    waited: list[str] = []

    async def wait(request: web.Request, caller: Caller) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        waited.append(request.path)
        return web.Response(text="done")

    server = await start(routes=[("GET", ENDLESS, wait), ("GET", "/api/v1/other", wait)])
    assert (await call(server, "/api/v1/other"))[0] == 408
    assert (await call(server, ENDLESS))[0] == 200
    assert waited == [ENDLESS]


async def test_errors_are_problem_details(start: Start, call: Call) -> None:
    server = await start()
    for method, path, expected in [("GET", "/nothing", 404), ("POST", "/metrics", 405), ("PUT", "/api/v1/status", 405)]:
        status, headers, text = await call(server, path, method)
        assert (status, headers["Content-Type"]) == (expected, "application/problem+json; charset=utf-8")
        assert json.loads(text)["status"] == expected
        assert ("Allow" in headers) == (expected == 405)


@pytest.mark.parametrize("is_dry", [True, False])
async def test_reloads(start: Start, call: Call, state: State, is_dry: bool) -> None:
    server = await start(token="s3cret")
    path = "/api/v1/reload?dry_run=1" if is_dry else "/api/v1/reload"
    assert (await call(server, path, "POST"))[0] == 401
    allowed = {"Authorization": "Bearer s3cret"}
    status, _, text = await call(server, path, "POST", **allowed)
    assert (status, json.loads(text)) == (200, {"steps": [], "dry_run": is_dry, "by": "admin.token from 127.0.0.1"})
    state.reason = "lb.yaml:3:5: what is wrong"
    status, headers, text = await call(server, path, "POST", **allowed)
    assert (status, headers["Content-Type"]) == (422, "application/problem+json; charset=utf-8")
    assert json.loads(text)["problems"] == [state.reason]
    assert (await call(server, path, "GET"))[0] == 405


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{}", "application/json", 200),
        (b"{}", "application/json; charset=utf-8", 200),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b" " * 65_536, "application/json", 200),
        (b" " * 65_537, "application/json", 413),
        (b" " * 5_000_000, "application/json", 413),
    ],
)
async def test_bodies_are_short_and_json(start: Start, body: bytes, content_type: str, expected: int) -> None:
    """A page of another site can send the other types without asking the browser."""
    server = await start()
    url = f"http://{server.bound[0]}/api/v1/reload?dry_run=1"
    async with aiohttp.ClientSession() as session:
        for data in (io.BytesIO(body), chunks(body)):
            async with session.post(url, data=data, headers={"Content-Type": content_type}) as answer:
                assert answer.status == expected
                assert (answer.content_type == "application/problem+json") == (expected != 200)


async def test_a_body_that_is_declared_too_long_is_refused_before_it_comes(start: Start) -> None:
    server = await start()
    host, port = server.bound[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {2**40}\r\n\r\n".encode())
    async with asyncio.timeout(60):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 10_000):
        yield body[at : at + 10_000]


async def test_a_defect_is_a_500_and_the_server_lives(
    start: Start, call: Call, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start()
    state.is_broken = True
    status, _, text = await call(server, "/api/v1/status")
    assert (status, json.loads(text)["title"]) == (500, "Internal Server Error")
    assert "failed to answer GET /api/v1/status" in caplog.text
    state.is_broken = False
    assert (await call(server, "/api/v1/status"))[0] == 200


async def test_the_api_checks_host_and_token(start: Start, call: Call) -> None:
    server = await start(token="s3cret")
    assert (await call(server, "/api/v1/status"))[0] == 200
    assert (await call(server, "/api/v1/status", Host="evil.example"))[0] == 403
    assert (await call(server, "/api/v1/status", Host="lb.example", Authorization="Bearer s3cret"))[0] == 200
    status, headers, _ = await call(server, "/api/v1/anything", "POST")
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="lbproxy"')
    assert (await call(server, "/api/v1/anything", "POST", Authorization="Bearer s3cret"))[0] == 404


async def test_the_index_links_only_to_paths_that_exist(start: Start, call: Call) -> None:
    server = await start()
    _, _, page = await call(server, "/")
    links = {link for link in re.findall(r'(?:href|src)="([^"]+)"', page) if not link.startswith("#")}
    assert {"/api/v1/status", "/metrics", "/readyz", "/healthz", "/dashboard/app.js", "/dashboard/app.css"} <= links
    for link in links:
        assert (await call(server, link))[0] == 200


async def test_a_taken_port_is_reported(start: Start) -> None:
    server = await start()
    with pytest.raises(OSError, match="Address already in use"):
        await start(server.bound[0])


async def test_a_unix_socket_is_private_and_cleaned_up(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = await start(f"unix:{path}")
    assert server.bound == (f"unix:{path}",)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.get("http://any.name/api/v1/status") as answer:
            assert answer.status == 200
        with pytest.raises(OSError, match="ddress already in use"):
            await start(f"unix:{path}")
    await server.stop()
    assert not path.exists()


async def test_a_socket_that_somebody_else_made_meanwhile_stays(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    server = await start(f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        await server.stop()
        assert path.exists()


async def test_a_file_in_the_way_is_not_deleted(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(OSError, match="is not a socket"):
        await start(f"unix:{path}")
    assert path.read_text() == "precious"


async def test_an_abstract_socket(start: Start) -> None:
    server = await start(f"unix:@lbproxy-test-{id(start)}")
    reader, writer = await asyncio.open_unix_connection(Address("", 0, server.bound[0][5:]).sock_path)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    writer.close()
