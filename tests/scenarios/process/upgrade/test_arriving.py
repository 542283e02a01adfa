"""The process that takes over, when the one before it goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lbproxy.process.upgrade import arriving, channel
from tests.scenarios.process.test_reload import get
from tests.support.origin import Origin
from tests.support.upgrades import READY_S, Chain, wait_ended
from tests.support.waiting import wait_until


@pytest.mark.parametrize("at", ["hello", "ready", "serving"])
def test_the_old_process_is_killed_at_any_point(tmp_path: Path, at: str) -> None:
    """With the sockets in its hands the new one loses nobody; before that it starts as any other."""
    with Origin() as origin:
        settings = {
            "listeners": [{"name": "in", "bind": f"unix:{tmp_path / 'in.sock'}", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": {"interval": "100ms"}}},
        }
        if at != "hello":
            settings["listeners"][0]["bind"] = "127.0.0.1:0"  # type: ignore[index]
        with Chain(settings, tmp_path / "lb") as lb:
            with lb.holding(at) as new:
                lb.kill_first()
            if at == "hello":
                wait_until(lambda: lb.stderr.count("listening name=in") == 2, "the new one to listen", READY_S)
            else:
                assert get(lb.port("in"))[0] == 200
                wait_until(lambda: "goes on by itself" in lb.stderr or at == "serving", "the new one to serve")
            os.kill(new, signal.SIGTERM)
            wait_ended(new)
            assert lb.stderr.count("stopped; nothing was cut") == 1
            assert not (tmp_path / "in.sock").exists()


def test_a_variable_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    for value in ("x", "987", str(os.open(os.devnull, os.O_RDONLY))):
        with pytest.raises(ValueError, match="unset it"):
            arriving.arrive({arriving.FD: value})
    assert arriving.arrive({}) is None
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "lbproxy", "run", "--to", ":1"],
        env={**os.environ, arriving.FD: "987"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 2 and "LBPROXY_UPGRADE_FD='987' is no socket" in ended.stderr


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (channel.packed("abort", why="too late"), "hands nothing over: too late"),
        (channel.packed("sockets", sockets=[{"name": 1}], descriptors=0), "a socket is described as"),
        (b"GET / HTTP/1.1\r\n", "can't understand"),
    ],
)
def test_an_old_process_that_is_not_understood(said: bytes, why: str) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(said)
        with pytest.raises(ValueError, match=why):
            arriving.arrive({arriving.FD: str(theirs.detach())})


def test_an_old_process_that_is_gone_leaves_nothing() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    arrival = arriving.arrive({arriving.FD: str(theirs.detach())})
    assert arrival is not None and arrival.inherited.waiting == {} and not arrival.was_ready
    arrival.fail(["nobody hears it"])
