"""Whoever follows docs/runbook.md sees what it says: each line that it quotes is one that a running lbproxy wrote.

One daemon has a pool for each trouble, a second one has too little of everything, and a third does not start.
"""

from __future__ import annotations

import re
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lbproxy.testing import Answer, FaultyServer
from tests.support.build import ROOT
from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import refusing_port
from tests.support.pages import blocks
from tests.support.rig import get
from tests.support.waiting import wait_until

MIB = 1 << 20
QUICK = {"path": "/health", "interval": "200ms", "timeout": "60s", "fall": 1, "rise": 1}
UNCHECKED = {"health_check": "off", "retry": {"attempts": 1}}
PAUSE_S = 1.3  # LAG_WARNING_S of the controller is 1
CONNECTIONS = 5000  # far more than the limit of open files allows
FILES = 128


def alike(line: str) -> str:
    """A line of the log without what differs from one machine to another."""
    line = re.sub(r"^\S+Z ", "", line.strip())
    line = re.sub(r"(?<=[ :])/\S*/(?=[\w.-]+)", "", line)  # folders
    line = re.sub(r"\bpool(s?[ .])\w+", r"pool\1P", line)
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"127\.0\.0\.1(:\d+)?", "ADDRESS", line))


def quoted() -> list[str]:
    """Every line of the log on the page."""
    page = (ROOT / "docs/runbook.md").read_text()
    return [line for block in blocks(page) if block.info == "text" for line in block.text.splitlines()]


def ask(lb: LbProxy, listener: str, target: str = "/") -> int:
    """The status of an answer; 0 if there was none."""
    with Client(lb.port(listener)) as client, suppress(OSError, AssertionError):
        return client.ask(get(target)).status
    return 0


def wait_said(lb: LbProxy, text: str) -> None:
    """Once or more often: a busy machine has troubles of its own."""
    wait_until(lambda: text in lb.stderr, f"the log to say {text!r}")


def troubles(folder: Path) -> str:
    """What a daemon logs, one trouble after the other."""
    files = Authority(folder).issue("server", "localhost")
    with (
        FaultyServer() as server,
        FaultyServer(default=Answer(fault="close")) as closing,
        FaultyServer(default=Answer(fault="hang")) as hanging,
        refusing_port() as nobody,
    ):
        pools: dict[str, dict[str, object]] = {
            "refused": {"servers": [f"127.0.0.1:{nobody}"]},
            "checked": {"servers": [str(server)], "health_check": QUICK, "strategy": "round_robin"},
            "ejecting": {
                "servers": [str(closing), str(server)],
                "strategy": "round_robin",
                "circuit_breaker": {"failures": 2},
                **UNCHECKED,
            },
            "hanging": {"servers": [str(hanging)], **UNCHECKED},
            "named": {"servers": ["no-such-host.invalid:80"]},
            "filed": {"servers_file": str(folder / "servers.yaml")},
            "recorded": {"dns": {"srv": "_predict._tcp.example.invalid", "servers": ["127.0.0.1:9"]}},
        }
        listeners: list[dict[str, object]] = [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools]
        listeners.append({"name": "secure", "bind": "127.0.0.1:0", "pool": "checked", "tls": files.tls})
        limit = {"key": "client_ip", "rate": "1000000/s", "store": f"redis://127.0.0.1:{nobody}/0"}
        config = {"listeners": listeners, "pools": pools, "shutdown": {"grace": "100ms"}, "rate_limits": [limit]}
        lb = LbProxy(config, folder / "troubles").start()
        try:
            wait_said(lb, "rate limits: Redis at")
            assert ask(lb, "refused") == 503
            wait_until(lambda: ask(lb, "checked") == 200, "the first check")
            server.paths = {"/health": Answer(503)}
            wait_said(lb, "pool checked fails open")
            assert ask(lb, "checked") == 200
            server.paths = {}
            wait_said(lb, "pool checked no longer fails open")
            wait_until(lambda: ask(lb, "ejecting") == 200 and "is ejected" in lb.stderr, "an ejection")

            text = lb.config_path.read_text()
            lb.config_path.write_text(text.replace("round_robin", "round_robbin", 1))
            lb.signal(signal.SIGHUP)
            wait_said(lb, "reload by SIGHUP")
            assert lb.metric("config_last_reload_successful") == 0
            lb.config_path.write_text(text.replace("round_robin", "least_connections", 1))
            lb.signal(signal.SIGHUP)
            wait_said(lb, "reload: replace strategy")
            assert lb.metric("config_last_reload_successful") == 1

            drain(lb, "checked", str(server))
            (folder / "servers.yaml").write_text("- 127.0.0.1:70000\n")
            Path(files.cert).write_text("nothing\n")
            wait_said(lb, "'70000' is not a port")
            wait_said(lb, "its new certificate files are not used")
            wait_said(lb, "no answer within 3 s")
            lb.signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            lb.signal(signal.SIGCONT)
            wait_said(lb, "the event loop was")
            with Client(lb.port("hanging")) as client:
                client.send(get("/cut"))
                wait_until(lambda: lb.metric("server_inflight", pool="hanging") == 1, "a request to be under way")
                lb.signal(signal.SIGTERM)
                wait_until(lambda: not lb.is_running, "the end")
            assert lb.exit_code == 1
        finally:
            lb.kill()
        return lb.stderr


