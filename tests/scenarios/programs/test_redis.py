"""redis-benchmark and redis-cli against Redis through TCP mode."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import Program, redis
from tests.support.servers import needed
from tests.support.waiting import wait_until

REQUESTS = 5000
CHECK = {"type": "tcp", "send": "PING\r\n", "expect": {"text": "+PONG"}, "interval": "250ms"}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[tuple[Program, int]]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(redis(tmp_path, f"redis{number}")) for number in range(2)]


def settings(servers: list[tuple[Program, int]], **pool: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "cache"}],
        "pools": {"cache": {"servers": [f"127.0.0.1:{port}" for _, port in servers], "health_check": CHECK, **pool}},
    }


def run(program: str, lb: LbProxy, *arguments: str, text: str = "") -> str:
    done = subprocess.run(
        [needed(program), "-h", "127.0.0.1", "-p", str(lb.port("in")), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_redis_benchmark_with_pipelining(servers: list[tuple[Program, int]], tmp_path: Path) -> None:
    with LbProxy(settings(servers[:1]), tmp_path) as lb:
        what = ["-n", str(REQUESTS), "-c", "20", "-P", "8", "-d", "512", "-t", "set,get,lrange_100", "--csv"]
        out = run("redis-benchmark", lb, *what)
        lines = [line.split(",") for line in out.splitlines() if line.startswith('"') and not line.startswith('"test"')]
        assert {line[0].strip('"').partition(" ")[0] for line in lines} >= {"SET", "GET", "LRANGE_100"}
        assert all(float(line[1].strip('"')) > 0 for line in lines)
        stats = run("redis-cli", lb, "info", "commandstats")
        # Every command arrived: the tool counts only answers, and it got all of them.
        for name in ("set", "get", "lrange"):
            assert f"cmdstat_{name}:calls={REQUESTS}," in stats
        assert lb.metric("upstream_errors_total") == 0
        assert lb.metric("tcp_bytes_total", direction="out") > REQUESTS * 100 * 512


def test_values_are_what_was_stored(servers: list[tuple[Program, int]], tmp_path: Path) -> None:
    with LbProxy(settings(servers[:1]), tmp_path) as lb:
        value = "x" * 300_000
        assert run("redis-cli", lb, "-x", "set", "big", text=value).strip() == "OK"
        assert run("redis-cli", lb, "get", "big").strip() == value


def test_one_of_two_is_killed(servers: list[tuple[Program, int]], tmp_path: Path) -> None:
    """New connections go to the one that is left, at once; its check brings nobody back who is gone."""
    with LbProxy(settings(servers, strategy="round_robin"), tmp_path) as lb:
        wait_until(lambda: lb.metric("health_checks_total", result="pass") >= 2, "both to be checked")
        servers[0][0].kill()
        for _ in range(10):
            assert run("redis-cli", lb, "ping").strip() == "PONG"
        wait_until(lambda: lb.metric("server_up") == 1, "the other to be down")
        out = run("redis-benchmark", lb, "-n", "2000", "-c", "10", "-t", "ping_mbulk", "--csv")
        assert "PING_MBULK" in out
        wait_until(lambda: len(served(lb)) >= 10, "the log to be written")
        assert len(set(served(lb))) == 1


def served(lb: LbProxy) -> list[object]:
    """The server of each connection that ended well."""
    return [entry["server"] for entry in lb.access_log() if entry["end"] == "ok"]
