"""The clients that people use: each is answered 200, and lbproxy counted exactly what they sent."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from tests.support.daemon import LbProxy
from tests.support.servers import FLOWERS, Gunicorn, in_threads, needed, session
from tests.support.waiting import wait_until

BODY = json.dumps(FLOWERS)
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def lb(demo_servers: list[Gunicorn], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    pool = {"servers": [server.address for server in demo_servers], "health_check": "/health"}
    settings: dict[str, object] = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": pool},
    }
    with LbProxy(settings, tmp_path_factory.mktemp("clients")) as daemon:
        yield daemon


@pytest.fixture
def counted(lb: LbProxy) -> Iterator[Callable[[int], None]]:
    """Call it with the number of requests that were answered 200: lbproxy counted as many, and nothing else."""
    before = lb.metric("requests_total")
    before_2xx = lb.metric("requests_total", code="2xx")

    def check(count: int) -> None:
        wait_until(lambda: lb.metric("requests_total") >= before + count, f"{count} requests to be counted")
        assert lb.metric("requests_total") == before + count
        assert lb.metric("requests_total", code="2xx") == before_2xx + count

    yield check
    lb.check_idle()


def url(lb: LbProxy, path: str = "/predict") -> str:
    return f"http://127.0.0.1:{lb.port('in')}{path}"


def check(prediction: str | bytes) -> None:
    assert [one["class"] for one in json.loads(prediction)["predictions"]] == ["setosa", "virginica"]


# --- curl ---

CURL = {
    "HTTP/1.0": ["--http1.0", "-d", BODY],
    "HTTP/1.1": ["--http1.1", "-d", BODY],
    "Expect": ["-H", "Expect: 100-continue", "-d", BODY],
    "chunked": ["-H", "Transfer-Encoding: chunked", "-d", BODY],
    "chunked and Expect": ["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "-d", BODY],
    "HTTP/2 upgrade": ["--http2", "-d", BODY],
    "compressed": ["--compressed", "-d", BODY],
}


def curl(lb: LbProxy, *arguments: str, path: str = "/predict", count: int = 1) -> tuple[str, str]:
    """Body and head of the last answer, with `count` requests over one connection."""
    urls = [url(lb, path)] * count
    command = [needed("curl"), "-sS", "--noproxy", "*", "-m", "60", "-D", "/dev/stderr", *arguments, *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", CURL)
def test_curl(lb: LbProxy, counted: Callable[[int], None], name: str) -> None:
    body, heads = curl(lb, "-H", JSON, *CURL[name])
    check(body)
    statuses = re.findall(r"^HTTP/([0-9.]+) (\d+)", heads, re.MULTILINE)
    assert statuses[-1] == ("1.1", "200")
    assert {status for _, status in statuses[:-1]} <= {"100"}
    assert "upgrade" not in heads.lower()
    counted(1)


def test_curl_head(lb: LbProxy, counted: Callable[[int], None]) -> None:
    said, heads = curl(lb, "--head", path="/health")
    assert heads.startswith("HTTP/1.1 200 ")
    # Some versions of curl print the head as the body of HEAD too; nothing else may come.
    assert said.replace(heads, "") == ""
    assert re.search(r"(?im)^content-length: [1-9]", heads)
    counted(1)


def test_curl_waits_for_100_before_a_big_body(lb: LbProxy, counted: Callable[[int], None], tmp_path: Path) -> None:
    """Above 1 MiB curl sends `Expect` by itself."""
    many = tmp_path / "many.json"
    many.write_text(json.dumps(FLOWERS) + " " * 1_500_000)
    body, heads = curl(lb, "-H", JSON, "--data-binary", f"@{many}")
    check(body)
    assert heads.startswith("HTTP/1.1 100")
    counted(1)


def test_curl_reuses_its_connection(lb: LbProxy, counted: Callable[[int], None]) -> None:
    before = lb.metric("client_connections_total")
    curl(lb, path="/health", count=20)
    counted(20)
    assert lb.metric("client_connections_total") == before + 1


# --- Python ---


def test_requests_session(lb: LbProxy, counted: Callable[[int], None]) -> None:
    before = lb.metric("client_connections_total")

    def client(_: int) -> None:
        with session() as one:
            for _ in range(25):
                answer = one.post(url(lb), json=FLOWERS, timeout=60)
                assert answer.status_code == 200
                check(answer.content)

    in_threads(4, client)
    counted(100)
    assert lb.metric("client_connections_total") == before + 4


async def test_httpx(lb: LbProxy, counted: Callable[[int], None]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=20)) as client:
        answers = await asyncio.gather(*(client.post(url(lb), json=FLOWERS) for _ in range(100)))
        assert [answer.status_code for answer in answers] == [200] * 100
        for answer in answers:
            check(answer.content)

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(BODY), 10):
                yield BODY[at : at + 10].encode()

        answer = await client.post(url(lb), content=pieces(), headers={"Content-Type": "application/json"})
        check(answer.content)
    counted(101)


async def test_aiohttp(lb: LbProxy, counted: Callable[[int], None]) -> None:
    connector = aiohttp.TCPConnector(limit=20)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as client:

        async def one(number: int) -> int:
            async with client.post(
                url(lb), json=FLOWERS, expect100=number % 4 == 0, chunked=number % 3 == 0 or None
            ) as answer:
                check(await answer.read())
                return answer.status

        assert await asyncio.gather(*map(one, range(100))) == [200] * 100
    counted(100)


# --- load generators ---


@pytest.mark.parametrize("keep_alive", [True, False])
def test_ab(lb: LbProxy, counted: Callable[[int], None], tmp_path: Path, keep_alive: bool) -> None:
    """HTTP/1.0, where a connection is kept only if both sides say so."""
    body = tmp_path / "body.json"
    body.write_text(BODY)
    before = lb.metric("client_connections_total")
    command = [needed("ab"), "-q", "-n", "300", "-c", "8", "-p", str(body), "-T", "application/json", "-l"]
    done = subprocess.run(
        [*command, *(["-k"] if keep_alive else []), url(lb)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Complete requests: +300\n", done.stdout), done.stdout
    assert re.search(r"Failed requests: +0\n", done.stdout), done.stdout
    assert "Non-2xx" not in done.stdout
    kept = re.search(r"Keep-Alive requests: +(\d+)", done.stdout)
    assert int(kept[1] if kept else 0) == (300 if keep_alive else 0)
    counted(300)
    opened = lb.metric("client_connections_total") - before
    # Without -k each of ab's 8 slots may have opened one more connection when the last answer came; it asks nothing.
    assert opened == 8 if keep_alive else 300 <= opened <= 308


def test_wrk(lb: LbProxy, tmp_path: Path) -> None:
    """wrk leaves its last requests unanswered: those are 499, everything else is 200."""
    script = tmp_path / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\nwrk.headers['Content-Type'] = 'application/json'\n")
    before = {code: lb.metric("requests_total", code=code) for code in ("2xx", "499")}
    total = lb.metric("requests_total")
    command = [needed("wrk"), "-t", "1", "-c", "16", "-d", "1s", "-s", str(script), url(lb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    answered = int(re.findall(r"(\d+) requests in", done.stdout)[0])
    assert answered
    lb.check_idle()
    succeeded = lb.metric("requests_total", code="2xx") - before["2xx"]
    left = lb.metric("requests_total", code="499") - before["499"]
    assert succeeded + left == lb.metric("requests_total") - total
    # An answer may have been on its way when wrk stopped to read.
    assert answered <= succeeded <= answered + 16
    assert left <= 16
