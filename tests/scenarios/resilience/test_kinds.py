"""Pools with a kind before real servers of that kind: its values are in force, and no request is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.timed_app import WORK, served

# name: server, workers, threads, and what the pool says besides its servers
REAL: Mapping[str, tuple[str, int, int, Mapping[str, object]]] = {
    "sync": ("gunicorn-sync", 1, 1, {"kind": "gunicorn-sync", "max_inflight": 1}),
    "gthread": ("gunicorn-gthread", 1, 4, {"kind": "gunicorn-gthread", "max_inflight": 4}),
    "uvicorn": ("uvicorn", 1, 1, {"kind": "uvicorn"}),
    "waitress": ("waitress", 1, 4, {"kind": "waitress"}),
}
SETTINGS = {
    "sync": {"max_inflight": "1", "keep_alive": "off", "health_check.busy_window": "30s"},
    "gthread": {"keep_alive.idle_timeout": "1.5s"},
    "uvicorn": {"keep_alive.idle_timeout": "4s"},
    "waitress": {"max_inflight": "4", "keep_alive.idle_timeout": "90s"},
}
LIMITS = {"sync": 1, "gthread": 4, "uvicorn": None, "waitress": 4}
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    folder = tmp_path_factory.mktemp("kinds")
    with ExitStack() as stack:
        pools = {}
        for name, (server, workers, threads, keys) in REAL.items():
            port = stack.enter_context(served(server, workers, threads, folder / f"{name}.log"))
            pools[name] = {"servers": [f"127.0.0.1:{port}"], **keys, "queue": {"timeout": "60s"}}
        listeners = [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in REAL]
        yield stack.enter_context(LbProxy({"listeners": listeners, "pools": pools}, folder / "lb"))


def post(lb: LbProxy, name: str) -> int:
    with Client(lb.port(name), timeout_s=PATIENCE_S) as client:
        client.send(f"POST {WORK} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        return client.response().status


@pytest.mark.parametrize("name", REAL)
def test_no_request_is_lost(lb: LbProxy, name: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: post(lb, name), range(6))) == [200] * 6


@pytest.mark.parametrize("name", REAL)
def test_the_status_says_the_kind_and_what_it_sets(lb: LbProxy, name: str) -> None:
    pool = lb.pool_status(name)
    assert (pool["kind"], pool["kind_settings"]) == (REAL[name][3]["kind"], SETTINGS[name])
    assert lb.server_status(name)[0]["max_inflight"] == LIMITS[name]
