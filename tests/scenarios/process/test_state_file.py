"""What operators changed, and who was down, outlives the process: stopped, killed, or with nowhere to write."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.waiting import wait_until
from tests.support.wire import Ended


def config(origins: list[Origin], **more: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "front", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [f"127.0.0.1:{origin.port}" for origin in origins]}},
        **more,
    }


def call(lb: LbProxy, method: str, path: str, value: object = None) -> int:
    body = b"" if value is None else json.dumps(value).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    with Client(lb.port("admin")) as admin:
        admin.send(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        return admin.response().status


def servers(lb: LbProxy) -> dict[str, dict[str, Any]]:
    pools: Any = lb.status()["pools"]
    return {server["name"]: server for server in pools[0]["servers"]}


def test_a_restart_begins_with_what_was_changed(tmp_path: Path) -> None:
    with Origin() as a, Origin() as b, Origin() as c, Origin() as d:
        lb = LbProxy(config([a, b, c], state_file="state.json"), tmp_path)
        names = [f"127.0.0.1:{origin.port}" for origin in (a, b, c, d)]
        path = "/api/v1/pools/p/servers"
        with lb:
            assert not (tmp_path / "state.json").exists()
            assert call(lb, "PATCH", f"{path}/{names[0]}", {"admin": "drain", "weight": 7}) == 200
            assert call(lb, "DELETE", f"{path}/{names[2]}") == 200
            assert call(lb, "POST", path, {"address": names[3], "max_inflight": 4}) == 201
            wait_until(lambda: servers(lb)[names[3]]["was_up"], "the added server to be up")
        assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
        with lb:
            found = servers(lb)
            assert sorted(found) == sorted([names[0], names[1], names[3]])
            assert (found[names[0]]["admin"], found[names[0]]["weight"]) == ("drain", 7)
            assert found[names[0]]["sources"]["weight"]["by"] == "127.0.0.1"
            assert (found[names[3]]["source"], found[names[3]]["max_inflight"]) == ("live", 4)
            assert "before the restart, by 127.0.0.1" in lb.stderr
        file = yaml.safe_load(lb.config_path.read_text())
        file["pools"]["p"]["servers"][0] = {"address": names[0], "weight": 3}
        lb.config_path.write_text(yaml.safe_dump(file))
        with lb:
            assert (servers(lb)[names[0]]["weight"], servers(lb)[names[0]]["admin"]) == (3, "drain")


def test_who_was_down_is_known_after_a_crash(tmp_path: Path) -> None:
    with Origin() as a, Origin() as b:
        b.close()
        down = f"127.0.0.1:{b.port}"
        lb = LbProxy(config([a, b], state_file="state.json"), tmp_path)
        state = tmp_path / "state.json"
        lb.start()
        wait_until(lambda: state.exists() and '"reason": "refused"' in state.read_text(), "the verdict to be kept")
        lb.kill()
        with lb:
            assert f"server {down} is down, was never up: before the restart: " in lb.stderr


@contextlib.contextmanager
def killed_when_there(lb: LbProxy, path: Path) -> Iterator[None]:
    """Until this file is there."""
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.is_set():
            if path.exists():
                lb.signal(signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        has_ended.set()
        watcher.join()


def test_killed_while_it_is_written_it_leaves_a_state(tmp_path: Path) -> None:
    """Each round kills it as soon as the new file is seen; what comes back was in force at some time."""
    with Origin() as a:
        name = f"127.0.0.1:{a.port}"
        lb = LbProxy(config([a], state_file="state.json"), tmp_path)
        weight, known = 1, {1}
        for _ in range(5):
            lb.start()
            assert lb.warnings() == []
            assert not lb.error_lines()
            found = servers(lb)[name]["weight"]
            assert found in known
            known = {found}
            with killed_when_there(lb, tmp_path / "state.json.new"), contextlib.suppress(OSError, Ended):
                while True:
                    weight += 1
                    known.add(weight)
                    call(lb, "PATCH", f"/api/v1/pools/p/servers/{name}", {"weight": weight})
            lb.kill()
        with lb:
            assert servers(lb)[name]["weight"] in known


def test_with_nowhere_to_write_everything_else_goes_on(tmp_path: Path) -> None:
    with Origin() as a:
        lb = LbProxy(config([a], state_file="missing/state.json"), tmp_path)
        name = f"127.0.0.1:{a.port}"
        with lb:
            assert call(lb, "PATCH", f"/api/v1/pools/p/servers/{name}", {"weight": 7}) == 200
            lb.wait_metric("state_file_errors_total", 1)
            lb.wait_logged("missing/state.json cannot be written: No such file or directory")
            assert lb.status()["state_file"]["error"] == "No such file or directory"  # type: ignore[index]
            with Client(lb.port("front")) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.response().status == 200
            text = lb.config_path.read_text()
            lb.config_path.write_text(text.replace("missing/", ""))
            assert call(lb, "POST", "/api/v1/reload") == 200
            wait_until(lambda: (tmp_path / "state.json").exists(), "the state to be in its new place")
            lb.config_path.write_text(text.replace("state_file: missing/state.json", "state_file: 'off'"))
            assert call(lb, "POST", "/api/v1/reload") == 200
            before = (tmp_path / "state.json").read_bytes()
            assert call(lb, "PATCH", f"/api/v1/pools/p/servers/{name}", {"weight": 9}) == 200
            assert lb.status()["state_file"] is None
        assert (tmp_path / "state.json").read_bytes() == before
        assert b'"value": 7' in before