def shortage(folder: Path) -> str:
    """What a daemon logs that has descriptors, memory and disk for little."""
    with FaultyServer(paths={"/big": Answer(body=bytes(8 * MIB))}) as server, ExitStack() as stack:
        config = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [str(server)], **UNCHECKED}},
            "limits": {"connections": CONNECTIONS, "buffered_bytes": "256KiB"},
            "access_log": {"path": "/dev/full"},
        }
        with LbProxy(config, folder / "shortage", nofile=FILES) as lb:
            clients: list[Client] = []

            def is_full() -> bool:
                if len(clients) < FILES:
                    clients.append(stack.enter_context(Client(lb.port("in"), receive_buffer=4096)))
                return "is reached and others want to connect" in lb.stderr

            wait_until(is_full, "the limit of connections to be reached")
            assert ask(lb, "in") == 200
            wait_said(lb, "the access log lost lines")
            for client in clients:
                client.close()
            readers = [stack.enter_context(Client(lb.port("in"), receive_buffer=4096)) for _ in range(8)]
            for reader in readers:
                reader.send(get("/big"))
            wait_said(lb, "nobody is accepted and new requests get 503")
            assert lb.admin_get("/readyz")[0] == 503
            for reader in readers:
                reader.reset()
            wait_said(lb, "no longer overloaded")
        return lb.stderr


def collision(folder: Path) -> str:
    """What a daemon says whose port is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        config = {"listeners": [{"bind": bind, "pool": "p"}], "pools": {"p": {"servers": ["127.0.0.1:9"], **UNCHECKED}}}
        lb = LbProxy(config, folder / "collision")
        with pytest.raises(AssertionError, match="ended with status 1"):
            lb.start()
        return lb.stderr


def drain(lb: LbProxy, pool: str, server: str) -> None:
    body = b'{"admin": "drain"}'
    head = f"PATCH /api/v1/pools/{pool}/servers/{server} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with Client(lb.port("admin")) as client:
        answer = client.ask(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        assert answer.status == 200


@pytest.mark.slow
def test_the_lines_on_the_page_are_what_lbproxy_says(tmp_path: Path) -> None:
    said = troubles(tmp_path) + shortage(tmp_path) + collision(tmp_path)
    seen = {alike(line) for line in said.splitlines()}
    wanted = quoted()
    assert len(wanted) > 15
    assert [line for line in wanted if alike(line) not in seen] == [], said
