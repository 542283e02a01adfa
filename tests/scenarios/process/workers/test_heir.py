"""An lbproxy of two workers, and new ones that fail, however they do: it goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.crew import crew_config, is_alive, members_of, status_of
from tests.support.daemon import STOP_S
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.upgrades import READY_S, Chain, prepared, wait_ended
from tests.support.waiting import wait_until

TRIES = 24


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def serves(port: int) -> bool:
    """At both workers: the kernel spreads connections over them."""
    return {status_of(port) for _ in range(TRIES)} == {200}


def test_a_new_lbproxy_that_fails_changes_nothing(origin: Origin, tmp_path: Path) -> None:
    config = crew_config(origin)
    path = tmp_path / "in.sock"
    config["listeners"].append({"name": "file", "bind": f"unix:{path}", "pool": "p"})
    with Chain(config, tmp_path / "lb") as lb:
        lb.may_complain = True
        good = yaml.safe_load(lb.config_path.read_text())
        members = members_of(lb.pid)
        prepared(lb.directory, text="raise SystemExit(3)")
        assert "ended with status 3 before it was ready" in lb.fails()
        prepared(lb.directory)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = {"name": "more", "bind": f"127.0.0.1:{taken.getsockname()[1]}", "pool": "p"}
            assert "listener more: cannot listen on" in lb.fails_with(good, listeners=[*good["listeners"], other])
        pools = {"p": {"servers": [f"127.0.0.1:{consecutive_ports(1)}"]}}
        why = lb.fails_with(good, pools=pools)
        assert "the process before was ready, and this one is not: pool p has no usable server" in why
        nowhere = {"path": str(tmp_path / "no" / "access.log")}
        assert "access.log" in lb.fails_with(good, access_log=nowhere)
        lb.config_path.write_text("listeners: []\n")
        assert "lb.yaml:1:12: listeners: needs at least one listener" in lb.fails()
        lb.config_path.write_text(yaml.safe_dump(good))
        assert lb.metric("upgrades_total", result="failure") == 5
        assert members_of(lb.pid) == members
        assert path.exists()
        assert serves(lb.port("in"))
        lb.signal(signal.SIGUSR2)
        lb.wait_logged("has taken over from")
        lb.pids.append(int(lb.stderr.split("upgrade: process ")[1].split()[0]))
        assert f"taken over from {lb.pid} " in lb.stderr
        assert lb.metric("upgrades_total", result="failure") == 5, "they are counted on"
        wait_ended(lb.pid)
        assert lb.exit_code == 0
        assert path.exists()
        assert serves(lb.port("in"))
        os.kill(lb.current, signal.SIGTERM)
        wait_ended(lb.current)
        assert not path.exists()


@pytest.mark.parametrize("at", ["hello", "ready", "serving"])
def test_a_new_lbproxy_that_is_killed_at_any_point(origin: Origin, tmp_path: Path, at: str) -> None:
    path = tmp_path / "in.sock"
    config = crew_config(origin)
    config["listeners"].append({"name": "file", "bind": f"unix:{path}", "pool": "p"})
    with Chain(config, tmp_path / "lb") as lb:
        lb.may_complain = True  # those that the new supervisor has forked say that it is gone
        with lb.holding(at) as new:
            members = list(members_of(new).values())
            os.kill(new, signal.SIGKILL)
            lb.wait_logged("no upgrade, this process goes on: the new process was killed by SIGKILL")
        wait_until(lambda: not any(map(is_alive, members)), "what the new supervisor has forked to end")
        assert len(members) == (0 if at == "hello" else 3)
        assert path.exists()
        assert serves(lb.port("in"))


def test_none_while_another_is_under_way_and_none_after_a_stop(origin: Origin, tmp_path: Path) -> None:
    with Chain(crew_config(origin), tmp_path) as lb, lb.holding("ready") as new:
        lb.may_complain = True  # the new supervisor is held, and so it is killed
        status, told = lb.ask()
        assert status == 409 and "an upgrade is under way, by 127.0.0.1" in told["problems"][0]
        members = list(members_of(new).values())
        lb.signal(signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        wait_until(lambda: "lbproxy was told to stop" in lb.stderr, "the reason", READY_S)
        wait_ended(new)
        wait_until(lambda: not any(map(is_alive, members)), "what the new supervisor has forked to end")
