"""A real lbproxy, started as a test of somebody else's would."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from lbproxy.testing import Answer, FaultyServer, Proxy, StartError

CONFIG = """\
listeners:
  - {bind: ':80', pool: p}
  - {name: second, bind: ['unix:/run/second.sock', ':81'], pool: p}
pools:
  p:
    servers: ['10.0.0.1:80']
    max_inflight: ${SLOTS:-007}
    health_check: {interval: 100ms, fall: 1}
"""


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def test_it_runs_beside_what_has_its_ports_and_says_what_it_did(tmp_path: Path) -> None:
    file = tmp_path / "lb.yaml"
    file.write_text(CONFIG)
    with FaultyServer() as server, Proxy(file, servers={"p": [server]}) as proxy:
        assert get(proxy.url("/a")) == get(proxy.url("/b", "second")) == b"ok\n"
        assert [request.target for request in server.requests] == ["/a", "/b"]
        assert [entry["target"] for entry in proxy.access_log(2)] == ["/a", "/b"]
        assert proxy.address("0.0.0.0:80") == proxy.address() != proxy.address("second")
        [pool] = proxy.status()["pools"]
        assert [item["max_inflight"] for item in pool["servers"]] == [7]
        assert proxy.metric("lbproxy_requests_total", pool="p", code="2xx") == 2
        server.stop()
        proxy.wait_state("p", server, "down")
        server.start()
        proxy.wait_state("p", server, "up")
        assert proxy.is_running
    assert proxy.exit_status == 0
    assert "ready" in proxy.log


def test_a_dict() -> None:
    with FaultyServer(Answer(body="hello")) as server:
        pool = {"servers": [server], "max_inflight": 3}
        config = {"listeners": [{"bind": ":0", "pool": "p"}], "pools": {"p": pool}, "access_log": "off"}
        with Proxy(config) as proxy:
            assert get(proxy.url()) == b"hello"
            assert proxy.state("p", server) == "up"
            assert proxy.access_log() == []


def test_not_ready_is_said_with_the_reason_and_can_be_meant() -> None:
    for timeout_s in (2, 10, 40):  # how long it takes to come to a check depends on what else is done on this machine
        with pytest.raises(StartError, match=f"took more than {timeout_s} s to ") as raised:
            Proxy(CONFIG, servers={"p": ["127.0.0.1:1"]}, timeout_s=timeout_s).__enter__()
        if re.search(r"(?s)to become ready: .*p.*refused", str(raised.value)):
            break
    else:
        raise raised.value
    with Proxy(CONFIG, servers={"p": ["127.0.0.1:1"]}, ready=False) as proxy:
        proxy.wait_state("p", "127.0.0.1:1", "down")
        with pytest.raises(LookupError, match=r"no server 127\.0\.0\.1:2"):
            proxy.state("p", "127.0.0.1:2")
        with pytest.raises(TimeoutError, match="is down after 0 s, not up"):
            proxy.wait_state("p", "127.0.0.1:1", "up", timeout_s=0)
        with pytest.raises(TimeoutError, match="0 lines in the access log"):
            proxy.access_log(1, timeout_s=0)
        with pytest.raises(LookupError, match=r"no listener 'third'; listeners: 0\.0\.0\.0:80, second"):
            proxy.url(listener="third")


def test_a_bad_config_is_refused_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "lb.yaml"
    file.write_text(CONFIG.replace("max_inflight", "max_infligt"))
    with pytest.raises(StartError, match=r"lb\.yaml:7:5: pools\.p\.max_infligt: unknown key"):
        Proxy(file).start()
    with pytest.raises(StartError, match="there is no such file"):
        Proxy(str(tmp_path / "missing.yaml")).start()
    with pytest.raises(StartError, match=r"servers: config has no pool pp; did you mean p\?"):
        Proxy(CONFIG, servers={"pp": ["127.0.0.1:1"]}).start()


def test_a_pool_without_servers_gets_those_of_the_test(tmp_path: Path) -> None:
    with FaultyServer() as server:
        config = {"listeners": [{"bind": ":80", "pool": "p"}], "pools": {"p": {}}}
        with Proxy(config, servers={"p": [server]}) as proxy:
            assert get(proxy.url()) == b"ok\n"


def test_relative_names_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Last:\n def __init__(self, options, rng): pass\n def rebuild(self, servers): pass\n"
        " def pick(self, eligible, ctx, now): return eligible[-1]\n"
    )
    file = tmp_path / "lb.yaml"
    file.write_text(CONFIG.replace("servers:", "strategy: {python: 'mine.py:Last'}\n    servers:"))
    with FaultyServer() as first, FaultyServer() as last, Proxy(file, servers={"p": [first, last]}) as proxy:
        for _ in range(3):
            get(proxy.url())
        assert (first.count(), last.count()) == (0, 3)


def test_variables_count_and_killed_it_is_gone() -> None:
    with FaultyServer() as server, Proxy(CONFIG, servers={"p": [server]}, environ={"SLOTS": "5"}) as proxy:
        assert [item["max_inflight"] for item in proxy.status()["pools"][0]["servers"]] == [5]
        proxy.kill()
        assert (proxy.is_running, proxy.exit_status) == (False, -9)
