"""`lbproxy drain`, `add` and the others against a running daemon."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

from tests.scenarios.cli.test_commands import lbproxy
from tests.scenarios.control.test_pools_api import ask, config, servers
from tests.support import build
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.waiting import wait_until


def test_a_deploy_script_drains_waits_and_makes_ready(tmp_path: Path) -> None:
    release = threading.Event()

    def holds(peer: Peer) -> None:
        request = peer.read_request()
        peer.wait(release)
        peer.send(peer.origin.answer(request))

    with Origin(default=holds) as a, Origin() as b, LbProxy(config(a.address, b.address), tmp_path / "lb") as lb:
        admin = f"--admin=127.0.0.1:{lb.port('admin')}"
        name = f"predict/{a.address}"

        def run(*words: str) -> tuple[int, str, str]:
            done = lbproxy(*words, admin, cwd=tmp_path)
            return done.returncode, done.stdout, done.stderr

        thread = threading.Thread(target=ask, args=(lb,))
        thread.start()
        try:
            wait_until(lambda: len(a.requests) == 1, "a request at the server")
            code, out, err = run("drain", name, "--wait", "--timeout", "0.5s")
            assert (code, out) == (1, f"{name}: ready -> drain, 1 in flight\n")
            assert err == f"{name} is still busy after 0.5 s: 1 in flight\n"
            command = [*build.COMMAND, "drain", name, "--wait", admin]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as waiter:
                assert waiter.stdout is not None
                assert waiter.stdout.readline() == f"{name}: drain already, 1 in flight\n"
                assert [ask(lb) for _ in range(4)] == [200] * 4 and len(a.requests) == 1
                assert waiter.poll() is None
                release.set()
                assert waiter.stdout.read() == f"{name}: idle\n"
            assert waiter.returncode == 0
        finally:
            release.set()
            thread.join()
        assert run("ready", "predict/*")[1] == f"{name}: drain -> ready\npredict/{b.address}: ready already\n"
        assert run("maint", "--all-but", name)[1] == f"predict/{b.address}: ready -> maint\n"
        assert servers(lb)[b.address]["state"] == "maint" and servers(lb)[a.address]["state"] == "up"


def test_weights_limits_and_members(tmp_path: Path) -> None:
    path = tmp_path / "c d.sock"
    with Origin() as a, Origin(path=str(path)), LbProxy(config(a.address), tmp_path / "lb") as lb:
        admin = f"--admin=127.0.0.1:{lb.port('admin')}"
        name = f"predict/{a.address}"

        def said(*words: str, status: int = 0) -> str:
            done = lbproxy(*words, admin, cwd=tmp_path)
            assert done.returncode == status, done
            return done.stdout or done.stderr

        assert said("weight", name, "5") == f"{name}: weight 1 -> 5\n"
        assert said("limit", name, "3") == f"{name}: max_inflight off -> 3\n"
        assert "weight 5 set by 127.0.0.1" in said("status", "-v")
        assert said("weight", name, "file") == f"{name}: weight 5 -> 1\n"
        assert said("limit", name, "--file") == f"{name}: max_inflight 3 -> off\n"
        assert said("drain", name) == f"{name}: ready -> drain\n"
        assert said("ready", "--file", name) == f"{name}: drain -> ready\n"
        assert "expected a whole number from 0 to 65535, got 70000" in said("weight", name, "70000", status=2)
        assert "did you mean" in said("drain", name + "1", status=1)
        assert "looking up no-such.invalid failed" in said("add", "predict/no-such.invalid:80", status=2)
        assert said("add", "predict/localhost:9") == "predict/localhost:9/127.0.0.1: added; takes traffic\n"
        assert said("remove", "predict/localhost:9/127.0.0.1") == "predict/localhost:9/127.0.0.1: removed\n"
        assert said("add", f"predict/unix:{path}", "--limit", "2") == f"predict/unix:{path}: added; takes traffic\n"
        assert servers(lb)[f"unix:{path}"]["max_inflight"] == 2
        assert "has this address" in said("add", f"predict/unix:{path}", status=1)
        [answer] = json.loads(said("drain", "predict/unix:*", "--json"))
        assert answer["changed"] == {"admin": {"old": "ready", "new": "drain"}}
        assert said("remove", "predict/unix:*", "--wait") == f"predict/unix:{path}: removed\n"
        assert list(servers(lb)) == [a.address]


def test_maintenance_with_an_end_cuts_what_is_left_and_repeats_what_may_be(tmp_path: Path) -> None:
    def half(peer: Peer) -> None:
        request = peer.read_request()
        if request.target == "/half":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        peer.read_to_end()

    with Origin(default=half) as a, Origin() as b, LbProxy(config(a.address, b.address), tmp_path / "lb") as lb:
        name = f"predict/{a.address}"
        with Client(lb.port("in")) as cut, Client(lb.port("in")) as repeated:
            cut.send(b"GET /half HTTP/1.1\r\nHost: h\r\n\r\n")
            cut.wait_for(b"12345")
            ask(lb)  # round robin: the other one's turn
            repeated.send(b"GET /again HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until(lambda: servers(lb)[a.address]["inflight"] == 2, "two requests at the server")
            admin = f"--admin=127.0.0.1:{lb.port('admin')}"
            done = lbproxy("maint", name, "--after", "100ms", "--wait", admin, cwd=tmp_path)
            assert done.stdout.startswith(f"{name}: ready -> maint, 2 in flight, which is cut after 0.")
            assert done.stdout.endswith(f"{name}: idle\n")
            cut.read_to_end()
            assert cut.end == "rst"
            assert repeated.response().status == 200
        assert lb.entry("/half")["end"] == "maintenance"
        tries = lb.entry("/again")["tries"]
        assert isinstance(tries, list) and tries[0]["reason"] == "maintenance"
        assert lb.metric("upstream_errors_total", server=a.address, reason="maintenance") == 2
        lb.wait_logged(f"server {a.address}: the time for what was in flight is over: 2 left, to be cut")
